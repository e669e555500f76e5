//go:build system

package systemtest

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
)

// nobody is the Unix user of the gateways.
const nobody = 65534

// awkwardSecret differs in each encoding: raw, form-encoded and percent-encoded.
const awkwardSecret = "s:e c/ret+%"

// Third-party software works with the server unchanged. It refuses a token from the moment of its
// revocation through another node.
func TestThirdParties_RefuseRevokedTokens(t *testing.T) {
	for _, name := range []string{"nginx", "apache2", "/usr/bin/python3", "ruby", "unshare", "setpriv"} {
		need(t, name)
	}
	c := startCluster(t, 3)
	t.Run("Authlib revokes and introspects", func(t *testing.T) { testAuthlib(t, c) })
	t.Run("rack-oauth2 revokes access and refresh tokens", func(t *testing.T) { testRackOAuth2(t, c) })
	t.Run("gateways", func(t *testing.T) {
		gateways := map[string]*gateway{"nginx": startNginx(t, c), "Apache with mod_oauth2": startApache(t, c)}
		for name, g := range gateways {
			t.Run(name+" refuses a token revoked elsewhere", func(t *testing.T) { testGateway(t, c, g) })
		}
		t.Run("gateways refuse without a quorum", func(t *testing.T) { testGatewaysFailClosed(t, c, gateways) })
	})
}

// createClient creates a client for a third party.
func (c *cluster) createClient(t *testing.T, id, secret string, roles ...string) {
	t.Helper()
	body := map[string]any{"client_id": id, "client_secret": secret, "imported": true,
		"roles": append([]string{}, roles...)}
	c.awaitStatus(t, request{method: http.MethodPost, path: "/v1/clients", as: "admin", json: body}, http.StatusCreated,
		http.StatusConflict)
	c.Clients[id] = devcluster.Credential{ClientID: id, ClientSecret: secret}
}

// registerFor registers a pair that belongs to a client.
func (c *cluster) registerFor(t *testing.T, client, grant, access, refresh string) {
	t.Helper()
	body := registration(grant, "alice", access, refresh)
	body["client_id"] = client
	c.awaitStatus(t, request{method: http.MethodPost, path: "/v1/grants", as: "issuer", json: body}, http.StatusCreated,
		http.StatusOK)
}

