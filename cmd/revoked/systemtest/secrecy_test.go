//go:build system

package systemtest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"revoked/cmd/revoked/internal/devcluster"
)

// Canaries are secrets of one test, each with a unique core.
type canaries struct {
	mu    sync.Mutex
	cores map[string]string // core to place where it was sent
}

// token returns a token with a new core, and records the place where it will be sent. The other
// characters of the token differ between encodings.
func (k *canaries) token(where string) string {
	core := rand.Text()[:20]
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cores[core] = where
	return "a+/" + core + "=&%é\""
}

// plain returns a token whose bytes are all valid in a path and a header.
func (k *canaries) plain(where string) string {
	core := rand.Text()[:20]
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cores[core] = where
	return "at." + core + ".x"
}

// add adds a secret that the test did not make.
func (k *canaries) add(where, secret string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cores[secret] = where
}

// encodings returns the forms of a core in a file: raw (also percent-encoded and in JSON),
// hexadecimal, and base64 at each of three offsets.
func encodings(core string) []string {
	out := []string{core, strings.ToLower(core), hex.EncodeToString([]byte(core)),
		strings.ToUpper(hex.EncodeToString([]byte(core)))}
	for shift := range 3 {
		// The first and the last characters depend on adjacent bytes.
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), core...))
		text = text[(shift*8+5)/6 : len(text)-1-(shift+len(core))%3]
		out = append(out, text, strings.NewReplacer("+", "-", "/", "_").Replace(text))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// search looks for every canary in data.
func (k *canaries) search(t *testing.T, name string, data []byte) {
	t.Helper()
	for core, where := range k.cores {
		for _, s := range encodings(core) {
			if i := bytes.Index(data, []byte(s)); i >= 0 {
				from, to := max(0, i-150), min(len(data), i+len(s)+50)
				t.Errorf("%s: got the secret sent %s, as %q: ...%q..., want none", name, where, s, data[from:to])
				break
			}
		}
	}
}

func TestCanaries_AreFoundInEveryEncoding(t *testing.T) {
	const core = "QWERTZUIOPASDFGHJKLY"
	for _, text := range []string{
		"x" + core + "y", url.QueryEscape("+" + core + "&"), hex.EncodeToString([]byte("x" + core)),
		base64.StdEncoding.EncodeToString([]byte(core)), base64.StdEncoding.EncodeToString([]byte("a:" + core + "b")),
		base64.RawURLEncoding.EncodeToString([]byte("?" + core)), strings.ToUpper(hex.EncodeToString([]byte(core + "z"))),
	} {
		if !slices.ContainsFunc(encodings(core), func(s string) bool { return strings.Contains(text, s) }) {
			t.Errorf("%q: got no match, want the core found", text)
		}
	}
}

