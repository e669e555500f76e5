package api_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"

	"revoked"
	"revoked/api"
	"revoked/api/clientauth"
	"revoked/internal/await"
)

const (
	pathRevoke     = "/oauth2/revoke"
	pathIntrospect = "/oauth2/introspect"
	formType       = "application/x-www-form-urlencoded"
)

// A hookedNode is a memoryNode that calls hooks and counts the calls to Status.
type hookedNode struct {
	*memoryNode
	onRevoke    func(ctx context.Context, by revoked.Actor, d revoked.Digest) error
	onStatus    func(ctx context.Context, d revoked.Digest) error
	statusCalls atomic.Int64
	caller      atomic.Value               // string: the caller of the last Status
	records     map[string]*revoked.Client // replace clients of the state, for values that no command stores
	editRecord  func(r *revoked.Record)    // changes the record that Status returns
}

func (h *hookedNode) Client(id string) (*revoked.Client, bool) {
	if c, ok := h.records[id]; ok {
		return c, true
	}
	return h.memoryNode.Client(id)
}

func (h *hookedNode) Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (revoked.RevokeResult, error) {
	if h.onRevoke != nil {
		if err := h.onRevoke(ctx, by, d); err != nil {
			return revoked.RevokeResult{}, err
		}
	}
	return h.memoryNode.Revoke(ctx, by, d)
}

func (h *hookedNode) Status(ctx context.Context, d revoked.Digest, caller string) (revoked.TokenStatus, error) {
	h.statusCalls.Add(1)
	h.caller.Store(caller)
	if h.onStatus != nil {
		if err := h.onStatus(ctx, d); err != nil {
			return revoked.TokenStatus{}, err
		}
	}
	s, err := h.memoryNode.Status(ctx, d, caller)
	if h.editRecord != nil {
		h.editRecord(&s.Record)
	}
	return s, err
}

// A bench is an API with a memoryNode and the fixtures of the conformance tables.
type bench struct {
	node     *hookedNode
	api      *api.API
	registry *prometheus.Registry
	log      *await.Log
	now      time.Time
}

// everywhere is all networks.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

func strong(secret string) revoked.SecretHash {
	salt := []byte("0123456789abcdef")
	sum := sha256.Sum256(append(append([]byte(nil), salt...), secret...))
	return revoked.SecretHash{Kind: revoked.HashSHA256, Salt: salt, Hash: sum[:]}
}

func weak(secret string) revoked.SecretHash {
	salt := []byte("0123456789abcdef")
	return revoked.SecretHash{Kind: revoked.HashArgon2id, Salt: salt,
		Hash: argon2.IDKey([]byte(secret), salt, 2, 19456, 1, 32)}
}

func confidential(id, secret string, roles ...revoked.Role) revoked.Client {
	return revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles,
		AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost},
		Secrets:     []revoked.SecretHash{strong(secret)}}
}

