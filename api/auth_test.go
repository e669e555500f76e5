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
	"revoked/fsm/command"
)

// CA-18: failures are throttled per client id, and the correct secret always passes.
func TestAuth_Guesses_ThrottleFailuresOnly(t *testing.T) {
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
	for _, id := range []string{"c1", "nobody"} { // the ids of a known and an unknown client
		codes := map[int]int{}
		for i := range 10 {
			codes[guess(basic(id, "guess"+strconv.Itoa(i)))]++
		}
		if codes[401] != 5 || codes[429] != 5 {
			t.Errorf("%s: got %v, want 5 times 401 and 5 times 429", id, codes)
		}
	}
	if got := guess(rawBasic("%63%31", "guess")); got != 429 {
		t.Errorf("another encoding of the same id: got %d, want 429", got)
	}
	if got := guess(as("c1")); got != 200 {
		t.Errorf("the correct secret: got %d, want 200", got)
	}
	if got := guess(basic("c2", "wrong")); got != 401 {
		t.Errorf("another client: got %d, want 401", got)
	}
	if w := b.do(call{method: "GET", path: "/v1/status", auth: basic("c1", "wrong")}); w.Code != 429 ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("the same limit under /v1: got %d, want 429", w.Code)
	}
	b.now = b.now.Add(13 * time.Second)
	if got := guess(basic("c1", "wrong")); got != 401 {
		t.Errorf("after a while: got %d, want 401", got)
	}
}

// A failed request costs each id that it may name one failure, however many candidates it has.
func TestAuth_SeveralDecodings_CostOneFailure(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 4 })
	codes := map[int]int{}
	for range 6 {
		codes[b.do(call{path: pathRevoke, auth: rawBasic("c1", "a+b%2Bc"), body: "token=x"}).Code]++
	}
	if codes[401] != 4 || codes[429] != 2 {
		t.Errorf("a secret with three decodings: got %v, want 4 times 401 and 2 times 429", codes)
	}
	clear(codes)
	for range 6 {
		codes[b.do(call{path: pathRevoke, auth: rawBasic("%63+2", "a+b%2Bc"), body: "token=x"}).Code]++
	}
	if codes[401] != 4 || codes[429] != 2 {
		t.Errorf("an id with several decodings: got %v, want 4 times 401 and 2 times 429", codes)
	}
}