// A client sends tokens and secrets both in the intended fields and in others. They must not occur
// in a data directory, log, metric, snapshot or response, or in the output of the tool.
func TestSecrecy_NoSecretIsWritten(t *testing.T) {
	c := newCluster(t, 3)
	for _, m := range c.Nodes {
		m.args = []string{"--log-level", "debug"}
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	k := &canaries{cores: map[string]string{}}
	for name, cl := range c.Clients {
		k.add("as the secret of "+name, cl.ClientSecret)
	}
	for i, m := range c.Nodes {
		k.sendRight(t, c, m, i)
		k.sendWrong(t, c, m)
		k.sendRaw(t, c, m)
	}
	k.useTool(t, c)
	leader := c.leader(t)
	for _, m := range c.Nodes {
		for _, path := range []string{"/metrics", "/v1/status", "/v1/members", "/v1/clients", "/v1/settings",
			"/v1/snapshot", "/.well-known/oauth-authorization-server", "/readyz?verbose"} {
			a := c.send(m, request{method: http.MethodGet, path: path, as: "admin"})
			if err := a.want(http.StatusOK); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			k.search(t, m.ID+path, a.body)
		}
	}
	leader.proc.Kill() // the files after a crash are searched too
	for _, m := range c.Nodes {
		if m != leader {
			m.proc.cmd.Process.Signal(os.Interrupt)
			m.proc.exit(t)
		}
	}
	found := 0
	for _, m := range c.Nodes {
		err := filepath.WalkDir(m.Data, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found++
			k.search(t, path, data)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(m.Log)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, []byte("msg=request")) {
			t.Errorf("%s: got no request line, want at least one", m.Log)
		}
		k.search(t, m.Log, data)
	}
	t.Logf("searched for %d canaries in %d files, 3 logs and the pages of every node", len(k.cores), found)
}

// sendRight sends tokens to the right places.
func (k *canaries) sendRight(t *testing.T, c *cluster, m *member, n int) {
	t.Helper()
	grant := fmt.Sprintf("g-%d", n)
	access, refresh := k.token("as an access token"), k.token("as a refresh token")
	c.mustRegister(t, m, grant, "alice", access, refresh)
	c.wantActive(t, access, true, c.Nodes...)
	bulk := ""
	for i := range 3 {
		line, err := json.Marshal(registration(fmt.Sprintf("%s-%d", grant, i), "alice", k.token("in NDJSON"),
			k.token("in NDJSON")))
		if err != nil {
			t.Fatal(err)
		}
		bulk += string(line) + "\n"
	}
	if err := c.sendLines(m, "/v1/grants", []byte(bulk)).want(http.StatusOK); err != nil {
		t.Error(err)
	}
	c.mustRevoke(t, m, refresh)
	c.wantActive(t, access, false, c.Nodes...)
	c.mustRevoke(t, m, k.token("as an unknown token that is revoked"))
	c.wantActive(t, k.token("as an unknown token that is introspected"), false, m)
	a := c.send(m, request{method: http.MethodPost, path: "/v1/clients", as: "admin", json: map[string]any{
		"client_id": fmt.Sprintf("made-%d", n), "type": "confidential", "client_secret": k.plain("as an imported secret"),
		"imported": true}})
	if err := a.want(http.StatusCreated); err != nil {
		t.Error(err)
	}
	a = c.send(m, request{method: http.MethodPost, path: fmt.Sprintf("/v1/clients/made-%d/secret", n), as: "admin"})
	var made devcluster.Credential
	if err := a.want(http.StatusOK); err != nil || json.Unmarshal(a.body, &made) != nil || len(made.ClientSecret) < 20 {
		t.Fatalf("rotate a secret: %v %s", err, a.body)
	}
	k.add("as a secret that the server made", made.ClientSecret)
	a = c.send(m, request{method: http.MethodGet, path: "/v1/check", header: http.Header{
		"Authorization":         {"Bearer " + k.plain("to forward authentication")},
		"Revoked-Authorization": {basic(c.Clients["resource_server"])}}})
	if a.status != http.StatusUnauthorized {
		t.Errorf("forward authentication: %v", a.want(http.StatusUnauthorized))
	}
}

func basic(cl devcluster.Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(cl.ClientID+":"+cl.ClientSecret))
}

