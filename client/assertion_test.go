package client_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"revoked/client"
)

// A seenRequest is a request that a metadataNode received.
type seenRequest struct {
	path, authorization, named string
	form                       url.Values
}

// A metadataNode is a fake node. It publishes an issuer in its metadata and records the requests.
type metadataNode struct {
	*fakeNode
	mu     sync.Mutex
	issuer string
	status int // status of every other answer
	calls  []seenRequest
}

func newMetadataNode(t *testing.T, issuer string, status int) *metadataNode {
	t.Helper()
	n := &metadataNode{issuer: issuer, status: status}
	n.fakeNode = newNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		n.mu.Lock()
		defer n.mu.Unlock()
		n.calls = append(n.calls, seenRequest{
			r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Revoked-Client-Id"), form,
		})
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/.well-known/oauth-authorization-server" {
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": n.issuer})
			return
		}
		w.WriteHeader(n.status)
		_, _ = io.WriteString(w, `{}`)
	})
	return n
}

// take returns the requests since the last call.
func (n *metadataNode) take() []seenRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls := n.calls
	n.calls = nil
	return calls
}

func (n *metadataNode) set(issuer string, status int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.issuer, n.status = issuer, status
}

func paths(calls []seenRequest) string {
	var list []string
	for _, c := range calls {
		list = append(list, c.path)
	}
	return strings.Join(list, " ")
}

const metadataPath = "/.well-known/oauth-authorization-server"

