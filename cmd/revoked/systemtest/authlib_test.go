//go:build system

package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// python is the interpreter of Debian, which finds Debian's Authlib.
const python = "/usr/bin/python3"

// With the sample of docs/api.md, Authlib authenticates with a key and with a certificate, at each
// node. With its own defaults it is refused, and the answer explains what to change.
func TestAuthlib_KeyAndCertificate_Authenticate(t *testing.T) {
	need(t, python)
	c := newCluster(t, 3)
	dir := t.TempDir()
	cli(t, "cert", "ca", "--dir", dir)
	cli(t, "cert", "client", "web", "--dir", dir)
	for _, m := range c.Nodes {
		m.args = append(m.args, "--api-client-ca", filepath.Join(dir, "ca.pem"))
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	keyFile, set := newJWK(t, dir)
	for id, members := range map[string]map[string]any{
		"robot": {"auth_methods": []string{"private_key_jwt"}, "jwks": set},
		"web":   {"auth_methods": []string{"tls_client_auth"}, "tls_client_auth_subject_dn": "CN=web,O=revoked"},
	} {
		members["client_id"] = id
		c.awaitStatus(t, request{method: http.MethodPost, path: "/v1/clients", as: "admin", json: members},
			http.StatusCreated, http.StatusConflict)
	}
	writeSample(t, dir)
	env := func(client, key, method string) []string {
		return []string{"CLIENT_ID=" + client, "METHOD=" + method, "KEY=" + key, "CERT=" + filepath.Join(dir, "web.pem"),
			"ISSUER=" + c.issuer(t), "PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1", "REQUESTS_CA_BUNDLE=" + c.CA}
	}
	run := func(env []string, lines ...string) []string {
		t.Helper()
		return runScript(t, env, strings.Join(lines, "\n"), python, "testdata/authlib_key_client.py")
	}
	n := c.Nodes
	for client, with := range map[string][]string{
		"robot": env("robot", keyFile, "by_key"), "web": env("web", filepath.Join(dir, "web-key.pem"), "by_certificate"),
	} {
		access, refresh := client+"-access", client+"-refresh"
		c.registerFor(t, client, "g-"+client, access, refresh)
		got := run(with, "introspect "+n[0].API+"/oauth2/introspect "+access,
			"introspect "+n[1].API+"/oauth2/introspect "+refresh,
			"revoke "+n[2].API+"/oauth2/revoke "+access,
			"introspect "+n[0].API+"/oauth2/introspect "+access,
			"introspect "+n[1].API+"/oauth2/introspect "+refresh,
			"revoke "+n[1].API+"/invoke/pub.oauth/revokeToken never-issued")
		if len(got) != 6 {
			t.Fatalf("%s: got %q, want six answers", client, got)
		}
		for i, want := range []string{`"active": true`, `"active": true`, "200 {}", `200 {"active": false}`,
			`200 {"active": false}`, "200 {}"} {
			if !strings.HasPrefix(got[i], "200 ") || !strings.Contains(got[i], want) {
				t.Errorf("%s, call %d: got %q, want %q", client, i+1, got[i], want)
			}
		}
	}
	for method, want := range map[string]string{
		"default":  "client authentication failed: exp must be at most 10 minutes ahead",
		"endpoint": "client authentication failed: aud must be " + c.issuer(t) + " alone",
	} {
		for _, line := range []string{"revoke " + n[0].API + "/oauth2/revoke x",
			"introspect " + n[1].API + "/oauth2/introspect x"} {
			got := run(env("robot", keyFile, method), line)
			t.Logf("Authlib, %s: %s", method, got[0])
			if !strings.HasPrefix(got[0], "401 ") || !strings.Contains(got[0], `"error": "invalid_client"`) ||
				!strings.Contains(got[0], `"error_description": "`+want+`"`) {
				t.Errorf("%s: got %q, want 401 and %q", method, got, want)
			}
		}
	}
	got := run(env("robot", filepath.Join(dir, "web-key.pem"), "default"), "revoke "+n[0].API+"/oauth2/revoke x")
	if !strings.Contains(got[0], `"error_description": "client authentication failed"`) {
		t.Errorf("another key: got %q, want no reason", got)
	}
}

// cli runs a command of the program.
func cli(t *testing.T, args ...string) {
	t.Helper()
	if code := startProcess(t, "", nil, "revoked", args...).exit(t); code != 0 {
		t.Fatalf("%q: got exit code %d, want 0", args, code)
	}
}

// issuer returns the issuer of the metadata, which is the same at every node.
func (c *cluster) issuer(t *testing.T) string {
	t.Helper()
	a := c.send(c.Nodes[0], request{method: http.MethodGet, path: "/.well-known/oauth-authorization-server"})
	var doc struct{ Issuer string }
	if err := json.Unmarshal(a.body, &doc); err != nil || doc.Issuer == "" {
		t.Fatalf("metadata: got %s, %v, want an issuer", a.body, err)
	}
	return doc.Issuer
}

// newJWK writes a new private key as PEM. It returns the file, and a key set with the public key.
func newJWK(t *testing.T, dir string) (file string, set jose.JSONWebKeySet) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "robot.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256"}}}
}

// writeSample writes the sample of docs/api.md to the Python module sample.
func writeSample(t *testing.T, dir string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repository, "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "<!-- test: authlib -->\n```python\n")
	text, _, ended := strings.Cut(rest, "\n```\n")
	if !found || !ended {
		t.Fatal("docs/api.md: got no sample for Authlib, want one")
	}
	if err := os.WriteFile(filepath.Join(dir, "sample.py"), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