// sendWrong sends tokens to wrong places. The responses must not contain them.
func (k *canaries) sendWrong(t *testing.T, c *cluster, m *member) {
	t.Helper()
	form := func(pairs ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	bearer := func(v string) http.Header { return http.Header{"Authorization": {v}} }
	app := c.Clients["app"]
	for name, r := range map[string]request{
		"a token in the query": {method: "POST",
			path: "/oauth2/revoke?token=" + url.QueryEscape(k.token("in the query")), as: "app", form: form("a", "b")},
		"a token in the query of a GET": {method: "GET",
			path: "/oauth2/introspect?token=" + url.QueryEscape(k.token("in the query of a GET")), as: "app"},
		"a token in the query of /v1": {method: "GET",
			path: "/v1/revocations?after=" + k.plain("in the query of /v1"), as: "admin"},
		"a token in the path": {method: "POST", path: "/oauth2/revoke/" + k.plain("in the path"), as: "app",
			form: form("a", "b")},
		"a token as a grant": {method: "GET", path: "/v1/grants/" + k.plain("as the id of a grant"),
			as: "admin"},
		"a token as a grant to delete": {method: "DELETE",
			path: "/v1/grants/" + k.plain("as the id of a grant to delete"), as: "admin"},
		"a token as a client": {method: "GET", path: "/v1/clients/" + k.plain("as the id of a client"),
			as: "admin"},
		"a token as the path": {method: "GET", path: "/" + k.plain("as the whole path")},
		"a token by another scheme": {method: "POST", path: "/oauth2/revoke", form: form("token", "x"),
			header: bearer("Bearer " + k.plain("by the scheme Bearer"))},
		"a token without a scheme": {method: "GET", path: "/v1/status",
			header: bearer(k.plain("as the whole Authorization"))},
		"a token as the client's id": {method: "POST", path: "/oauth2/revoke", form: form("token", "x"),
			header: bearer("Basic " + base64.StdEncoding.EncodeToString([]byte(k.plain("as a client id")+":x")))},
		"a token as client_id": {method: "POST", path: "/oauth2/revoke",
			form: form("token", "x", "client_id", k.token("as client_id"), "client_secret", k.token("as client_secret"))},
		"a wrong secret": {method: "POST", path: "/oauth2/revoke", form: form("token", "x"),
			header: bearer("Basic " + base64.StdEncoding.EncodeToString([]byte(app.ClientID+":"+k.plain("as a wrong secret"))))},
		"broken base64": {method: "POST", path: "/oauth2/revoke", form: form("token", "x"),
			header: bearer("Basic !" + k.plain("in broken base64"))},
		"a secret in the query": {method: "POST",
			path: "/oauth2/revoke?client_id=app&client_secret=" + k.plain("as a secret in the query"), form: form("token", "x")},
		"a token twice": {method: "POST", path: "/oauth2/revoke", as: "app",
			form: form("token", k.token("twice"), "token", k.token("twice, the second"))},
		"a token as its hint": {method: "POST", path: "/oauth2/introspect", as: "app",
			form: form("token", "x", "token_type_hint", k.token("as the hint"))},
		"a token as a name": {method: "POST", path: "/oauth2/introspect", as: "app",
			form: form("token", "x", k.token("as a name of a parameter"), "y")},
		"a token to revoke as JSON": {method: "POST", path: "/oauth2/revoke", as: "app",
			json: map[string]any{"token": k.token("as JSON where a form belongs")}},
		"a registration without credentials": {method: "POST", path: "/v1/grants",
			json: registration("g-x", "a", k.token("without credentials"), k.token("without credentials"))},
		"a registration by a client without the role": {method: "POST", path: "/v1/grants", as: "app",
			json: registration("g-x", "a", k.token("by a client"), k.token("by a client"))},
		"an unknown field": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": "app", "acess_token": k.token("in an unknown field")}},
		"a token without its object": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": "app", "access_token": k.token("in place of an object")}},
		"a token as a digest": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": "app", "access_token": map[string]any{"digest": k.token("as a digest")}}},
		"a token as a time": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": "app",
				"access_token": map[string]any{"token": "t", "expires_at": k.token("as a time")}}},
		"a token as the client registered": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": k.token("as the client of a registration"),
				"access_token": map[string]any{"token": k.token("with an unknown client")}}},
		"a token registered and expired": {method: "POST", path: "/v1/grants", as: "issuer",
			json: map[string]any{"client_id": "app",
				"access_token": map[string]any{"token": k.token("expired already"), "expires_at": 1000000000}}},
		"a token in a selector": {method: "POST", path: "/v1/revocations", as: "admin",
			json: map[string]any{"token": k.token("in a selector")}},
		"a secret in the record of a client": {method: "POST", path: "/v1/clients", as: "admin",
			json: map[string]any{"client_id": "x", "type": "public",
				"client_secret": k.token("as the secret of a public client")}},
		"a secret that is too short": {method: "POST", path: "/v1/clients", as: "admin",
			json: map[string]any{"client_id": "x", "type": "confidential",
				"client_secret": k.plain("as a secret that is too short")}},
		"a secret patched in": {method: "PATCH", path: "/v1/clients/app", as: "admin",
			json: map[string]any{"client_secret": k.token("as a secret in a patch")}},
		"a token in other headers": {method: "POST", path: "/oauth2/introspect", as: "app", form: form("token", "x"),
			header: http.Header{
				"Cookie": {"session=" + k.plain("in a cookie")}, "User-Agent": {k.plain("as the user agent")},
				"Referer":      {"https://x/?t=" + k.plain("in the referrer")},
				"X-Request-Id": {k.plain("as the id of the request")}, "X-Forwarded-For": {k.plain("as an address")},
				"Origin":      {"https://" + k.plain("as an origin")},
				"Traceparent": {k.plain("as a trace")}, "X-Token": {k.plain("in an unknown header")}}},
	} {
		a := c.send(m, r)
		if a.err != nil || a.status >= 500 {
			t.Errorf("%s: %v", name, a.want(http.StatusBadRequest))
		}
		if !strings.Contains(r.path, "/v1/grants/") &&
			name != "a token as the client registered" { // the answer names the id that was not found
			k.search(t, "the answer to "+name, a.body)
		}
	}
	lines := `{"client_id":"app","access_token":{"token":"` + k.plain("in a line without end") + "\n" +
		k.plain("as a line") + "\n" +
		`{"client_id":"app","access_token":{"token":"` + k.plain("in a line with a broken escape") + `\x"}}` + "\n" +
		`["` + k.plain("in a line that is a list") + `"]` + "\n" +
		`{"client_id":"unknown","access_token":{"token":"` + k.plain("in a line for an unknown client") + `"}}` + "\n" +
		`{"client_id":"app","access_token":{"token":"` + k.plain("in a line that is too long") +
		strings.Repeat("x", 2<<20) + `"}}` + "\n"
	a := c.sendLines(m, "/v1/grants", []byte(lines))
	k.search(t, "the answer to bad lines", a.body)
}

