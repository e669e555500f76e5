//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// earlier is the commit of version 0.3: its nodes use HTTP/2 between them, and support neither
// admissions nor operations of command version 2.
const earlier = "80fef02"

// earlierProgram builds the program of that commit from the history of this repository. It returns
// "" in a copy without that history, such as a shallow clone or an archive.
func earlierProgram(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("git", "cat-file", "-e", earlier+"^{commit}").CombinedOutput(); err != nil {
		t.Logf("NOT RUN: this copy lacks commit %s; run git fetch --unshallow: %s", earlier, out)
		return ""
	}
	tree, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	program := filepath.Join(source, "revoked-0.3")
	for _, command := range [][]string{
		{"git", "-C", tree, "archive", "-o", filepath.Join(source, "source.tar"), earlier},
		{"tar", "-xf", "source.tar"},
		{"go", "build", "-buildvcs=false", "-o", program, "./cmd/revoked"},
	} {
		step := exec.Command(command[0], command[1:]...)
		step.Dir = source
		if out, err := step.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	return program
}

// A cluster is upgraded node by node from version 0.3 under load. Each combination of versions
// keeps the promise, whichever version leads. Members of version 0.3 call over HTTP/2, and are
// called over it.
func TestRollingUpgrade_EarlierVersion_LosesNothing(t *testing.T) {
	program := earlierProgram(t)
	if program == "" {
		return
	}
	port := freePorts(t, 3)
	c := layOut(t, program, realDir(t), 3, port)
	for _, m := range c.Nodes {
		m.program = program
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	l := startLoad(t, c, 6, 40)
	l.pin()
	c.mustRegister(t, c.Nodes[0], "upgraded", "alice", "upgraded-at", "upgraded-rt")
	for _, m := range append([]*member{c.leader(t)}, c.without(c.leader(t))...) {
		m.proc.Signal(syscall.SIGTERM)
		if code := m.proc.exit(t); code != 0 {
			t.Errorf("%s: got exit code %d after SIGTERM, want 0; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
		}
		c.wantActive(t, "upgraded-at", true, c.without(m)...)
		m.program = ""
		c.start(t, m)
		c.awaitReady(t, m)
		for _, leads := range []*member{c.without(m)[0], m} {
			lead(t, c, leads)
			c.checkOldRefuse(t)
			for _, via := range c.Nodes {
				c.mustRevoke(t, via, "revoked-at-"+via.ID+"-while-"+leads.ID+"-leads-after-"+m.ID)
			}
			c.wantActive(t, "upgraded-at", true, c.Nodes...)
		}
		l.check(t)
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.awaitVoters(t, 3, c.Nodes...)
	c.checkIssuersWork(t, port)
	c.checkRolesWork(t)
	c.checkDowngradeFails(t, program)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// checkIssuersWork makes each call about trusted issuers in a cluster whose members are all
// upgraded.
func (c *cluster) checkIssuersWork(t *testing.T, port int) {
	t.Helper()
	tool := func(input string, args ...string) string {
		t.Helper()
		code, out, messages := runProgram(t, c.tool("admin", c.Nodes...), input, args...)
		if code != 0 {
			t.Fatalf("%q: got exit code %d, want 0: %s%s", args, code, out, messages)
		}
		return out
	}
	tool("", "dev", "--init-only", "--dir", c.dir, "--api-port", strconv.Itoa(port)) // adds the key of an issuer
	tool("", "issuer", "create", filepath.Join(c.dir, "demo-issuer.json"))
	first, second := tool("", "dev", "token", "--dir", c.dir), tool("", "dev", "token", "--dir", c.dir)
	first, second = strings.TrimSpace(first), strings.TrimSpace(second)
	c.wantActive(t, first, true, c.Nodes...)
	c.wantActive(t, second, true, c.Nodes...)
	var checked struct{ JTI, Thumbprint string }
	if err := json.Unmarshal([]byte(tool(first, "issuer", "check", "demo", "-", "-o", "json")), &checked); err != nil {
		t.Fatal(err)
	}
	tool(checked.JTI, "revoke-jti", "--issuer", "https://demo-issuer.example", "-")
	c.wantActive(t, first, false, c.Nodes...)
	c.wantActive(t, second, true, c.Nodes...)
	tool("", "issuer", "ban-key", "demo", checked.Thumbprint)
	c.wantActive(t, second, false, c.Nodes...)
	tool("", "issuer", "delete", "demo")
}

// checkRolesWork makes a call at every node as a client of each role of version 0.4.
func (c *cluster) checkRolesWork(t *testing.T) {
	t.Helper()
	for role, path := range map[string]string{
		"operator": "/v1/cluster/admitted", "viewer": "/v1/settings", "auditor": "/v1/revocations",
	} {
		secret := strings.Repeat(role, 8)
		body := map[string]any{"client_id": "a-" + role, "roles": []string{role}, "client_secret": secret}
		created := c.send(c.Nodes[0], request{method: http.MethodPost, path: "/v1/clients", as: "admin", json: body})
		if err := created.want(http.StatusCreated); err != nil {
			t.Errorf("create %s: %v: %s", role, err, created.body)
		}
		login, _ := http.NewRequest(http.MethodGet, "/", nil)
		login.SetBasicAuth("a-"+role, secret)
		for _, m := range c.Nodes {
			await(t, role+" at "+m.ID, func() error {
				return c.send(m, request{method: http.MethodGet, path: path, header: login.Header}).want(http.StatusOK)
			})
		}
	}
}

// checkDowngradeFails starts the program of version 0.3 on the disk of a member that holds entries
// of version 0.4. The test fails unless it stops and the member continues afterwards.
func (c *cluster) checkDowngradeFails(t *testing.T, program string) {
	t.Helper()
	m := c.without(c.leader(t))[0]
	m.proc.Signal(syscall.SIGTERM)
	if code := m.proc.exit(t); code != 0 {
		t.Errorf("%s: got exit code %d after SIGTERM, want 0", m.ID, code)
	}
	m.program = program
	c.start(t, m)
	if code := m.proc.exit(t); code == 0 {
		t.Errorf("%s with the program of version 0.3: got exit code 0, want it to fail; end of its log:\n%s",
			m.ID, tail(m.Log, 10))
	}
	m.program = ""
	c.start(t, m)
	c.awaitReady(t, m)
}

// checkOldRefuse fails the test unless every upgraded node refuses calls about trusted issuers, and
// the roles of version 0.4. The answer is 422 and names a member of version 0.3. Without such a
// member it does nothing.
func (c *cluster) checkOldRefuse(t *testing.T) {
	t.Helper()
	var old []string
	for _, m := range c.Nodes {
		if m.program != "" {
			old = append(old, m.ID+" runs version ")
		}
	}
	record := map[string]any{"name": "as", "issuer": "https://as.example", "jwks_uri": "https://as.example/jwks"}
	for _, m := range c.Nodes {
		if m.program != "" || len(old) == 0 {
			continue
		}
		for path, body := range map[string]map[string]any{
			"/v1/issuers": record, "/v1/revocations": {"issuer": "https://as.example", "jti": "j1"},
			"/v1/clients": {"client_id": "ops", "roles": []string{"operator"}},
		} {
			await(t, path+" at "+m.ID, func() error {
				a := c.send(m, request{method: http.MethodPost, path: path, as: "admin", json: body})
				early := a.status == http.StatusServiceUnavailable || strings.Contains(string(a.body), "has not reported")
				if a.err != nil || early {
					return fmt.Errorf("%w: %s", a.want(http.StatusUnprocessableEntity), a.body)
				}
				names := slices.ContainsFunc(old, func(name string) bool { return strings.Contains(string(a.body), name) })
				if a.status != http.StatusUnprocessableEntity || !names {
					t.Errorf("%s at %s: got %d %s, want 422 with one of %q", path, m.ID, a.status, a.body, old)
				}
				return nil
			})
		}
	}
}