// A node that has just started may lack some clients, so it cannot reject an unknown one.
func TestAuth_NodeBehind_UnknownClientIs503(t *testing.T) {
	b := newBench(t)
	b.node.mu.Lock()
	b.node.behind = true
	b.node.mu.Unlock()
	for _, row := range []struct {
		name, auth string
		want       int
	}{
		{"an unknown client", basic("nobody", "secret"), 503},
		{"a known client, whose secret may have changed", basic("c1", "wrong"), 503},
		{"a known client", as("c1"), 200},
		{"no credentials", "", 401},
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

// The caller may have got a role since this node was last current. So this node does not refuse a
// caller because of a missing role.
func TestAuth_NodeBehind_UnknownRoleIs503(t *testing.T) {
	b := newBench(t)
	for behind, want := range map[bool]int{true: 503, false: 403} {
		b.node.mu.Lock()
		b.node.behind = behind
		b.node.mu.Unlock()
		if w := b.do(call{method: "GET", path: "/v1/clients", auth: as("rs1")}); w.Code != want {
			t.Errorf("caller without the role, behind %t: got %d %s, want %d", behind, w.Code, w.Body, want)
		}
		if w := b.do(call{method: "GET", path: "/v1/clients", auth: as("admin")}); w.Code != 200 {
			t.Errorf("administrator, behind %t: got %d %s, want 200", behind, w.Code, w.Body)
		}
	}
}

// A client change at another node takes effect here, even while this node has no lease and is
// behind.
func TestAuth_ClientChangedElsewhere_UsesNewRecord(t *testing.T) {
	disabled := func(id string) func(*memoryNode) {
		return func(n *memoryNode) { n.change(id, func(c *revoked.Client) { c.Disabled = true }) }
	}
	deleted := func(id string) func(*memoryNode) {
		return func(n *memoryNode) { n.mustApply(command.DeleteClientOp(n.setupActor(), id)) }
	}
	created := func(n *memoryNode) { n.put(confidential("new", "new-secret")) }
	rotated := func(n *memoryNode) { n.put(confidential("c1", "c1-another")) }
	public := func(n *memoryNode) { n.change("pub1", func(c *revoked.Client) { c.AllowPublicRevocation = true }) }
	updated := func(n *memoryNode) {
		n.change("rs1", func(c *revoked.Client) { c.Audiences = []string{"another"} })
		s := n.fsm.Settings()
		s.LeaseDuration = 7 * time.Second
		n.mustApply(command.PutSettingsOp(n.setupActor(), s, s.Version))
	}
	bearer := func(b *bench) *httptest.ResponseRecorder {
		return b.do(call{method: "GET", path: "/v1/check",
			header: http.Header{"Revoked-Authorization": {as("rs1")}, "Authorization": {"Bearer AT1"}}})
	}
	ask := func(c call) func(*bench) *httptest.ResponseRecorder {
		return func(b *bench) *httptest.ResponseRecorder { return b.do(c) }
	}
	for _, row := range []struct {
		name   string
		change func(*memoryNode)
		ask    func(*bench) *httptest.ResponseRecorder
		status int
		body   string // part of the expected body
	}{
		{"a disabled resource server introspects", disabled("rs1"),
			ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 401, "invalid_client"},
		{"a deleted resource server introspects", deleted("rs1"),
			ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 401, "invalid_client"},
		{"a resource server with other audiences", updated,
			ask(call{path: pathIntrospect, auth: as("rs1"), body: "token=AT1"}), 200, `{"active":false}`},
		{"a disabled resource server checks", disabled("rs1"), bearer, 503, ""},
		{"a created client revokes", created, ask(call{path: pathRevoke, auth: as("new"), body: "token=x"}), 200, "{}"},
		{"a new secret", rotated, ask(call{path: pathRevoke, auth: basic("c1", "c1-another"), body: "token=x"}), 200, "{}"},
		{"a public client that may revoke now", public, ask(call{path: pathRevoke, body: "token=ATp&client_id=pub1"}), 200,
			"{}"},
		{"a disabled administrator", disabled("admin"), ask(call{method: "GET", path: "/v1/status", auth: as("admin")}),
			401, ""},
		{"a created client is shown", created, ask(call{method: "GET", path: "/v1/clients/new", auth: as("admin")}), 200,
			`"client_id":"new"`},
		{"a deleted client is not shown", deleted("c1"), ask(call{method: "GET", path: "/v1/clients/c1", auth: as("admin")}),
			404, ""},
		{"the settings", updated, ask(call{method: "GET", path: "/v1/settings", auth: as("admin")}), 200,
			`"lease_duration":"7s"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.node.elsewhere = row.change
			if w := row.ask(b); w.Code != row.status || !strings.Contains(w.Body.String(), row.body) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, row.status, row.body)
			}
		})
	}
}

func TestAuth_ExpiredSecret_Is401(t *testing.T) {
	b := newBench(t)
	at := func(d time.Duration) revoked.Time { return revoked.TimeOf(b.now.Add(d)) }
	old, gone := strong("old"), strong("gone")
	old.ExpiresAt, gone.ExpiresAt = at(time.Second), at(0)
	oldWeak := weak("oldweak")
	oldWeak.ExpiresAt = at(time.Second)
	c := confidential("multi", "new")
	c.Secrets = append(c.Secrets, old, gone, weak("weak"), oldWeak)
	b.node.put(c)
	stored, _ := b.node.Client("multi")
	later := *stored // gets a secret of a kind that only a later version supports
	later.Secrets = append(later.Secrets, revoked.SecretHash{Kind: 99, Hash: []byte{}})
	b.node.records = map[string]*revoked.Client{"multi": &later}
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
		{"CA-20 the old secret in its grace period", call{auth: basic("multi", "old")}, 200},
		{"CA-20 an old secret after its grace period", call{auth: basic("multi", "gone")}, 401},
		{"a weak secret", call{auth: basic("multi", "weak")}, 200},
		{"a weak secret again", call{auth: basic("multi", "weak")}, 200},
		{"a weak secret in the body", call{body: "client_id=multi&client_secret=weak&"}, 200},
		{"a wrong secret", call{auth: basic("multi", "weaker")}, 401},
		{"a wrong secret again", call{auth: basic("multi", "weaker")}, 401},
		{"an old weak secret", call{auth: basic("multi", "oldweak")}, 200},
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
			t.Errorf("CA-20 %s after its grace period: got %d, want 401", secret, w.Code)
		}
	}
	c.Secrets = c.Secrets[:1]
	b.node.records = nil
	b.node.put(c)
	if w := b.do(call{path: pathRevoke, auth: basic("multi", "weak"), body: "token=x"}); w.Code != 401 {
		t.Errorf("a removed weak secret: got %d, want 401", w.Code)
	}
}

// Guesses at a weak secret, over the limit of failures, do not lock its owner out.
func TestAuth_WeakSecretGuessed_OwnerPasses(t *testing.T) {
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

func TestAuth_EachRole_ReachesItsRoutes(t *testing.T) {
	b := newBench(t)
	for _, row := range []struct {
		id     string
		call   call
		status int
	}{
		{"the role", call{auth: as("admin")}, 200},
		{"another role", call{auth: as("rs1")}, 403},
		{"no role", call{auth: as("c1")}, 403},
		{"no credentials", call{}, 401},
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
			t.Errorf("%s: got WWW-Authenticate %q, want Basic", row.id, w.Header().Get("WWW-Authenticate"))
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got Content-Type %q, want a problem document", row.id, w.Header().Get("Content-Type"))
		}
	}
	w := b.do(call{method: "POST", path: "/v1/status", auth: as("admin")})
	if w.Code != 405 || !strings.Contains(w.Header().Get("Allow"), "GET") ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("a wrong method: got %d, %v, want 405 and Allow", w.Code, w.Header())
	}
}

func TestNew_InvalidConfig_IsRejected(t *testing.T) {
	good := func() api.Config {
		return api.Config{Backend: newMemoryNode(t, time.Now), Issuer: "https://as.example"}
	}
	a, err := api.New(good())
	if err != nil {
		t.Fatal(err)
	}
	a.Close(t.Context())
	for name, change := range map[string]func(*api.Config){
		"no backend": func(c *api.Config) { c.Backend = nil }, "no issuer": func(c *api.Config) { c.Issuer = "" },
		"an issuer with a query":       func(c *api.Config) { c.Issuer = "https://as.example?x" },
		"an issuer with a fragment":    func(c *api.Config) { c.Issuer = "https://as.example#" },
		"an issuer over plain HTTP":    func(c *api.Config) { c.Issuer = "http://as.example"; c.RequireHTTPS = true },
		"an issuer without a host":     func(c *api.Config) { c.Issuer = "https:///x" },
		"a negative failure limit":     func(c *api.Config) { c.AuthFailuresPerMinute = -1 },
		"a negative limit of misses":   func(c *api.Config) { c.MissesPerSecond = -1 },
		"a negative timeout":           func(c *api.Config) { c.RequestTimeout = -1 },
		"a network with host bits":     func(c *api.Config) { c.CheckNetworks = networks("10.1.2.3/8", "*") },
		"an IPv4-mapped network":       func(c *api.Config) { c.CheckNetworks = networks("::ffff:10.0.0.0/104", "*") },
		"metadata without a JSON form": func(c *api.Config) { c.MetadataExtra = map[string]any{"x": func() {}} },
	} {
		cfg := good()
		change(&cfg)
		if _, err := api.New(cfg); err == nil || !strings.Contains(fmt.Sprint(err), revoked.ErrInvalid.Error()) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

// An access token in the header does not authenticate a client, so it does not count as a second
// authentication method (RFC 6749 section 2.3).
func TestOAuth_AccessTokenInHeader_IsIgnored(t *testing.T) {
	b := newBench(t)
	const own = "client_id=c1&client_secret=c1-secret&"
	for _, row := range []struct {
		name   string
		call   call
		status int
	}{
		{"Bearer and the body", call{auth: "Bearer AT1", body: own}, 200},
		{"a lower-case scheme", call{auth: "bearer AT1", body: own}, 200},
		{"a malformed header", call{auth: "Bearer", body: own}, 200},
		{"DPoP and the body", call{auth: "DPoP AT1", body: own}, 200},
		{"Bearer and a wrong secret", call{auth: "Bearer AT1", body: "client_id=c1&client_secret=wrong&"}, 401},
		{"Bearer alone", call{auth: "Bearer AT1"}, 401},
		{"Bearer and a client_id without a secret", call{auth: "Bearer AT1", body: "client_id=c1&"}, 401},
		{"Basic and the body", call{auth: as("c1"), body: own}, 400},
		{"another scheme and the body", call{auth: "Digest x", body: own}, 400},
		{"a scheme that begins with Bearer", call{auth: "Bearers AT1", body: own}, 400},
		{"two headers", call{header: http.Header{"Authorization": {"Bearer AT1", as("c1")}}}, 400},
		{"two Bearer headers and the body",
			call{header: http.Header{"Authorization": {"Bearer AT1", "Bearer AT1"}}, body: own}, 400},
	} {
		for _, path := range []string{pathRevoke, pathIntrospect} {
			c := row.call
			c.path, c.body = path, c.body+"token=x"
			w := b.do(c)
			always(t, w)
			if w.Code != row.status {
				t.Errorf("%s, %s: got %d %s, want %d", row.name, path, w.Code, w.Body, row.status)
			}
		}
	}
	b.node.change("pub1", func(c *revoked.Client) { c.AllowPublicRevocation = true })
	if w := b.do(call{path: pathRevoke, auth: "Bearer ATp", body: "client_id=pub1&token=ATp"}); w.Code != 200 {
		t.Errorf("a public client: got %d %s, want 200", w.Code, w.Body)
	}
}
