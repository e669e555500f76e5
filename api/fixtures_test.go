package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"

	"revoked"
	"revoked/api"
)

const (
	pathRevoke     = "/oauth2/revoke"
	pathIntrospect = "/oauth2/introspect"
	formType       = "application/x-www-form-urlencoded"
)

// A hookedNode is a fake node some of whose answers a test replaces, or counts.
type hookedNode struct {
	*fakeNode
	onRevoke    func(ctx context.Context, by revoked.Actor, d revoked.Digest) error
	onStatus    func(ctx context.Context, d revoked.Digest) error
	statusCalls atomic.Int64
}

func (h *hookedNode) Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (uint64, error) {
	if h.onRevoke != nil {
		if err := h.onRevoke(ctx, by, d); err != nil {
			return 0, err
		}
	}
	return h.fakeNode.Revoke(ctx, by, d)
}

func (h *hookedNode) Status(ctx context.Context, d revoked.Digest) (revoked.Status, error) {
	h.statusCalls.Add(1)
	if h.onStatus != nil {
		if err := h.onStatus(ctx, d); err != nil {
			return revoked.Status{}, err
		}
	}
	return h.fakeNode.Status(ctx, d)
}

// A bench is an API before a fake node, with the fixtures of the conformance tables.
type bench struct {
	node     *hookedNode
	api      *api.API
	registry *prometheus.Registry
	log      *safeBuffer
	now      time.Time
}

// safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func strong(secret string) revoked.SecretHash {
	salt := []byte("0123456789abcdef")
	sum := sha256.Sum256(append(append([]byte(nil), salt...), secret...))
	return revoked.SecretHash{Kind: revoked.HashSHA256, Salt: salt, Hash: sum[:]}
}

func weak(secret string) revoked.SecretHash {
	salt := []byte("0123456789abcdef")
	return revoked.SecretHash{Kind: revoked.HashArgon2id, Salt: salt, Hash: argon2.IDKey([]byte(secret), salt, 2, 19456, 1, 32)}
}

func confidential(id, secret string, roles ...revoked.Role) revoked.Client {
	return revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles, AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost},
		Secrets: []revoked.SecretHash{strong(secret)}}
}

// newBench returns an API with C1, C2, C3, CP, CD, RS1, RS2, an issuer and an administrator, whose
// secrets are their ids and "-secret", and live pairs of c1 and c2 (audience rs1).
func newBench(t testing.TB, change ...func(*api.Config)) *bench {
	t.Helper()
	b := &bench{node: &hookedNode{fakeNode: newFakeNode()}, registry: prometheus.NewRegistry(), log: &safeBuffer{}, now: time.Unix(1_790_000_100, 0)}
	b.node.now = func() time.Time { return b.now }
	for _, c := range []revoked.Client{
		confidential("c1", "c1-secret"), confidential("c2", "c2-secret"), confidential("cl:ient", "s%c+r t"),
		confidential("s:e", "s:e c/ret"), confidential("a b%", "50%25+x"),
		confidential("rs1", "rs1-secret", revoked.RoleResourceServer), confidential("rs2", "rs2-secret", revoked.RoleResourceServer),
		confidential("iss", "iss-secret", revoked.RoleIssuer), confidential("admin", "admin-secret", revoked.RoleAdmin),
		{ID: "pub1", Type: revoked.Public},
	} {
		b.node.put(c)
	}
	disabled := confidential("cd", "cd-secret")
	disabled.Disabled = true
	b.node.put(disabled)
	b.pair(t, "1", "c1")
	b.pair(t, "2", "c2")
	b.pair(t, "p", "pub1")
	cfg := api.Config{Backend: b.node, Issuer: "https://as.example", RequireHTTPS: true, RequirePost: true, MetricsOnAPI: true,
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
	return b
}

// pair registers the tokens AT<name> and RT<name> of a client.
func (b *bench) pair(t testing.TB, name, client string) {
	t.Helper()
	iss, _ := b.node.Client("iss")
	regs := []revoked.Registration{{GrantID: "g" + name, ClientID: client, Subject: "alice", Session: "s1", Username: "alice@example.org",
		Issuer: "https://as.example", Scope: "read write", Audience: []string{"rs1"},
		Tokens: []revoked.TokenRegistration{
			{Digest: revoked.DigestToken("AT" + name), Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_000_000, ExpiresAt: 1_790_003_600_000_000, JTI: "j" + name},
			{Digest: revoked.DigestToken("RT" + name), Kind: revoked.RefreshToken, IssuedAt: 1_790_000_000_000_000, ExpiresAt: 1_792_592_000_000_000},
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
}

func basic(id, secret string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return r.Header.Get("Authorization")
}

// as returns the Basic credentials of a fixture.
func as(id string) string { return basic(id, id+"-secret") }

func (b *bench) do(c call) *httptest.ResponseRecorder { return serve(b.api.Handler(), c) }

func serve(h http.Handler, c call) *httptest.ResponseRecorder {
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
	if c.remote != "" {
		r.RemoteAddr = c.remote
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// active reports what a resource server is told of a token; refresh tokens are asked for by the
// administrator.
func (b *bench) active(t testing.TB, token string) bool {
	t.Helper()
	who := "rs1"
	if strings.HasPrefix(token, "RT") {
		who = "admin"
	}
	w := b.do(call{path: pathIntrospect, auth: as(who), body: "token=" + url.QueryEscape(token)})
	if w.Code != 200 {
		t.Fatalf("introspection of %s: got %d %s", token, w.Code, w.Body)
	}
	return strings.HasPrefix(w.Body.String(), `{"active":true`)
}