// sendRaw sends bytes that no HTTP client sends: broken framing and plain HTTP.
func (k *canaries) sendRaw(t *testing.T, c *cluster, m *member) {
	t.Helper()
	addr := strings.TrimPrefix(m.API, "https://")
	for name, text := range map[string]string{
		"a body longer than its length": "POST /oauth2/revoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\nx=y" +
			"token=" + k.plain("as a method") + " / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a token as a method":  k.plain("as an unknown method") + " /oauth2/revoke HTTP/1.1\r\nHost: x\r\n\r\n",
		"a token as a host":    "GET /livez HTTP/1.1\r\nHost: " + k.plain("as a host") + "\r\n\r\n",
		"a token as a version": "GET /livez " + k.plain("as a version") + "\r\n\r\n",
		"a malformed header":   "GET /livez HTTP/1.1\r\nHost: x\r\n" + k.plain("as a malformed header") + "\r\n\r\n",
	} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: c.pool})
		if err != nil {
			t.Fatal(err)
		}
		k.exchange(t, name, conn, text)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	k.exchange(t, "plain HTTP", conn, "GET /oauth2/introspect?token="+k.plain("over plain HTTP")+" HTTP/1.0\r\n\r\n")
	if conn, err = net.Dial("tcp", m.Cluster); err != nil {
		t.Fatal(err)
	}
	k.exchange(t, "plain HTTP at the cluster port", conn,
		"GET /?token="+k.plain("to the cluster port")+" HTTP/1.0\r\n\r\n")
	if conn, err = net.Dial("tcp", m.Gossip); err != nil {
		t.Fatal(err)
	}
	k.exchange(t, "plain HTTP at the gossip port", conn, "GET /?token="+k.plain("to the gossip port")+" HTTP/1.0\r\n\r\n")
}

func (k *canaries) exchange(t *testing.T, name string, conn net.Conn, text string) {
	t.Helper()
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return // closed without an answer
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the node may have closed
	}
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
	k.search(t, "the answer to "+name, answer)
}

// useTool passes tokens to the command line tool, in right and wrong ways.
func (k *canaries) useTool(t *testing.T, c *cluster) {
	t.Helper()
	run := func(want int, env []string, stdin string, args ...string) {
		t.Helper()
		code, stdout, stderr := runProgram(t, env, stdin, args...)
		if code != want {
			t.Errorf("revoked %v: got exit code %d, want %d: %s%s", args, code, want, stdout, stderr)
		}
		k.search(t, fmt.Sprintf("standard output of revoked %v", args), []byte(stdout))
		k.search(t, fmt.Sprintf("standard error of revoked %v", args), []byte(stderr))
	}
	app, issuer := c.tool("app", c.Nodes...), c.tool("issuer", c.Nodes...)
	access := k.token("to the tool")
	body, err := json.Marshal(registration("g-tool", "alice", access, k.token("to the tool, to register")))
	if err != nil {
		t.Fatal(err)
	}
	run(0, issuer, string(body), "token", "register", "-")
	run(0, app, access, "token", "introspect", "-")
	run(0, app, access, "token", "revoke", "-")
	run(2, app, access, "token", "introspect", "-")
	run(1, issuer, `{"access_token":{"token":"`+k.plain("to the tool, in broken JSON"), "token", "register", "-")
	run(1, append(app, "REVOKED_CLIENT_SECRET="+k.plain("to the tool, as a wrong secret")),
		k.token("to the tool, with a wrong secret"), "token", "revoke", "-")
	run(1, append(app, "REVOKED_ADDR=https://127.0.0.1:1"), k.token("to the tool, without a node"), "token", "revoke", "-")
	run(0, c.tool("admin", c.Nodes...), "", "snapshot", "save", filepath.Join(c.dir, "backup"))
	backup, err := os.ReadFile(filepath.Join(c.dir, "backup"))
	if err != nil {
		t.Fatal(err)
	}
	k.search(t, "a backup", backup)
}