// awaitStatus sends a request until the answer is not 503, which a leader change may cause. The
// second status is the answer to a repeat of a request that succeeded.
func (c *cluster) awaitStatus(t *testing.T, r request, first, again int) {
	t.Helper()
	await(t, fmt.Sprintf("%s %s", r.method, r.path), func() error {
		a := c.send(c.Nodes[0], r)
		if a.status == http.StatusServiceUnavailable || a.err != nil {
			return a.want(first)
		}
		if a.status != again {
			if err := a.want(first); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	})
}

// runScript runs a client of testdata with input lines and returns its output lines.
func runScript(t *testing.T, env []string, input, name string, args ...string) []string {
	t.Helper()
	var out, messages strings.Builder
	p := startProcess(t, "", func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, env...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &messages
	}, name, args...)
	if code := p.exit(t); code != 0 {
		t.Fatalf("got exit code %d, want 0: %s", code, messages.String())
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func testAuthlib(t *testing.T, c *cluster) {
	c.createClient(t, "authlib", awkwardSecret)
	n := c.Nodes
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		access, refresh := "authlib-access-"+method, "authlib-refresh-"+method
		c.registerFor(t, "authlib", "g-"+method, access, refresh)
		lines := strings.Join([]string{
			"introspect " + n[0].API + "/oauth2/introspect " + access + " access_token",
			"introspect " + n[1].API + "/oauth2/introspect " + refresh,
			"revoke " + n[2].API + "/oauth2/revoke " + access + " refresh_token", // a wrong hint changes nothing
			"introspect " + n[0].API + "/oauth2/introspect " + access,
			"introspect " + n[1].API + "/oauth2/introspect " + refresh,
			"revoke " + n[1].API + "/oauth2/revoke never-issued",
		}, "\n")
		env := []string{"CLIENT_ID=authlib", "CLIENT_SECRET=" + awkwardSecret, "AUTH_METHOD=" + method,
			"REQUESTS_CA_BUNDLE=" + c.CA}
		got := runScript(t, env, lines, "/usr/bin/python3", "testdata/authlib_client.py")
		if len(got) != 6 {
			t.Fatalf("%s: got %q", method, got)
		}
		for i, want := range []string{`"active": true`, `"active": true`, "200 {}", `200 {"active": false}`,
			`200 {"active": false}`, "200 {}"} {
			if !strings.HasPrefix(got[i], "200 ") || !strings.Contains(got[i], want) {
				t.Errorf("%s, call %d: got %q, want %q", method, i+1, got[i], want)
			}
		}
	}
}

func testRackOAuth2(t *testing.T, c *cluster) {
	c.createClient(t, "rack", awkwardSecret)
	var lines []string
	for i, way := range []string{"basic", "basic_without_www_form_urlencode", "body"} {
		for j, kind := range []string{"access_token", "refresh_token"} {
			name := fmt.Sprintf("%s-%s", way, kind)
			c.registerFor(t, "rack", "g-"+name, "access_token-"+name, "refresh_token-"+name)
			lines = append(lines, strings.Join([]string{way, c.Nodes[(i+j)%3].API + "/invoke/pub.oauth/revokeToken", kind,
				kind + "-" + name}, " "))
		}
	}
	lines = append(lines, "basic "+c.Nodes[0].API+"/oauth2/revoke access_token never-issued")
	env := []string{"CLIENT_ID=rack", "CLIENT_SECRET=" + awkwardSecret, "CA=" + c.CA}
	got := runScript(t, env, strings.Join(lines, "\n"), "ruby", "testdata/rack_oauth2_client.rb")
	for i, line := range lines {
		if i >= len(got) || got[i] != "success" {
			t.Fatalf("%q: got %q, want success", line, got)
		}
	}
	for _, line := range lines[:len(lines)-1] {
		_, name, _ := strings.Cut(line[strings.LastIndex(line, " ")+1:], "-")
		c.wantActive(t, "access_token-"+name, false, c.Nodes...)
		if active, ok := c.introspect(c.Nodes[0], "rack", "refresh_token-"+name).active(); !ok || active {
			t.Errorf("%s: got an active refresh token, want inactive", name)
		}
	}
	got = runScript(t, append(env, "CLIENT_SECRET=wrong"), lines[0], "ruby", "testdata/rack_oauth2_client.rb")
	if len(got) != 1 || got[0] != "401 invalid_client" {
		t.Errorf("a wrong secret: got %q, want 401 invalid_client", got)
	}
}

// A gateway is a third-party server in front of protected content.
type gateway struct {
	url     string
	refusal int // status for a token that could not be checked
	log     string
}

const protectedPage = "the protected page\n"

// gatewayDir creates a directory for a gateway that runs as nobody: content, CA, and the example
// file with the names of this test. The example must contain every name to replace.
func gatewayDir(t *testing.T, c *cluster, example string, names map[string]string) (dir, config string) {
	t.Helper()
	dir = realDir(t)
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repository, "deploy/examples", example))
	if err != nil {
		t.Fatal(err)
	}
	config = string(text)
	for old, with := range names {
		if !strings.Contains(config, old) {
			t.Fatalf("%s: got no %q, want it", example, old)
		}
		config = strings.ReplaceAll(config, old, strings.ReplaceAll(with, "DIR", dir))
	}
	for k, m := range c.Nodes {
		config = strings.ReplaceAll(config, fmt.Sprintf("node%d.example.org:8443", k+1),
			strings.TrimPrefix(m.API, "https://"))
	}
	for _, sub := range []string{"www", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"ca.pem": string(ca), "www/index.html": protectedPage,
		"revoked.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(dir, "revoked.conf")
}