// newBench returns an API with clients: C1, C2, C3, CP, CD, RS1 and RS2 of the conformance tables,
// and one of each other role. The secret of a client is its id and "-secret". c1 and c2 have active
// token pairs (audience rs1).
func newBench(t testing.TB, change ...func(*api.Config)) *bench {
	t.Helper()
	b := &bench{registry: prometheus.NewRegistry(), log: &await.Log{}, now: time.Unix(1_790_000_100, 0)}
	b.node = &hookedNode{memoryNode: newMemoryNode(t, func() time.Time { return b.now })}
	disabled := confidential("cd", "cd-secret")
	disabled.Disabled = true
	b.node.put(
		confidential("c1", "c1-secret"), confidential("c2", "c2-secret"), confidential("cl:ient", "s%c+r t"),
		confidential("s:e", "s:e c/ret"), confidential("a b%", "50%25+x"),
		confidential("rs1", "rs1-secret", revoked.RoleResourceServer),
		confidential("rs2", "rs2-secret", revoked.RoleResourceServer),
		confidential("iss", "iss-secret", revoked.RoleIssuer), confidential("admin", "admin-secret", revoked.RoleAdmin),
		confidential("ops", "ops-secret", revoked.RoleOperator), confidential("eye", "eye-secret", revoked.RoleViewer),
		confidential("aud", "aud-secret", revoked.RoleAuditor),
		revoked.Client{ID: "pub1", Type: revoked.Public}, disabled)
	b.pair(t, "1", "c1")
	b.pair(t, "2", "c2")
	b.pair(t, "p", "pub1")
	cfg := api.Config{Backend: b.node, Issuer: "https://as.example", RequireHTTPS: true, RequirePost: true,
		RequestTimeout: await.Limit, // no 503 on a busy machine
		MetricsOnAPI:   true, MetricsNetworks: everywhere,
		Registerer: b.registry, Gatherer: b.registry, Now: func() time.Time { return b.now },
		Log: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, f := range change {
		f(&cfg)
	}
	a, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.api = a
	t.Cleanup(func() { a.Close(context.Background()) }) // before the node closes
	return b
}

// pair registers the tokens AT<name> and RT<name> of a client.
func (b *bench) pair(t testing.TB, name, client string) {
	t.Helper()
	iss, _ := b.node.Client("iss")
	regs := []revoked.Registration{{GrantID: "g" + name, ClientID: client, Subject: "alice", Session: "s1",
		Username: "alice@example.org",
		Issuer:   "https://as.example", Scope: "read write", Audience: []string{"rs1"},
		Tokens: []revoked.TokenRegistration{
			{Digest: revoked.DigestToken("AT" + name), Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_000_000,
				ExpiresAt: 1_790_003_600_000_000, JTI: "j" + name},
			{Digest: revoked.DigestToken("RT" + name), Kind: revoked.RefreshToken, IssuedAt: 1_790_000_000_000_000,
				ExpiresAt: 1_792_592_000_000_000},
		}}}
	res, err := b.node.Register(t.Context(), revoked.ActorOf(iss), regs)
	if err != nil || res[0].Err != nil {
		t.Fatal(err, res[0].Err)
	}
}

// A call is one request to the API. The zero value is a POST over TLS with a form.
type call struct {
	method, path, body, auth string
	header                   http.Header
	plain                    bool
	contentType              string // "-": none
	remote                   string
	certs                    []*x509.Certificate // certificates that the caller presents
}

func basic(id, secret string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return r.Header.Get("Authorization")
}

// as returns the Basic credentials of a fixture.
func as(id string) string { return basic(id, id+"-secret") }

func (b *bench) do(c call) *httptest.ResponseRecorder { return serveCall(b.api.Handler(), c) }

func serveCall(h http.Handler, c call) *httptest.ResponseRecorder {
	if c.method == "" {
		c.method = http.MethodPost
	}
	scheme := "https"
	if c.plain {
		scheme = "http"
	}
	var body io.Reader
	if c.body != "" || c.method == http.MethodPost {
		body = strings.NewReader(c.body)
	}
	r := httptest.NewRequest(c.method, scheme+"://as.example"+c.path, body)
	switch {
	case c.contentType == "" && c.method == http.MethodPost:
		r.Header.Set("Content-Type", formType)
	case c.contentType != "-" && c.contentType != "":
		r.Header.Set("Content-Type", c.contentType)
	}
	if c.auth != "" {
		r.Header.Set("Authorization", c.auth)
	}
	for k, v := range c.header {
		r.Header[k] = v
	}
	if c.certs != nil && r.TLS != nil {
		r.TLS.PeerCertificates = c.certs
	}
	if c.remote != "" {
		r.RemoteAddr = c.remote
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// active reports whether a token is active: to a resource server for an access token, to the
// administrator for a refresh token.
func (b *bench) active(t testing.TB, token string) bool {
	t.Helper()
	who := "rs1"
	if strings.HasPrefix(token, "RT") {
		who = "admin"
	}
	w := b.do(call{path: pathIntrospect, auth: as(who), body: "token=" + url.QueryEscape(token)})
	if w.Code != 200 {
		t.Fatalf("introspection of %s: got %d %s, want 200", token, w.Code, w.Body)
	}
	return strings.HasPrefix(w.Body.String(), `{"active":true`)
}

func jsonLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// A credentialEnd is a change after which a client may no longer use a stream that it has opened.
type credentialEnd struct {
	name   string
	change func(*testing.T, *adminBench)
	reason string // reason in the last line of the stream
}

// credentialEnds returns every change after which the credential of a client is invalid.
func credentialEnds(client string) []credentialEnd {
	patch := func(body string) func(*testing.T, *adminBench) {
		return func(t *testing.T, b *adminBench) {
			if got := b.do(t, "admin", "PATCH", "/v1/clients/"+client, "", body); got.status != 200 {
				t.Fatal(got)
			}
		}
	}
	// replace makes the secret expire after a time, as a rotation does, and adds a new secret.
	replace := func(after time.Duration) func(*testing.T, *adminBench) {
		return func(_ *testing.T, b *adminBench) {
			b.node.change(client, func(c *revoked.Client) {
				old := c.Secrets[0]
				old.ExpiresAt = revoked.TimeOf(time.Now().Add(after))
				c.Secrets = []revoked.SecretHash{clientauth.HashSecret(secretOf("another")), old}
			})
		}
	}
	return []credentialEnd{
		{"disabled", patch(`{"disabled":true}`), "client_disabled"},
		{"without its role", patch(`{"roles":[]}`), "role_lost"},
		{"not allowed to use Basic", patch(`{"auth_methods":["client_secret_post"]}`), "secret_ended"},
		{"deleted", func(t *testing.T, b *adminBench) {
			if got := b.do(t, "admin", "DELETE", "/v1/clients/"+client, "", ""); got.status != 200 {
				t.Fatal(got)
			}
		}, "client_deleted"},
		{"with a secret that was replaced", func(_ *testing.T, b *adminBench) {
			b.node.change(client, func(c *revoked.Client) {
				c.Secrets = []revoked.SecretHash{clientauth.HashSecret(secretOf("another"))}
			})
		}, "secret_ended"},
		{"with a secret past its grace period", replace(-time.Second), "secret_ended"},
		{"with a secret whose grace period ends while nothing happens", replace(200 * time.Millisecond), "secret_ended"},
	}
}
