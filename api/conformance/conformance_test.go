package conformance_test

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A rowTable is a table of rows for the revocation endpoint.
type rowTable struct {
	name string
	rows []row
}

func revocationTables() []rowTable {
	return []rowTable{
		{"happy path", happyRows()}, {"hints", hintRows()}, {"grants", grantRows()}, {"ownership", ownerRows()},
		{"authentication", authenticationRows()}, {"malformed", malformedRows()}, {"transport", transportRows()},
	}
}

// A scenario is a row of the tables, or a sentence of the contract, that takes several requests.
type scenario struct {
	id, level, title string
	run              func(t *testing.T, s *stage)
}

func (c *scenario) name() string { return c.id + " " + c.level + ": " + c.title }

func runScenarios(t *testing.T, s *stage, list []scenario) {
	for _, c := range list {
		t.Run(c.name(), func(t *testing.T) { c.run(t, s) })
	}
}

// The test runs tables 6.2 to 6.8, 6.10 and 6.11 with default options.
func TestOAuth_DefaultOptions_Conforms(t *testing.T) {
	s := newStage(t, options{})
	for _, table := range revocationTables() {
		t.Run(table.name, func(t *testing.T) { runRows(t, s, table.rows) })
	}
	t.Run("introspection", func(t *testing.T) { runViews(t, s, viewRows()) })
	t.Run("introspection refuses like revocation", func(t *testing.T) { refusesAlike(t, s) })
	t.Run("scenarios", func(t *testing.T) { runScenarios(t, s, mainScenarios()) })
	t.Run("metadata", func(t *testing.T) { runScenarios(t, s, metadataScenarios()) })
	t.Run("contract 2: no raw token and no secret is on any disk or in any metric",
		func(t *testing.T) { nothingRawIsLeft(t, s) })
}

func mainScenarios() []scenario {
	return []scenario{
		{"HP-14", "contract 2", "ten concurrent revocations of one token through all nodes", concurrentRevocations},
		{"HT-12", "RFC 7009 5", "a wrong hint costs no additional lookup", costOfAHint},
		{"OW-13", "contract 3", "a client disabled and enabled again", suspendedClient},
		{"IN-25", "contract 3", "a disabled client's unexpired token is inactive", suspendedClient},
		{"OW-16", "contract 2", "a token of another issuer causes no call to that issuer", foreignIssuer},
	}
}

func concurrentRevocations(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			m := s.Members[i%len(s.Members)]
			r := s.send(t, s.HTTP, m, revokePaths[i%2], call{as: "c1", body: "token={AT1}"}, w.tokens)
			checkOAuth(t, r)
			if r.Status != 200 || r.Body != "{}" {
				t.Errorf("through %s: got %d %s, want 200 {}", m.ID, r.Status, r.Body)
			}
		})
	}
	all.Wait()
	w.check(t, pair)
}

// costOfAHint compares the number of lookups for a right hint with that for a wrong hint, over all
// nodes.
func costOfAHint(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	cost := func(hint string) float64 {
		before := s.total(t, "revoked_lookups_total")
		r := s.send(t, s.HTTP, s.Follower(t), pathIntrospect, call{as: "rs1", body: "token={AT1}&token_type_hint=" + hint},
			w.tokens)
		if r.Status != 200 {
			t.Fatalf("introspect: got %d %s", r.Status, r.Body)
		}
		return s.total(t, "revoked_lookups_total") - before
	}
	right, wrong := cost("access_token"), cost("refresh_token")
	if right == 0 || wrong > right+1 {
		t.Errorf("got %v lookups with a right hint and %v with a wrong one, want at most one more", right, wrong)
	}
}

// total sums a counter over all nodes and labels.
func (s *stage) total(t *testing.T, name string) float64 {
	t.Helper()
	sum := 0.0
	for _, m := range s.alive() {
		r := s.send(t, s.HTTP, m, "/metrics", call{method: http.MethodGet}, nil)
		for line := range strings.Lines(r.Body) {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
			if err != nil {
				t.Fatalf("metrics of %s: %v in %q", m.ID, err, line)
			}
			sum += value
		}
	}
	return sum
}

func suspendedClient(t *testing.T, s *stage) {
	for _, how := range []struct{ off, on string }{{`{"disabled":true}`, `{"disabled":false}`}} {
		w := s.newTokens(t, s.Follower(t))
		if r := s.json(t, s.Follower(t), http.MethodPatch, "/v1/clients/c2", "adm", how.off); r.Status != 200 ||
			!strings.Contains(r.Body, `"disabled":true`) {
			t.Fatalf("disable: got %d %s", r.Status, r.Body)
		}
		w.check(t, "AT2 RT2")
		if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{as: "c2", body: "token={AT2}"}, w.tokens); r.Status != 401 {
			t.Errorf("a disabled client revokes: got %d %s, want 401", r.Status, r.Body)
		}
		if r := s.json(t, s.Follower(t), http.MethodPatch, "/v1/clients/c2", "adm", how.on); r.Status != 200 ||
			!strings.Contains(r.Body, `"disabled":false`) {
			t.Fatalf("enable: got %d %s", r.Status, r.Body)
		}
		w.check(t, "")
	}
}

// foreignIssuer revokes a token that names an issuer. The node must not call that issuer.
func foreignIssuer(t *testing.T, s *stage) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			c.Close()
		}
	}()
	claims := fmt.Sprintf(`{"iss":"http://%s","sub":"x"}`, l.Addr())
	token := rawMark + strings.TrimPrefix(basicOf(`{"alg":"ES256","jku":"http://`+l.Addr().String()+`/k"}`), "Basic ") +
		"." + strings.TrimPrefix(basicOf(claims), "Basic ") + ".c2ln"
	for _, path := range append([]string{pathIntrospect}, revokePaths...) {
		r := s.send(t, s.HTTP, s.Follower(t), path, call{as: "c1", body: "token=" + token}, nil)
		checkOAuth(t, r)
		if r.Status != 200 {
			t.Errorf("%s: got %d %s, want 200", path, r.Status, r.Body)
		}
	}
	l.Close()
	<-done
	if n := calls.Load(); n != 0 {
		t.Errorf("got %d calls to the issuer, want none", n)
	}
}