func newKeyClient(t *testing.T, key client.Key, audience string, nodes ...*metadataNode) *client.Client {
	t.Helper()
	cfg := client.Config{ID: "robot", Key: &key, Audience: audience, Timeout: 8 * time.Second,
		TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}}
	for _, n := range nodes {
		cfg.Addrs = append(cfg.Addrs, n.URL)
		cfg.TLS.RootCAs.AddCert(n.Certificate())
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type assertionClaims struct {
	Iss, Sub, Aud, Jti string
	Exp                int64
}

// verify checks the signature of an assertion and returns its claims.
func verify(t *testing.T, raw string, public crypto.PublicKey, alg, kid string) assertionClaims {
	t.Helper()
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatalf("%s: got %v, want a JWS", alg, err)
	}
	payload, err := jws.Verify(public)
	if err != nil {
		t.Fatalf("%s: got %v, want it verified", alg, err)
	}
	h := jws.Signatures[0].Header
	if typ := h.ExtraHeaders[jose.HeaderType]; h.KeyID != kid || typ != "client-authentication+jwt" {
		t.Errorf("%s: got kid %q and typ %v", alg, h.KeyID, typ)
	}
	var c assertionClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func generate[K crypto.Signer](k K, err error) crypto.Signer {
	if err != nil {
		panic(err)
	}
	return k
}

func ecKey(c elliptic.Curve) crypto.Signer { return generate(ecdsa.GenerateKey(c, rand.Reader)) }

// RFC 7523 section 3 and RFC 10070: with each algorithm, the assertions verify. Each one is for one
// call and for a short time. ECDSA signatures must have a fixed length, so the test tries these
// algorithms often.
func TestKey_EachAlgorithm_SignsNewAssertions(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := generate(rsa.GenerateKey(rand.Reader, 2048))
	n := newMetadataNode(t, "https://as.example", 200)
	used := map[string]bool{}
	for _, row := range []struct {
		signer    crypto.Signer
		algorithm string // algorithm of the Key
		want      string
		times     int
	}{
		{rsaKey, "", "RS256", 2}, {rsaKey, "RS384", "RS384", 2}, {rsaKey, "RS512", "RS512", 2},
		{rsaKey, "PS256", "PS256", 2}, {rsaKey, "PS384", "PS384", 2}, {rsaKey, "PS512", "PS512", 2},
		{ecKey(elliptic.P256()), "", "ES256", 300}, {ecKey(elliptic.P384()), "ES384", "ES384", 30},
		{ecKey(elliptic.P521()), "", "ES512", 30}, {ed, "", "EdDSA", 2},
	} {
		c := newKeyClient(t, client.Key{Signer: row.signer, ID: "k1", Algorithm: row.algorithm}, "", n)
		n.take()
		before := time.Now()
		for range row.times {
			if _, err := c.Revoke(t.Context(), "t", ""); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Members(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls := n.take()
		if len(calls) != row.times+2 || calls[0].path != metadataPath || calls[0].authorization != "" {
			t.Fatalf("%s: got the requests %s, want the metadata once, without credentials", row.want, paths(calls))
		}
		for _, call := range calls[1:] {
			raw, isBearer := strings.CutPrefix(call.authorization, "Bearer ")
			if call.path == "/oauth2/revoke" {
				raw = call.form.Get("client_assertion")
				if isBearer || call.form.Get("client_assertion_type") !=
					"urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || call.form.Get("token") != "t" {
					t.Errorf("%s: got %+v", row.want, call)
				}
			} else if !isBearer || call.named != "" {
				t.Errorf("%s below /v1: got %+v", row.want, call)
			}
			got := verify(t, raw, row.signer.Public(), row.want, "k1")
			if got.Iss != "robot" || got.Sub != "robot" || got.Aud != "https://as.example" || used[got.Jti] ||
				len(got.Jti) < 22 || got.Exp < before.Unix()+30 || got.Exp > time.Now().Unix()+120 {
				t.Errorf("%s: got the claims %+v", row.want, got)
			}
			used[got.Jti] = true
		}
	}
}

// Each attempt has its own assertion, for the issuer of the called node. After a 401, the next call
// reads the issuer again.
func TestKey_SeveralNodes_EachGetsItsAssertion(t *testing.T) {
	key := client.Key{Signer: ecKey(elliptic.P256())}
	first, second := newMetadataNode(t, "https://one", 503), newMetadataNode(t, "https://two", 200)
	c := newKeyClient(t, key, "", first, second)
	if _, err := c.Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	var jti []string
	for want, n := range map[string]*metadataNode{"https://one": first, "https://two": second} {
		calls := n.take()
		if got := paths(calls); got != metadataPath+" /v1/members" {
			t.Fatalf("%s: got the requests %s", want, got)
		}
		claims := verify(t, strings.TrimPrefix(calls[1].authorization, "Bearer "), key.Signer.Public(), "ES256", "")
		if jti = append(jti, claims.Jti); claims.Aud != want {
			t.Errorf("got the audience %s, want %s", claims.Aud, want)
		}
	}
	if jti[0] == jti[1] {
		t.Error("got one assertion for both nodes, want two")
	}
	first.set("https://other", 401)
	for _, want := range []string{"/v1/members", metadataPath + " /v1/members"} {
		var status *client.StatusError
		if _, err := c.Members(t.Context()); !errors.As(err, &status) || status.Status != 401 {
			t.Errorf("got %v, want 401", err)
		}
		if got := paths(first.take()); got != want {
			t.Errorf("got the requests %s, want %s", got, want)
		}
	}
}

// If an audience is configured, a node cannot choose another one. If not, a node with wrong
// metadata is skipped. This applies even to a call that must not be retried, because it has not
// been sent yet.
func TestKey_FixedAudience_IsUsed(t *testing.T) {
	key := client.Key{Signer: ecKey(elliptic.P256())}
	n := newMetadataNode(t, "https://false", 200)
	if _, err := newKeyClient(t, key, "https://as.example", n).Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := n.take()
	if len(calls) != 1 {
		t.Fatalf("got the requests %s, want no metadata", paths(calls))
	}
	raw := strings.TrimPrefix(calls[0].authorization, "Bearer ")
	if got := verify(t, raw, key.Signer.Public(), "ES256", ""); got.Aud != "https://as.example" {
		t.Errorf("got the audience %s, want the configured one", got.Aud)
	}
	bad, good := newMetadataNode(t, "", 200), newMetadataNode(t, "https://as.example", 200)
	if _, err := newKeyClient(t, key, "", bad, good).RotateSecret(t.Context(), "app"); err != nil {
		t.Errorf("got %v, want the second node asked", err)
	}
	if _, err := newKeyClient(t, key, "", bad).Members(t.Context()); !errors.Is(err, client.ErrAnswer) ||
		!strings.Contains(err.Error(), "read the issuer at https://") {
		t.Errorf("without an issuer: got %v, want %v", err, client.ErrAnswer)
	}
}

func TestNew_KeyThatCannotSign_IsRefused(t *testing.T) {
	p256 := ecKey(elliptic.P256())
	for name, cfg := range map[string]client.Config{
		"no signer":         {ID: "robot", Key: &client.Key{}},
		"another curve":     {ID: "robot", Key: &client.Key{Signer: ecKey(elliptic.P224())}},
		"another algorithm": {ID: "robot", Key: &client.Key{Signer: p256, Algorithm: "RS256"}},
		"none":              {ID: "robot", Key: &client.Key{Signer: p256, Algorithm: "none"}},
		"also a secret":     {ID: "robot", Secret: secret, Key: &client.Key{Signer: p256}},
		"no id":             {Key: &client.Key{Signer: p256}},
	} {
		cfg.Addrs = []string{"https://127.0.0.1:1"}
		if _, err := client.New(cfg); !errors.Is(err, client.ErrKey) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want %v", name, err, client.ErrKey)
		}
	}
}
