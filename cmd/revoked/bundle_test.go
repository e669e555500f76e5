package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/devcluster"
)

// forms returns the forms in which a secret could be written: plain, URL-encoded, hexadecimal, its
// SHA-256, and base64 at each of three offsets.
func forms(secret string) []string {
	sum := sha256.Sum256([]byte(secret))
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString([]byte(secret)),
		hex.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:]),
		base64.RawStdEncoding.EncodeToString(sum[:])}
	for shift := range 3 {
		// The first and the last characters depend on adjacent bytes.
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		text = text[(shift*8+5)/6 : len(text)-1-(shift+len(secret))%3]
		all = append(all, text, strings.NewReplacer("+", "-", "/", "_").Replace(text))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// searchSecrets looks for every form of the secrets, by name, in data.
func searchSecrets(t *testing.T, secrets map[string]string, data []byte) {
	t.Helper()
	for name, secret := range secrets {
		for _, form := range forms(secret) {
			if i := bytes.Index(data, []byte(form)); i >= 0 {
				t.Errorf("got %s as %q: ...%q..., want none", name, form, data[max(0, i-100):min(len(data), i+len(form)+50)])
			}
		}
	}
}

// secretFile writes a secret to a new file.
func secretFile(t *testing.T, name, secret string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// filesOf returns the secrets in a cluster's directory: the base64 lines of its keys, and the
// secrets of its clients.
func filesOf(t *testing.T, c *devcluster.Cluster) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	dir := filepath.Dir(c.CA)
	for _, pattern := range []string{"*-key.pem", "*.key"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: got %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Fields(regexp.MustCompile(`-----[^-]*-----`).ReplaceAllString(string(data), "")) {
				// The first line of every PKCS 8 key names its algorithm.
				if len(line) >= 40 && (i > 0 || !strings.HasSuffix(name, ".pem")) {
					secrets[fmt.Sprintf("line %d of %s", i, filepath.Base(name))] = line
				}
			}
		}
	}
	for id, cl := range c.Clients {
		secrets["the secret of "+id] = cl.ClientSecret
	}
	return secrets
}

// sendTokens sends tokens to each endpoint that accepts a token, in the right place and in wrong
// places.
func sendTokens(t *testing.T, c *devcluster.Cluster, secrets map[string]string) {
	t.Helper()
	token := func(where string) string {
		text := "a+/" + rand.Text() + "=&é"
		secrets["a token "+where] = text
		return text
	}
	const form = "application/x-www-form-urlencoded"
	send := func(who, path, contentType, body string) {
		header := []string{"Content-Type", contentType}
		if who == "" {
			header = append(header, "Authorization", "Bearer "+url.QueryEscape(token("as a bearer")))
		}
		callNode(t, c, c.Nodes[0], who, http.MethodPost, path, body, header...)
	}
	registered, err := json.Marshal(map[string]any{"client_id": "app",
		"access_token": map[string]string{"token": token("that is registered")}})
	if err != nil {
		t.Fatal(err)
	}
	send("issuer", "/v1/grants", "application/json", string(registered))
	for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke", "/v1/explain"} {
		send("admin", path, form, "token="+url.QueryEscape(secrets["a token that is registered"]))
		send("admin", path, form, "token="+url.QueryEscape(token("that is unknown, at "+path)))
		send("admin", path+"?token="+url.QueryEscape(token("in the query of "+path)), form, "")
		send("admin", path, "application/json", `{"token":"`+token("in JSON, at "+path)+`"}`)
	}
	send("admin", "/v1/grants/"+url.PathEscape(token("as a path")), "text/plain", token("as a body"))
	send("", "/v1/status", "text/plain", "")
}

// Secrets of a node's settings, files, environment and traffic never occur in its bundle.
func TestBundle_RealNode_HasNoSecret(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, metricsAddr := oneNode(t)
	secrets := filesOf(t, &c)
	canary := func(name string) string {
		secrets[name] = "canary" + rand.Text()
		return secrets[name]
	}
	backups := t.TempDir()
	p := startWith(t, []string{
		"REVOKED_JWKS_PROXY=http://proxyuser:" + canary("the password of the proxy") + "@127.0.0.1:1",
		"REVOKED_CLIENT_SECRET=" + canary("a variable of the tool"), "AWS_SECRET_ACCESS_KEY=" + canary("a variable"),
		"REVOKED_UNKNOWN=" + canary("an unknown variable"),
	}, "server", "--config", c.Nodes[0].Config, "--log-level", "debug", "--pprof", "--metrics-addr", metricsAddr,
		"--join-token-file", secretFile(t, "join.token", canary("the join token")),
		"--backup-schedule", "1h", "--backup-dir", backups, "--backup-s3-endpoint", "https://127.0.0.1:1",
		"--backup-s3-bucket", "backups", "--backup-s3-access-key-file", secretFile(t, "access", canary("the access key")),
		"--backup-s3-secret-key-file", secretFile(t, "secret", canary("the secret key")))
	awaitReady(t, p, &c)
	sendTokens(t, &c, secrets)
	admin := c.Clients["admin"]
	t.Setenv("REVOKED_CACERT", c.CA)
	t.Setenv("REVOKED_CLIENT_ID", admin.ClientID)
	t.Setenv("REVOKED_CLIENT_SECRET", admin.ClientSecret)
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	var stdout, stderr bytes.Buffer
	args := []string{"debug", "bundle", "--addr", c.Nodes[0].API, "-o", file}
	if code := run(args, nil, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("got exit code %d, %s, want 0 and nothing missing", code, &stderr)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"msg=request", "route=/oauth2/introspect", "node is up", "goroutine profile:",
		"revoked_api_requests_total", `"key":"jwks_proxy","value":"http://REDACTED@127.0.0.1:1"`, "heap.pprof",
		`"key":"log_level","value":"debug","source":"--log-level"`, `"state":"leader"`, `"lease_duration"`} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("got no %s in the bundle, want one", want)
		}
	}
	searchSecrets(t, secrets, data)
	t.Logf("searched %d bytes for %d secrets", len(data), len(secrets))
	stopProgram(t, p)
}

// The forms match a secret in each encoding. If one did not, the test above could miss a secret.
func TestForms_EachEncoding_IsFound(t *testing.T) {
	const secret = "canary/QWERTZUIOPASDFGHJKLY+"
	sum := sha256.Sum256([]byte(secret))
	for _, text := range []string{"x" + secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte("admin:" + secret)),
		base64.URLEncoding.EncodeToString([]byte("ab" + secret)),
		base64.StdEncoding.EncodeToString([]byte("a" + secret + "b")), hex.EncodeToString(sum[:])} {
		if !slices.ContainsFunc(forms(secret), func(f string) bool { return strings.Contains(text, f) }) {
			t.Errorf("%q: got no match, want the secret found", text)
		}
	}
}
