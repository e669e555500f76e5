package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
)

// CA-18: guesses are throttled for each client id; who knows the secret is never refused.
func TestGuessesAreThrottledAndTheRightSecretIsNot(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 5 })
	guess := func(auth string) int {
		w := b.do(call{path: pathRevoke, auth: auth, body: "token=x"})
		always(t, w)
		if w.Code == 429 {
			if n, _ := strconv.Atoi(w.Header().Get("Retry-After")); n > 12 {
				t.Errorf("got Retry-After %d, want at most 12", n)
			}
		}
		return w.Code
	}
	for _, id := range []string{"c1", "nobody"} { // both alike
		codes := map[int]int{}
		for i := range 10 {
			codes[guess(basic(id, "guess"+strconv.Itoa(i)))]++
		}
		if codes[401] != 5 || codes[429] != 5 {
			t.Errorf("%s: got %v, want 5 times 401 and 5 times 429", id, codes)
		}
	}
	if got := guess(rawBasic("%63%31", "guess")); got != 429 {
		t.Errorf("another spelling of the same id: got %d, want 429", got)
	}
	if got := guess(as("c1")); got != 200 {
		t.Errorf("the right secret: got %d, want 200", got)
	}
	if got := guess(basic("c2", "wrong")); got != 401 {
		t.Errorf("another client: got %d, want 401", got)
	}
	if w := b.do(call{method: "GET", path: "/v1/status", auth: basic("c1", "wrong")}); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("/v1 has the same budget: got %d", w.Code)
	}
	b.now = b.now.Add(13 * time.Second)
	if got := guess(basic("c1", "wrong")); got != 401 {
		t.Errorf("after a while: got %d, want 401", got)
	}
}

// A request that fails costs each id that it may mean one failure, however many ways there are to read it.
func TestReadingsOfACredentialCostOneFailure(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 4 })
	codes := map[int]int{}
	for range 6 {
		codes[b.do(call{path: pathRevoke, auth: rawBasic("c1", "a+b%2Bc"), body: "token=x"}).Code]++
	}
	if codes[401] != 4 || codes[429] != 2 {
		t.Errorf("a secret that can be read in three ways: got %v, want 4 times 401 and 2 times 429", codes)
	}
	clear(codes)
	for range 6 {
		codes[b.do(call{path: pathRevoke, auth: rawBasic("%63+2", "a+b%2Bc"), body: "token=x"}).Code]++
	}
	if codes[401] != 4 || codes[429] != 2 {
		t.Errorf("and an id: got %v, want 4 times 401 and 2 times 429", codes)
	}
}

// A node that has just started may not know every client yet: it cannot call one unknown.
func TestAnUnknownClientOfANodeThatIsBehind(t *testing.T) {
	b := newBench(t)
	b.node.mu.Lock()
	b.node.behind = true
	b.node.mu.Unlock()
	for _, row := range []struct {
		name, auth string
		want       int
	}{
		{"a client that it does not know", basic("nobody", "secret"), 503},
		{"a client that it knows, with a wrong secret", basic("c1", "wrong"), 401},
		{"a client that it knows", as("c1"), 200},
		{"nobody", "", 401},
	} {
		w := b.do(call{path: pathRevoke, auth: row.auth, body: "token=x"})
		always(t, w)
		if w.Code != row.want {
			t.Errorf("%s: got %d, want %d", row.name, w.Code, row.want)
		}
		if row.want == 200 || row.auth == "" {
			continue
		}
		if w := b.do(call{method: "GET", path: "/v1/status", auth: row.auth}); w.Code != row.want {
			t.Errorf("%s, under /v1: got %d, want %d", row.name, w.Code, row.want)
		}
	}
}

