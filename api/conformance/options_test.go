package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Options that are off by default: plain HTTP, GET, CORS, an issuer with a path, low limits.
func TestOAuth_OtherOptions_Conforms(t *testing.T) {
	s := newStage(t, options{
		open: true, cors: []string{"https://app.example", "https://two.example"}, issuerPath: "/t1",
		metadataExtra: `{"token_endpoint":"https://as.example/token","empty":[]}`, authFailures: 30, misses: 5,
	})
	t.Run("rows", func(t *testing.T) { runRows(t, s, optionRows()) })
	t.Run("scenarios", func(t *testing.T) { runScenarios(t, s, optionScenarios()) })
}

const appOrigin = "https://app.example"

func optionRows() []row {
	get := func(a call) call { a.method = http.MethodGet; return a }
	from := func(a call, origin string) call { a.header = http.Header{"Origin": {origin}}; return a }
	at1 := call{as: "c1", body: "token={AT1}"}
	return []row{
		{id: "TM-02", level: "contract 2", title: "plain HTTP where HTTPS is not required",
			call: call{as: "c1", body: "token={AT1}", plain: true}, status: 200, dead: pair},
		{id: "TM-02", level: "contract 2", title: "plain HTTP and a wrong secret",
			call: call{auth: basicOf("c1:wrong"), body: "token={AT1}", plain: true}, status: 401, code: "invalid_client"},
		{id: "TM-06", level: "contract 2", title: "GET where POST is not required",
			call: get(call{as: "c1", path: "?token={AT1}"}), status: 200, dead: pair},
		{id: "TM-06", level: "RFC 7009 2.1", title: "GET with a wrong hint",
			call: get(call{as: "c1", path: "?token={AT1}&token_type_hint=refresh_token"}), status: 200, dead: pair},
		{id: "TM-06", level: "RFC 7009 2.1", title: "GET of a foreign token",
			call: get(call{as: "c1", path: "?token={AT2}"}), status: 400, code: "invalid_grant"},
		{id: "TM-06", level: "contract 2", title: "POST still works", call: at1, status: 200, dead: pair},
		{id: "TM-07", level: "RFC 6749 2.3.1", title: "GET with a secret in the query",
			call: get(call{path: "?token={AT1}&client_id=c1&client_secret={secret:c1}"}), status: 400,
			code: "invalid_request"},
		{id: "TM-07", level: "RFC 6749 2.3.1", title: "GET with a secret in the query, and Basic",
			call: get(call{as: "c1", path: "?token={AT1}&client_secret={secret:c1}"}), status: 400, code: "invalid_request"},
		{id: "TM-07", level: "contract 2 \"credentials in the query never\"", title: "GET of a public client by client_id",
			call: get(call{path: "?token={ATq}&client_id=pub2"}), status: 400, code: "invalid_request"},
		{id: "TM-08", level: "RFC 6749 3.1", title: "GET with two tokens",
			call: get(call{as: "c1", path: "?token={AT1}&token={AT1}"}), status: 400, code: "invalid_request"},
		{id: "TM-09", level: "RFC 7009 2.1", title: "GET without a token", call: get(call{as: "c1"}), status: 400,
			code: "invalid_request"},
		{id: "TM-09", level: "RFC 6749 5.2", title: "GET without credentials", call: get(call{path: "?token={AT1}"}),
			status: 401, code: "invalid_client"},
		{id: "TM-09", level: "RFC 9110 9.3.1", title: "GET with a body",
			call: get(call{as: "c1", path: "?token={AT1}", body: "token={AT1}"}), status: 400, code: "invalid_request"},
		{id: "TM-09", level: "contract 2", title: "POST with the token in the query is still rejected",
			call: call{as: "c1", path: "?token={AT1}"}, status: 400, code: "invalid_request"},
		{id: "TM-05", level: "RFC 9110 15.5.6", title: "PUT where GET is allowed",
			call: call{method: http.MethodPut, as: "c1", body: "token={AT1}"}, status: 405, code: "invalid_request",
			after: allows("GET, POST")},
		{id: "TM-12", level: "RFC 7009 2.3", title: "a request of a configured origin", call: from(at1, appOrigin),
			status: 200, dead: pair, after: withCORS},
		{id: "TM-12", level: "RFC 7009 2.3", title: "a wrong secret",
			call: from(call{auth: basicOf("c1:wrong"), body: "token={AT1}"}, appOrigin), status: 401, code: "invalid_client",
			after: withCORS},
		{id: "TM-12", level: "RFC 7009 2.3", title: "no token", call: from(call{as: "c1", body: "x=1"}, appOrigin),
			status: 400, code: "invalid_request", after: withCORS},
		{id: "TM-12", level: "RFC 7009 2.3", title: "a body that is too large",
			call: from(call{as: "c1", body: "token=" + strings.Repeat("x", 17<<10)}, appOrigin), status: 413,
			code: "invalid_request", after: withCORS},
		{id: "TM-12", level: "RFC 7009 2.3", title: "a wrong method",
			call: from(call{method: http.MethodPut, as: "c1"}, appOrigin), status: 405, code: "invalid_request",
			after: withCORS},
		{id: "TM-13", level: "RFC 7009 2.3", title: "another origin", call: from(at1, "https://evil.example"), status: 200,
			dead: pair, after: noCORS},
		{id: "TM-13", level: "RFC 7009 2.3", title: "an origin with a configured origin as its prefix",
			call: from(at1, appOrigin+".evil.example"), status: 200, dead: pair, after: noCORS},
		{id: "TM-13", level: "RFC 7009 2.3", title: "the origin null", call: from(at1, "null"), status: 200, dead: pair,
			after: noCORS},
	}
}

