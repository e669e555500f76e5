//go:build system

package systemtest

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/devcluster"
)

// nobody is the Unix user of the gateways.
const nobody = 65534

// awkwardSecret differs in each encoding: raw, form-encoded and percent-encoded.
const awkwardSecret = "s:e c/ret+%"

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
// second status is that of the same request after it succeeded.
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