// A node without a lease is behind for a moment: what was done to a client at another node is final there too.
func TestAClientThatWasChangedElsewhere(t *testing.T) {
	disabled := func(id string) func(*fakeNode) {
		return func(f *fakeNode) { c := *f.clients[id]; c.Disabled = true; f.set(c) }
	}
	deleted := func(id string) func(*fakeNode) { return func(f *fakeNode) { delete(f.clients, id) } }
	made := func(f *fakeNode) { f.set(confidential("new", "new-secret")) }
	rotated := func(f *fakeNode) { f.set(confidential("c1", "c1-another")) }
	public := func(f *fakeNode) { c := *f.clients["pub1"]; c.AllowPublicRevocation = true; f.set(c) }
	heard := func(f *fakeNode) {
		c := *f.clients["rs1"]
		c.Audiences = []string{"another"}
		f.set(c)
		f.settings.LeaseDuration = 7 * time.Second
	}
	bearer := func(b *bench) *httptest.ResponseRecorder {
		return b.do(call{method: "GET", path: "/v1/check", header: http.Header{"Revoked-Authorization": {as("rs1")}, "Authorization": {"Bearer AT1"}}})
	}
	ask := func(c call) func(*bench) *httptest.ResponseRecorder {
		return func(b *bench) *httptest.ResponseRecorder { return b.do(c) }
	}
	for _, row := range []struct {
		name   string
		what   func(*fakeNode)
		ask    func(*bench) *httptest.ResponseRecorder
		status int
		holds  string
	}{
		{"a disabled resource server introspects", disabled("rs1"), ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 401, "invalid_client"},
		{"a deleted one", deleted("rs1"), ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 401, "invalid_client"},
		{"one of other audiences", heard, ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 200, `{"active":false}`},
		{"a disabled resource server checks", disabled("rs1"), bearer, 503, ""},
		{"a client that was made revokes", made, ask(call{path: pathRevoke, auth: as("new"), body: "token=x"}), 200, "{}"},
		{"a new secret", rotated, ask(call{path: pathRevoke, auth: basic("c1", "c1-another"), body: "token=x"}), 200, "{}"},
		{"a public client that may now", public, ask(call{path: pathRevoke, body: "token=ATp&client_id=pub1"}), 200, "{}"},
		{"a disabled administrator", disabled("admin"), ask(call{method: "GET", path: "/v1/status", auth: as("admin")}), 401, ""},
		{"a client that was made is shown", made, ask(call{method: "GET", path: "/v1/clients/new", auth: as("admin")}), 200, `"client_id":"new"`},
		{"one that was deleted is not", deleted("c1"), ask(call{method: "GET", path: "/v1/clients/c1", auth: as("admin")}), 404, ""},
		{"the settings", heard, ask(call{method: "GET", path: "/v1/settings", auth: as("admin")}), 200, `"lease_duration":"7s"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.node.elsewhere = row.what
			if w := row.ask(b); w.Code != row.status || !strings.Contains(w.Body.String(), row.holds) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, row.status, row.holds)
			}
		})
	}
}

func TestSecretsAndTheirEnd(t *testing.T) {
	b := newBench(t)
	at := func(d time.Duration) revoked.Time { return revoked.TimeOf(b.now.Add(d)) }
	old, gone := strong("old"), strong("gone")
	old.ExpiresAt, gone.ExpiresAt = at(time.Second), at(0)
	oldWeak := weak("oldweak")
	oldWeak.ExpiresAt = at(time.Second)
	c := confidential("multi", "new")
	c.Secrets = append(c.Secrets, old, gone, weak("weak"), oldWeak, revoked.SecretHash{Kind: 99, Hash: []byte{}})
	b.node.put(c)
	post, head := confidential("post", "post-secret"), confidential("head", "head-secret")
	post.AuthMethods, head.AuthMethods = []string{revoked.AuthPost}, []string{revoked.AuthBasic}
	b.node.put(post)
	b.node.put(head)
	for _, row := range []struct {
		id     string
		call   call
		status int
	}{
		{"the new secret", call{auth: basic("multi", "new")}, 200},
		{"CA-20 the old one within its grace", call{auth: basic("multi", "old")}, 200},
		{"CA-20 an old one beyond it", call{auth: basic("multi", "gone")}, 401},
		{"a weak one", call{auth: basic("multi", "weak")}, 200},
		{"a weak one again", call{auth: basic("multi", "weak")}, 200},
		{"a weak one in the body", call{body: "client_id=multi&client_secret=weak&"}, 200},
		{"a wrong one", call{auth: basic("multi", "weaker")}, 401},
		{"a wrong one again", call{auth: basic("multi", "weaker")}, 401},
		{"an old weak one", call{auth: basic("multi", "oldweak")}, 200},
		{"CA-19 Basic only, by Basic", call{auth: as("head")}, 200},
		{"CA-19 Basic only, in the body", call{body: "client_id=head&client_secret=head-secret&"}, 401},
		{"post only, in the body", call{body: "client_id=post&client_secret=post-secret&"}, 200},
		{"post only, by Basic", call{auth: as("post")}, 401},
	} {
		row.call.path, row.call.body = pathRevoke, row.call.body+"token=x"
		w := b.do(row.call)
		always(t, w)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
	b.now = b.now.Add(time.Second)
	for _, secret := range []string{"old", "oldweak"} {
		if w := b.do(call{path: pathRevoke, auth: basic("multi", secret), body: "token=x"}); w.Code != 401 {
			t.Errorf("CA-20 %s after its grace: got %d, want 401", secret, w.Code)
		}
	}
	c.Secrets = c.Secrets[:1]
	b.node.put(c)
	if w := b.do(call{path: pathRevoke, auth: basic("multi", "weak"), body: "token=x"}); w.Code != 401 {
		t.Errorf("a weak secret that was taken away: got %d, want 401", w.Code)
	}
}

// A client over its budget that guesses at a weak secret does not keep its owner out.
func TestWeakSecretUnderAttack(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 1 })
	c := confidential("w", "")
	c.Secrets = []revoked.SecretHash{weak("w-secret")}
	b.node.put(c)
	for i := range 3 {
		b.do(call{path: pathRevoke, auth: basic("w", "guess"+strconv.Itoa(i)), body: "token=x"})
	}
	if w := b.do(call{path: pathRevoke, auth: as("w"), body: "token=x"}); w.Code != 200 {
		t.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
}

func TestRolesUnderV1(t *testing.T) {
	b := newBench(t)
	for _, row := range []struct {
		id     string
		call   call
		status int
	}{
		{"the role", call{auth: as("admin")}, 200},
		{"another role", call{auth: as("rs1")}, 403},
		{"no role", call{auth: as("c1")}, 403},
		{"nobody", call{}, 401},
		{"a wrong secret", call{auth: basic("admin", "wrong")}, 401},
		{"a bearer token", call{auth: "Bearer AT1"}, 401},
		{"two headers", call{header: http.Header{"Authorization": {as("admin"), as("admin")}}}, 400},
	} {
		row.call.method, row.call.path = "GET", "/v1/status"
		w := b.do(row.call)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
		if w.Code == 401 && w.Header().Get("WWW-Authenticate") != `Basic realm="revoked"` {
			t.Errorf("%s: got WWW-Authenticate %q", row.id, w.Header().Get("WWW-Authenticate"))
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got Content-Type %q", row.id, w.Header().Get("Content-Type"))
		}
	}
	w := b.do(call{method: "POST", path: "/v1/status", auth: as("admin")})
	if w.Code != 405 || !strings.Contains(w.Header().Get("Allow"), "GET") || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("a wrong method: got %d, %v", w.Code, w.Header())
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := func() api.Config { return api.Config{Backend: newFakeNode(), Issuer: "https://as.example"} }
	if _, err := api.New(good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*api.Config){
		"no backend": func(c *api.Config) { c.Backend = nil }, "no issuer": func(c *api.Config) { c.Issuer = "" },
		"an issuer with a query":      func(c *api.Config) { c.Issuer = "https://as.example?x" },
		"an issuer with a fragment":   func(c *api.Config) { c.Issuer = "https://as.example#" },
		"a plain issuer":              func(c *api.Config) { c.Issuer = "http://as.example"; c.RequireHTTPS = true },
		"an issuer without a host":    func(c *api.Config) { c.Issuer = "https:///x" },
		"a negative budget":           func(c *api.Config) { c.AuthFailuresPerMinute = -1 },
		"a negative budget of misses": func(c *api.Config) { c.MissesPerSecond = -1 },
		"a negative timeout":          func(c *api.Config) { c.RequestTimeout = -1 },
		"metadata that is no JSON":    func(c *api.Config) { c.MetadataExtra = map[string]any{"x": func() {}} },
	} {
		cfg := good()
		change(&cfg)
		if _, err := api.New(cfg); err == nil || !strings.Contains(fmt.Sprint(err), revoked.ErrInvalid.Error()) {
			t.Errorf("%s: got %v, want an invalid request", name, err)
		}
	}
}