func optionScenarios() []scenario {
	return []scenario{
		{"TM-11", "RFC 7009 2.3", "a preflight of a configured origin", preflights},
		{"IN-13", "contract 2", "introspection by GET where POST is not required", introspectByGet},
		{"MD-01", "RFC 8414 3.3", "the issuer is that of the configuration, even with metadata_extra", metadataExtra},
		{"MD-02", "RFC 8414 3.1", "an issuer with a path", metadataWithPath},
		{"MD-12", "RFC 9700 2.6", "CORS on the metadata", metadataCORS},
		{"CA-18", "RFC 6749 2.3.1", "guesses are throttled on every node, the correct secret is not", guesses},
		{"IN-24", "RFC 7662 4", "random tokens are throttled for each caller", randomTokens},
	}
}

func preflights(t *testing.T, s *stage) {
	call := func(path, origin string) reply {
		return s.send(t, s.HTTP, s.Follower(t), path, call{method: http.MethodOptions, header: http.Header{"Origin": {origin},
			"Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization,content-type"}}}, nil)
	}
	for _, path := range append(append([]string{}, revokePaths...), introspectPaths...) {
		r := call(path, appOrigin)
		h := r.Header
		if r.Status/100 != 2 || h.Get("Access-Control-Allow-Origin") != appOrigin ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("%s: got %d %v", path, r.Status, h)
		}
		allowed := strings.ToLower(h.Get("Access-Control-Allow-Headers"))
		if !strings.Contains(allowed, "authorization") || !strings.Contains(allowed, "content-type") ||
			!strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: got Allow-Headers %q, Vary %q", path, allowed, h.Values("Vary"))
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials mode is allowed", path)
		}
		if r := call(path, "https://evil.example"); r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another origin got %q", path, r.Header.Get("Access-Control-Allow-Origin"))
		}
	}
	for _, path := range []string{"/v1/grants", "/v1/clients", "/nothing"} {
		if r := call(path, appOrigin); r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got Access-Control-Allow-Origin %q, want CORS on OAuth endpoints only", path,
				r.Header.Get("Access-Control-Allow-Origin"))
		}
	}
}

func introspectByGet(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for _, path := range introspectPaths {
		r := s.send(t, s.HTTP, s.Follower(t), path,
			call{method: http.MethodGet, as: "rs1", path: "?token={AT1}&token_type_hint=x"}, w.tokens)
		checkOAuth(t, r)
		if r.Status != 200 || r.Body != w.fill(activeAT1) {
			t.Errorf("%s: got %d %s, want %s", path, r.Status, r.Body, w.fill(activeAT1))
		}
	}
}

func metadataExtra(t *testing.T, s *stage) {
	first, doc := s.metadata(t, s.Members[0])
	if doc["issuer"] != "https://as.example/t1" || doc["token_endpoint"] != "https://as.example/token" {
		t.Errorf("got %s", first.Body)
	}
	if _, there := doc["empty"]; there {
		t.Error("MD-06: an empty array is shown")
	}
	for _, m := range s.Members[1:] {
		other, _ := s.metadata(t, m)
		checkEqual(t, "metadata of "+m.ID, first, other)
	}
}

