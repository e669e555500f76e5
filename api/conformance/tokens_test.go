package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A tokenSet has fresh tokens for one row of the conformance tables. Client c1 has the pair
// (AT1, RT1), the access token AT3 and the grant G. G has the access tokens ATa, ATb and ATc, the
// rotated refresh tokens RTg0 and RTg1, and the active RTg. Client c2 has (AT2, RT2). The public
// clients have (ATp, RTp) and (ATq, RTq). The disabled client cd has (ATd, RTd).
type tokenSet struct {
	s      *stage
	tokens map[string]string
	grants map[string]string
	iat    int64
	exp    int64
}

var sequence atomic.Int64

// tokenNames are the names of all tokens of a set. The tokens that dormant names are inactive from
// the start.
var (
	tokenNames = []string{"AT1", "RT1", "AT2", "RT2", "AT3", "ATa", "ATb", "ATc", "RTg0", "RTg1", "RTg", "ATp", "RTp",
		"ATq", "RTq", "ATd", "RTd"}
	dormant = []string{"RTg0", "RTg1", "ATd", "RTd"}
)

// newTokens registers a fresh set through the member.
func (s *stage) newTokens(t *testing.T, m *member) *tokenSet {
	t.Helper()
	n := sequence.Add(1)
	now := s.now().Unix()
	w := &tokenSet{s: s, tokens: make(map[string]string), grants: make(map[string]string), iat: now - 60, exp: now + 3600}
	for _, name := range tokenNames {
		w.tokens[name] = fmt.Sprintf("%s%s.%d~%d", rawMark, name, n, now)
	}
	w.tokens["AT1-tail"] = strings.TrimPrefix(w.tokens["AT1"], rawMark[:1])
	var lines strings.Builder
	add := func(grant, client, access, refresh string, iat int64) {
		w.grants[grant] = fmt.Sprintf("%s.%d", grant, n)
		line := map[string]any{"grant_id": w.grants[grant], "client_id": client, "subject": fmt.Sprintf("alice.%d", n),
			"session":  fmt.Sprintf("s.%d", n),
			"username": "alice@example.org", "issuer": "https://as.example", "scope": "read write", "audience": []string{"rs1"}}
		if access != "" {
			line["access_token"] = map[string]any{"token": w.tokens[access], "issued_at": iat, "expires_at": w.exp,
				"jti": access}
		}
		if refresh != "" {
			line["refresh_token"] = map[string]any{"token": w.tokens[refresh], "issued_at": iat, "expires_at": w.exp + 3600}
		}
		b, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(b, '\n'))
	}
	add("g1", "c1", "AT1", "RT1", w.iat)
	add("g2", "c2", "AT2", "RT2", w.iat)
	add("g3", "c1", "AT3", "", w.iat)
	add("G", "c1", "ATa", "RTg0", w.iat-2)
	add("G", "c1", "ATb", "RTg1", w.iat-1)
	add("G", "c1", "ATc", "RTg", w.iat)
	add("gp", "pub1", "ATp", "RTp", w.iat)
	add("gq", "pub2", "ATq", "RTq", w.iat)
	add("gd", "cd", "ATd", "RTd", w.iat)
	r := s.send(t, s.HTTP, m, "/v1/grants?results=errors",
		call{as: "iss", body: lines.String(), contentType: "application/x-ndjson"}, nil)
	if want := `{"registered":9,"known":0,"revoked":0,"failed":0,"lines":9}` + "\n"; r.Status != 200 || r.Body != want {
		t.Fatalf("register: got %d %s, want 200 %s", r.Status, r.Body, want)
	}
	return w
}

// active introspects a token on one node as a caller that may see it: rs1 for access tokens, the
// administrator for refresh tokens.
func (s *stage) active(t *testing.T, m *member, token string, refresh bool) bool {
	t.Helper()
	who := "rs1"
	if refresh {
		who = "adm"
	}
	r := s.sendUntilLed(t, m, pathIntrospect, call{as: who, body: "token=" + url.QueryEscape(token)})
	switch {
	case r.Status == 200 && r.Body == `{"active":false}`:
		return false
	case r.Status == 200 && strings.HasPrefix(r.Body, `{"active":true,`):
		return true
	}
	t.Errorf("introspect on %s: got %d %s, want 200", m.ID, r.Status, r.Body)
	return false
}

func isRefresh(name string) bool { return strings.HasPrefix(name, "RT") }

// check introspects every token on every running node: exactly those named in dead must be
// inactive.
func (w *tokenSet) check(t *testing.T, dead string) {
	t.Helper()
	names := strings.Fields(dead)
	for _, name := range names {
		if !slices.Contains(tokenNames, name) {
			t.Errorf("no token is named %q", name)
		}
	}
	var all sync.WaitGroup
	for _, m := range w.s.alive() {
		all.Go(func() {
			for _, name := range tokenNames {
				want := !slices.Contains(names, name) && !slices.Contains(dormant, name)
				if got := w.s.active(t, m, w.tokens[name], isRefresh(name)); got != want {
					t.Errorf("GA-8 %s on %s: active: got %t, want %t", name, m.ID, got, want)
				}
			}
		})
	}
	all.Wait()
}