// giveAway makes nobody the owner of a directory and its contents.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(name string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(name, nobody, nobody))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startNginx runs nginx with deploy/examples/nginx/revoked.conf.
func startNginx(t *testing.T, c *cluster) *gateway {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
	dir, _ := gatewayDir(t, c, "nginx/revoked.conf", map[string]string{
		"listen 8080;": "listen " + addr + ";", "/var/www/html": "DIR/www", "/etc/revoked/": "DIR/",
		"revoked.example.org": "localhost",
	})
	cl := c.Clients["resource_server"]
	basic := base64.StdEncoding.EncodeToString([]byte(cl.ClientID + ":" + cl.ClientSecret))
	around := `daemon off; master_process off; pid DIR/run/pid; error_log DIR/run/error.log;
events {}
http {
	access_log off;
	client_body_temp_path DIR/run/body; proxy_temp_path DIR/run/proxy; fastcgi_temp_path DIR/run/f; uwsgi_temp_path DIR/run/u; scgi_temp_path DIR/run/s;
	include DIR/revoked.conf;
}
`
	for name, content := range map[string]string{
		"nginx.conf":             strings.ReplaceAll(around, "DIR", dir),
		"nginx-credentials.conf": fmt.Sprintf("proxy_set_header Revoked-Authorization \"Basic %s\";\n", basic),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	giveAway(t, dir)
	return startGateway(t, &gateway{url: "http://" + addr + "/", refusal: http.StatusServiceUnavailable,
		log: filepath.Join(dir, "run/error.log")},
		asNobody("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "run/error.log")))
}

// asNobody returns a command line that runs a program without rights and ends it with this process.
func asNobody(command ...string) []string {
	id := fmt.Sprint(nobody)
	return append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--pdeathsig",
		"KILL"}, command...)
}

// startApache runs Apache with deploy/examples/apache/revoked.conf. A mount in its own namespace
// replaces the system's CA with the cluster's.
func startApache(t *testing.T, c *cluster) *gateway {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
	cl := c.Clients["resource_server"]
	dir, _ := gatewayDir(t, c, "apache/revoked.conf", map[string]string{
		"CLIENT_ID": url.QueryEscape(cl.ClientID), "CLIENT_SECRET": url.QueryEscape(cl.ClientSecret),
	})
	var conf strings.Builder
	fmt.Fprintf(&conf, "ServerRoot DIR\nServerName localhost\nListen %s\nPidFile DIR/run/pid\nErrorLog DIR/run/error.log\nMutex file:DIR/run\nDocumentRoot DIR/www\n", addr)
	for _, m := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "dir", "oauth2"} {
		fmt.Fprintf(&conf, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	conf.WriteString("DirectoryIndex index.html\nInclude DIR/revoked.conf\n")
	if err := os.WriteFile(filepath.Join(dir, "apache.conf"), []byte(strings.ReplaceAll(conf.String(), "DIR", dir)),
		0o600); err != nil {
		t.Fatal(err)
	}
	giveAway(t, dir)
	script := fmt.Sprintf("mount -t tmpfs tmpfs /etc/ssl/certs && cp %s/ca.pem /etc/ssl/certs/ca-certificates.crt && chmod 644 /etc/ssl/certs/* && exec %s",
		dir, strings.Join(asNobody("apache2", "-X", "-f", dir+"/apache.conf"), " "))
	return startGateway(t, &gateway{url: "http://" + addr + "/", refusal: http.StatusUnauthorized,
		log: filepath.Join(dir, "run/error.log")},
		[]string{"unshare", "--mount", "sh", "-c", script})
}

// startGateway starts a gateway and waits until it answers. Test cleanup stops it.
func startGateway(t *testing.T, g *gateway, command []string) *gateway {
	t.Helper()
	p := startProcess(t, "", nil, command[0], command[1:]...)
	t.Cleanup(func() {
		p.Signal(syscall.SIGTERM)
		<-p.Done()
		if t.Failed() {
			t.Logf("output of %s:\n%s\n%s", command, p.out.String(), tail(g.log, 30))
		}
	})
	await(t, g.url+" to answer", func() error {
		if !p.Running() {
			t.Fatalf("%s: exited: %v\n%s\n%s", command, p.Err(), p.out.String(), tail(g.log, 30))
		}
		conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(g.url, "http://"), "/"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return g
}

// A visit is the response that a user of the gateway got.
type visit struct {
	status int
	body   string
	header http.Header
}

// get requests the protected page. The answer must be complete.
func (g *gateway) get(t *testing.T, header http.Header) visit {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, g.url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(bufio.NewReader(resp.Body))
	if err != nil {
		t.Fatal(err)
	}
	v := visit{status: resp.StatusCode, body: string(body), header: resp.Header}
	if v.status != http.StatusOK && strings.Contains(v.body, protectedPage) {
		t.Errorf("got the page with status %d, want no page", v.status)
	}
	return v
}

func bearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

func testGateway(t *testing.T, c *cluster, g *gateway) {
	name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	token, other := name+"-1", name+"-2"
	c.mustRegister(t, c.Nodes[0], name+"-g1", "alice", token, token+"-refresh")
	c.mustRegister(t, c.Nodes[1], name+"-g2", "bob", other, other+"-refresh")
	for range 6 { // every node is asked
		if v := g.get(t, bearerHeader(token)); v.status != http.StatusOK || v.body != protectedPage {
			t.Fatalf("live token: got %d %q, want the page", v.status, v.body)
		}
	}
	c.mustRevoke(t, c.Nodes[2], token+"-refresh")
	for range 12 {
		if v := g.get(t, bearerHeader(token)); v.status != http.StatusUnauthorized ||
			!strings.Contains(v.header.Get("WWW-Authenticate"), "invalid_token") {
			t.Fatalf("after the revocation: got %d %q, want 401 invalid_token", v.status, v.header.Get("WWW-Authenticate"))
		}
	}
	if v := g.get(t, bearerHeader(other)); v.status != http.StatusOK {
		t.Errorf("token of another user: got %d, want 200", v.status)
	}
	for what, header := range map[string]http.Header{
		"no token":            {},
		"an unknown token":    bearerHeader(name + "-unknown"),
		"a refresh token":     bearerHeader(other + "-refresh"),
		"another scheme":      {"Authorization": {"Basic YWxpY2U6c2VjcmV0"}},
		"a forged credential": {"Authorization": {"Bearer x"}, "Revoked-Authorization": {"Basic eDp5"}},
	} {
		if v := g.get(t, header); v.status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", what, v.status)
		}
	}
	if v := g.get(t, http.Header{"Authorization": {"Bearer " + other},
		"Revoked-Authorization": {"Basic eDp5"}}); v.status != http.StatusOK {
		t.Errorf("Revoked-Authorization of the user: got %d, want 200: it is not passed on", v.status)
	}
}

// testGatewaysFailClosed stops the quorum: gateways then refuse a live token, and accept it when
// the nodes are back.
func testGatewaysFailClosed(t *testing.T, c *cluster, gateways map[string]*gateway) {
	c.mustRegister(t, c.Nodes[0], "closed", "alice", "closed-access", "closed-refresh")
	for name, g := range gateways {
		if v := g.get(t, bearerHeader("closed-access")); v.status != http.StatusOK {
			t.Fatalf("%s: got %d, want 200", name, v.status)
		}
	}
	c.Nodes[1].proc.Kill()
	c.Nodes[2].proc.Kill()
	c.awaitNotReady(t, c.Nodes[0])
	for name, g := range gateways {
		if v := g.get(t, bearerHeader("closed-access")); v.status != g.refusal {
			t.Errorf("%s without a quorum: got %d, want %d", name, v.status, g.refusal)
		}
	}
	c.start(t, c.Nodes[1])
	ready := c.firstReady(c.Nodes[:2]...)
	accepted := map[string]time.Time{}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(gateways))) { // nginx first
		// The user repeats the request, also while nginx considers every node failed.
		await(t, name+" to accept again", func() error {
			if v := gateways[name].get(t, bearerHeader("closed-access")); v.status != http.StatusOK {
				return fmt.Errorf("got %d", v.status)
			}
			return nil
		})
		accepted[name] = time.Now()
	}
	c.awaitReady(t, c.Nodes[:2]...)
	t.Logf("nginx accepted a user %v after the first node was ready",
		accepted["nginx"].Sub(<-ready).Round(time.Millisecond))
	c.start(t, c.Nodes[2])
	c.awaitReady(t, c.Nodes...)
}

// firstReady returns a channel that gets the time at which the first of the nodes is ready.
func (c *cluster) firstReady(nodes ...*member) <-chan time.Time {
	ready := make(chan time.Time, len(nodes))
	ctx, cancel := context.WithTimeout(c.t.Context(), longStop)
	var polls sync.WaitGroup
	for _, m := range nodes {
		polls.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if c.send(m, request{method: http.MethodGet, path: "/readyz"}).status == http.StatusOK {
					ready <- time.Now()
					cancel()
					return
				}
				<-tick.C
			}
		})
	}
	c.t.Cleanup(func() {
		cancel()
		polls.Wait()
	})
	return ready
}