func metadataWithPath(t *testing.T, s *stage) {
	r := s.send(t, s.HTTP, s.Follower(t), metadataPath+"/t1", call{method: http.MethodGet}, nil)
	checkHeaders(t, r)
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.Body), &doc); r.Status != 200 || err != nil ||
		doc["issuer"] != "https://as.example/t1" {
		t.Errorf("got %d %s (%v), want the issuer https://as.example/t1", r.Status, r.Body, err)
	}
	if r := s.send(t, s.HTTP, s.Follower(t), metadataPath+"/t2", call{method: http.MethodGet}, nil); r.Status != 404 {
		t.Errorf("another path: got %d, want 404", r.Status)
	}
}

func metadataCORS(t *testing.T, s *stage) {
	for _, path := range []string{metadataPath, metadataPath + "/t1"} {
		r := s.send(t, s.HTTP, s.Follower(t), path,
			call{method: http.MethodGet, header: http.Header{"Origin": {appOrigin}}}, nil)
		if r.Status != 200 || r.Header.Get("Access-Control-Allow-Origin") != appOrigin {
			t.Errorf("%s: got %d, Access-Control-Allow-Origin %q", path, r.Status, r.Header.Get("Access-Control-Allow-Origin"))
		}
	}
}

// guesses sends wrong secrets to every node until the limit of failures is exceeded.
func guesses(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for _, m := range s.Members {
		throttled := 0
		for i := range 40 {
			r := s.send(t, s.HTTP, m, pathRevoke, call{auth: basicOf(fmt.Sprintf("c2:guess%d", i)), body: "token={AT2}"},
				w.tokens)
			checkOAuth(t, r)
			switch r.Status {
			case 401:
				if throttled > 0 {
					t.Errorf("%s: guess %d got 401 after a 429", m.ID, i)
				}
			case 429:
				throttled++
			default:
				t.Errorf("%s: guess %d: got %d %s", m.ID, i, r.Status, r.Body)
			}
		}
		if throttled < 5 {
			t.Errorf("%s: got %d of 40 guesses throttled, want 5 at least", m.ID, throttled)
		}
		if r := s.send(t, s.HTTP, m, pathRevoke, call{auth: basicOf("c1:wrong"), body: "token={AT2}"},
			w.tokens); r.Status != 401 {
			t.Errorf("%s: a first failure of another client: got %d, want 401", m.ID, r.Status)
		}
	}
	w.check(t, "")
	for _, m := range s.Members {
		r := s.send(t, s.HTTP, m, pathRevoke, call{as: "c2", body: "token={AT2}"}, w.tokens)
		checkOAuth(t, r)
		if r.Status != 200 {
			t.Errorf("%s: the correct secret: got %d %s, want 200", m.ID, r.Status, r.Body)
		}
	}
	w.check(t, "AT2 RT2")
}

func randomTokens(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	m := s.Follower(t)
	var mu sync.Mutex
	got := map[int]int{}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 25 {
				r := s.send(t, s.HTTP, m, pathIntrospect, call{as: "rs2", body: fmt.Sprintf("token=raw~random%d.%d", worker, i)},
					nil)
				checkOAuth(t, r)
				mu.Lock()
				got[r.Status]++
				mu.Unlock()
				if r.Status == 200 && r.Body != inactive {
					t.Errorf("a random token: got %s", r.Body)
				}
			}
		})
	}
	all.Wait()
	if got[429] == 0 || got[200] < 5 || got[200]+got[429] != 200 {
		t.Errorf("got %v, want 200 for the budget and 429 beyond it", got)
	}
	if r := s.send(t, s.HTTP, m, pathIntrospect, call{as: "rs1", body: "token=raw~random"}, nil); r.Status != 200 {
		t.Errorf("another caller: got %d %s, want 200", r.Status, r.Body)
	}
	if r := s.send(t, s.HTTP, m, pathIntrospect, call{as: "rs2", body: "token={AT1}"}, w.tokens); r.Status != 200 {
		t.Errorf("a known token of the caller that is throttled: got %d %s, want 200", r.Status, r.Body)
	}
}
