package node_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"revoked/node"
	"revoked/node/nodetest"
)

// A keyServer publishes the key set of an issuer, and counts the fetches.
type keyServer struct {
	*httptest.Server
	set     atomic.Pointer[string]
	fetches atomic.Int32
	ca      string // file
}

func newKeyServer(t *testing.T, set string) *keyServer {
	t.Helper()
	s := &keyServer{ca: filepath.Join(t.TempDir(), "ca.pem")}
	s.set.Store(&set)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		_, _ = w.Write([]byte(*s.set.Load()))
	}))
	t.Cleanup(s.Close)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(s.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// shownIssuer is the view of an issuer at a node.
type shownIssuer struct {
	Keys  []struct{ KID, State string }
	Fetch *struct {
		OK    bool
		Error string
	}
}

func showIssuer(t *testing.T, m *nodetest.Member) (i shownIssuer) {
	t.Helper()
	r := adminCall(t, m, "GET", "/v1/issuers/as2", "", 200)
	if err := json.Unmarshal([]byte(r.Body), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// active returns "true" or "false" for the active field of the answer of m, or the status if it is
// not 200.
func active(t *testing.T, m *nodetest.Member, token string) string {
	t.Helper()
	r := m.Form("/oauth2/introspect", "admin", url.Values{"token": {token}})
	if r.Status != 200 {
		return strconv.Itoa(r.Status)
	}
	return strconv.FormatBool(strings.HasPrefix(r.Body, `{"active":true`))
}

// The leader fetches; every node verifies with the fetched keys. The next leader continues.
func TestKeyFetch_Leader_FetchesForAll(t *testing.T) {
	t.Parallel()
	s := newJWTSigner(t, "k1")
	server := newKeyServer(t, s.jwks())
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.KeyFetch = node.KeyFetchConfig{CAFile: server.ca, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	}})
	by := c.Follower()
	const iss = "https://as2.example"
	adminCall(t, by, "POST", "/v1/issuers",
		fmt.Sprintf(`{"name":"as2","issuer":%q,"jwks_uri":"%s/jwks"}`, iss, server.URL), 201)
	token := s.token(iss, "j1")
	for _, m := range c.Members {
		c.Until(m.ID+" verifies", func() bool { return checkToken(t, m, "as2", token).Verified })
		// The leader records the end of the fetch after the keys are applied.
		c.Until(m.ID+" shows the fetch", func() bool {
			i := showIssuer(t, m)
			return len(i.Keys) == 1 && i.Keys[0].KID == "k1" && i.Fetch != nil && i.Fetch.OK
		})
	}
	if n := server.fetches.Load(); n != 1 {
		t.Errorf("got %d fetches, want 1 by the leader", n)
	}
	// A key that the newest set does not have is unknown, not unavailable.
	other := newJWTSigner(t, "k2").token(iss, "j2")
	if active(t, by, token) != "true" || active(t, by, other) != "false" {
		t.Error("introspection: want the token of the key active, that of an unknown key not")
	}
	for _, m := range []*nodetest.Member{by, c.Leader()} {
		adminCall(t, m, "POST", "/v1/issuers/as2/refresh", "", http.StatusTooManyRequests)
	}
	c.Leader().Stop()
	c.Until("the next leader fetches", func() bool { return server.fetches.Load() > 1 })
	if !checkToken(t, c.Leader(), "as2", token).Verified {
		t.Error("after a leader change: got a token that is not verified")
	}
}

// A failed fetch keeps the keys and is shown. Loopback must be allowed by the configuration.
func TestKeyFetch_AddressNotAllowed_IsShown(t *testing.T) {
	t.Parallel()
	server := newKeyServer(t, newJWTSigner(t, "k1").jwks())
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.KeyFetch = node.KeyFetchConfig{CAFile: server.ca}
	}})
	by := c.Follower()
	adminCall(t, by, "POST", "/v1/issuers",
		fmt.Sprintf(`{"name":"as2","issuer":"https://as2.example","jwks_uri":"%s/jwks"}`, server.URL), 201)
	c.Until("the failure is shown", func() bool {
		f := showIssuer(t, by).Fetch
		return f != nil && strings.Contains(f.Error, "jwks_allow_networks")
	})
	// While the keys cannot be fetched, neither introspection nor revocation reports a token as
	// unknown.
	raw := newJWTSigner(t, "k1").token("https://as2.example", "j1")
	if got := active(t, by, raw); got != "503" {
		t.Errorf("introspection: got %s, want 503", got)
	}
	const cause = "the keys of the issuer cannot be fetched"
	for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke"} {
		r := by.Form(path, "admin", url.Values{"token": {raw}})
		if r.Status != 503 || !strings.Contains(r.Body, cause) || strings.Contains(r.Body, "127.0.0.1") {
			t.Errorf("C29: %s: got %d %s, want 503: %s, without the address", path, r.Status, r.Body, cause)
		}
	}
	// An administrator gets the reason and the setting to change.
	r := by.JSON("POST", "/v1/explain", "admin", fmt.Sprintf(`{"token":%q}`, raw))
	if r.Status != 503 || !strings.Contains(r.Body, cause) || !strings.Contains(r.Body, "jwks_allow_networks") {
		t.Errorf("explain: got %d %s, want 503: %s, with the reason", r.Status, r.Body, cause)
	}
	r = by.JSON("POST", "/v1/issuers/as2/refresh", "admin", "{}")
	if r.Status != 429 || !strings.Contains(r.Body, "retry in") {
		t.Errorf("refresh again: got %d %s, want 429 with the time to wait", r.Status, r.Body)
	}
	if n := server.fetches.Load(); n != 0 {
		t.Errorf("got %d requests at the server, want none", n)
	}
}
