//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildFosite builds the authorization server in testdata/fosite, which is a separate module,
// because its dependencies are not those of the product. It skips the test if the modules cannot be
// downloaded; in CI it fails the test.
func buildFosite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"go.mod": "go.mod", "go.sum": "go.sum", "issuer.go.txt": "issuer.go"} {
		data, err := os.ReadFile(filepath.Join("testdata", "fosite", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inDir := func(args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := inDir("mod", "download"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("download the modules of fosite: %v\n%s", err, out)
		}
		t.Skipf("NOT RUN: the modules of fosite cannot be downloaded: %v\n%s", err, out)
	}
	if out, err := inDir("build", "-buildvcs=false", "-o", "issuer", "."); err != nil {
		t.Fatalf("build the issuer: %v\n%s", err, out)
	}
	return filepath.Join(dir, "issuer")
}

// A fosite is a running authorization server of testdata/fosite.
type fosite struct {
	c   *cluster
	url string
	web *http.Client
}

// startFosite starts the server. It registers opaque tokens at node m, and writes its certificate
// to the file cert.
func startFosite(t *testing.T, c *cluster, m *member, program, cert string) fosite {
	t.Helper()
	p := startProcess(t, "", func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, c.tool("issuer", m)...)
		cmd.Env = append(cmd.Env, "APP_SECRET="+c.Clients["app"].ClientSecret, "ISSUER_CERT="+cert)
	}, program)
	printed := awaitPrinted(t, p, "listening on https://")
	_, rest, _ := strings.Cut(printed, "listening on ")
	address, _, _ := strings.Cut(rest, "\n")
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := c.pool.Clone()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s: got no certificate", cert)
	}
	web := c.httpClient()
	web.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
	return fosite{c, address, web}
}

// issue gets tokens of alice for the client app. kind is opaque or jwt.
func (f fosite) issue(t *testing.T, kind string) (access, refresh string) {
	t.Helper()
	form := url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {"wonderland"}, "scope": {"read"}}
	r, err := http.NewRequest(http.MethodPost, f.url+"/"+kind+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	app := f.c.Clients["app"]
	r.SetBasicAuth(app.ClientID, app.ClientSecret)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := f.web.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusOK || answer.Access == "" {
		t.Fatalf("%s token: got %d %s, %v, want a token", kind, resp.StatusCode, body, err)
	}
	return answer.Access, answer.Refresh
}

// fositeRecord is the record of the server in testdata/fosite.
const fositeRecord = `{"name":"fosite","issuer":"https://fosite.example","jwks_uri":"%s/jwks",` +
	`"own_clients":true,"max_lifetime":"2h"}`

// The issuer is ory/fosite. It registers opaque tokens before it hands them out, and does not
// register JWTs. Every node accepts both kinds, and no node does once a revocation was
// acknowledged.
func TestIssuer_Fosite_TokensAreRevoked(t *testing.T) {
	t.Parallel() // see doc.go
	program := buildFosite(t)
	c := newCluster(t, 3)
	cert := filepath.Join(c.dir, "fosite.pem")
	for _, m := range c.Nodes {
		m.args = []string{"--jwks-ca-file", cert, "--jwks-allow-networks", "127.0.0.0/8"}
	}
	f := startFosite(t, c, c.Nodes[0], program, cert)
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	record := fmt.Sprintf(fositeRecord, f.url)
	code, _, messages := runProgram(t, c.tool("admin", c.Nodes...), record, "issuer", "create", "-")
	if code != 0 {
		t.Fatalf("issuer create: got exit code %d, want 0: %s", code, messages)
	}

	access, refresh := f.issue(t, "opaque")
	c.wantActive(t, access, true, c.Nodes...)
	c.wantActive(t, refresh, true, c.Nodes...)
	c.mustRevoke(t, c.Nodes[1], refresh)
	c.wantActive(t, access, false, c.Nodes...)
	c.wantActive(t, refresh, false, c.Nodes...)

	revoked, _ := f.issue(t, "jwt")
	byJTI, _ := f.issue(t, "jwt")
	kept, _ := f.issue(t, "jwt")
	for _, token := range []string{revoked, byJTI, kept} {
		c.awaitKnown(t, c.Nodes[2], token) // after the leader has fetched the keys
		c.wantActive(t, token, true, c.Nodes...)
	}
	c.mustRevoke(t, c.Nodes[1], revoked)
	c.wantActive(t, revoked, false, c.Nodes...)
	code, out, messages := runProgram(t, c.tool("admin", c.Nodes[2]), byJTI, "issuer", "check", "fosite", "-",
		"-o", "json")
	var checked struct{ JTI string }
	if err := json.Unmarshal([]byte(out), &checked); err != nil || code != 0 {
		t.Fatalf("issuer check: got exit code %d, %v: %s%s", code, err, out, messages)
	}
	code, _, messages = runProgram(t, c.tool("admin", c.Nodes[2]), checked.JTI, "revoke-jti", "--issuer",
		"https://fosite.example", "-")
	if code != 0 {
		t.Fatalf("revoke-jti: got exit code %d, want 0: %s", code, messages)
	}
	c.wantActive(t, byJTI, false, c.Nodes...)
	c.wantActive(t, kept, true, c.Nodes...)
}
