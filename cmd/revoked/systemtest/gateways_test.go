//go:build system

package systemtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A verdict is the result that a user of a gateway gets.
type verdict string

const (
	letIn       verdict = "let in"
	refused     verdict = "refused"
	unavailable verdict = "unavailable" // the token could not be checked
)

// A gateway is a third-party program that introspects the tokens of its users at the cluster.
type gateway struct {
	name string
	ask  func(t *testing.T, token string) verdict
	web  *website // nil: it logs users in
	// vague gateways refuse a token that they could not check as if it were not active.
	vague bool
}

// tokens are the tokens of one gateway in one phase. Before the phase, all are registered and
// revoked is revoked. The phase revokes doomed.
type tokens struct{ live, revoked, doomed string }

// Every program of deploy/examples that Debian has runs on one cluster. A gateway accepts an active
// token and refuses a token that was revoked at another node, even while a node is down or hangs.
// It accepts no token while no node has a quorum, and accepts users again afterwards.
func TestGateways_NodesFail_RefuseRevoked(t *testing.T) {
	for _, name := range []string{"nginx", "apache2", "caddy", "haproxy", "dovecot", "prosody", "unshare", "setpriv",
		"/usr/bin/python3", "ruby"} {
		need(t, name)
	}
	needRoot(t, "the test's own mounts")
	c := startCluster(t, 3)
	c.createClient(t, "gateway", awkwardSecret, "resource_server")
	proxy := startHAProxyGateway(t, c)
	gateways := []*gateway{proxy.gateway, startNginx(t, c), startNjs(t, c), startCaddy(t, c),
		startModOAuth2(t, c, proxy.secure), startOpenIDC(t, c, proxy.secure), startDovecot(t, c, proxy.local),
		startProsody(t, c)}
	first, second, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]

	t.Run("all nodes up", func(t *testing.T) {
		var others sync.WaitGroup
		defer others.Wait()
		others.Go(func() { t.Run("Authlib", func(t *testing.T) { testAuthlib(t, c) }) })
		others.Go(func() { t.Run("rack-oauth2", func(t *testing.T) { testRackOAuth2(t, c) }) })
		c.eachGateway(t, gateways, func(t *testing.T, g *gateway, k tokens) {
			for range 6 { // reaches every node
				g.await(t, k.live, letIn)
			}
			c.mustRevoke(t, third, k.doomed)
			acknowledged := time.Now()
			g.await(t, k.doomed, refused)
			t.Logf("%s refused the token %v after its revocation", g.name, time.Since(acknowledged).Round(time.Millisecond))
			for range 5 {
				g.await(t, k.doomed, refused)
			}
			g.await(t, k.revoked, refused)
			g.await(t, k.live+"-unknown", refused)
			g.await(t, k.live+"-refresh", refused)
			g.await(t, k.live, letIn)
			if g.web != nil {
				testForgeries(t, g, k.live)
			}
		})
	})
	t.Run("one node killed", func(t *testing.T) {
		c.whileBroken(t, gateways, second, func() { first.proc.Kill() })
	})
	c.start(t, first)
	c.awaitReady(t, c.Nodes...)
	t.Run("one node hung", func(t *testing.T) {
		c.whileBroken(t, gateways, third, func() { first.proc.Signal(syscall.SIGSTOP) })
	})
	first.proc.Signal(syscall.SIGCONT)
	c.awaitReady(t, c.Nodes...)
	t.Run("no quorum", func(t *testing.T) { c.withoutQuorum(t, gateways) })
}

// eachGateway registers tokens for each gateway, and runs f for all gateways at the same time.
func (c *cluster) eachGateway(t *testing.T, gateways []*gateway, f func(*testing.T, *gateway, tokens)) {
	t.Helper()
	all := map[*gateway]tokens{}
	for _, g := range gateways {
		name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name() + "-" + g.name)
		k := tokens{name + "-live", name + "-revoked", name + "-doomed"}
		for i, token := range []string{k.live, k.revoked, k.doomed} {
			c.mustRegister(t, c.Nodes[i], token, "alice", token, token+"-refresh")
		}
		c.mustRevoke(t, c.Nodes[1], k.revoked+"-refresh")
		all[g] = k
	}
	together(t, gateways, func(t *testing.T, g *gateway) { f(t, g, all[g]) })
}

// together runs a subtest for each gateway, all at the same time. t.Parallel would run only as many
// as there are processors.
func together(t *testing.T, gateways []*gateway, f func(*testing.T, *gateway)) {
	t.Helper()
	var running sync.WaitGroup
	for _, g := range gateways {
		running.Go(func() { t.Run(g.name, func(t *testing.T) { f(t, g) }) })
	}
	running.Wait()
}

// whileBroken tests the gateways after breakNode has broken one node. It revokes tokens at other.
func (c *cluster) whileBroken(t *testing.T, gateways []*gateway, other *member, breakNode func()) {
	var broken time.Time
	var once sync.Once
	c.eachGateway(t, gateways, func(t *testing.T, g *gateway, k tokens) {
		once.Do(func() { // when the tokens are registered
			breakNode()
			broken = time.Now()
		})
		g.await(t, k.live, letIn)
		t.Logf("%s let a user in %v after the fault", g.name, time.Since(broken).Round(time.Millisecond))
		for range 3 { // once per node
			g.await(t, k.live, letIn)
			g.await(t, k.revoked, refused)
		}
		c.mustRevoke(t, other, k.doomed)
		acknowledged := time.Now()
		g.await(t, k.doomed, refused)
		t.Logf("%s refused the token %v after its revocation", g.name, time.Since(acknowledged).Round(time.Millisecond))
		for range 2 {
			if got := g.ask(t, k.doomed); got == letIn {
				t.Errorf("revoked during the fault: got %s, want it refused", got)
			}
		}
	})
}

// withoutQuorum kills two of three nodes and starts one of them again.
func (c *cluster) withoutQuorum(t *testing.T, gateways []*gateway) {
	left, back, last := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	var once sync.Once
	live := map[string]string{}
	for _, g := range gateways {
		live[g.name] = "closed-" + strings.ReplaceAll(g.name, " ", "-")
		c.mustRegister(t, left, live[g.name], "alice", live[g.name], live[g.name]+"-refresh")
	}
	t.Run("refused", func(t *testing.T) {
		c.eachGateway(t, gateways, func(t *testing.T, g *gateway, k tokens) {
			once.Do(func() {
				back.proc.Kill()
				last.proc.Kill()
				c.awaitNotReady(t, left)
			})
			want := unavailable
			if g.vague {
				want = refused
			}
			for range 2 {
				g.want(t, live[g.name], want)
				if got := g.ask(t, k.revoked); got == letIn {
					t.Errorf("a revoked token: got %s, want %s", got, want)
				}
			}
		})
	})
	c.start(t, back)
	ready := c.firstReady(left, back)
	t.Run("accepted again", func(t *testing.T) {
		var at time.Time
		var once sync.Once
		together(t, gateways, func(t *testing.T, g *gateway) {
			g.await(t, live[g.name], letIn) // the user retries until then
			accepted := time.Now()
			once.Do(func() { at = <-ready })
			t.Logf("%s accepted a user %v after the first node was ready", g.name, accepted.Sub(at).Round(time.Millisecond))
		})
	})
}

// want checks a token once and fails the test unless the gateway gives that verdict.
func (g *gateway) want(t *testing.T, token string, want verdict) {
	t.Helper()
	if got := g.ask(t, token); got != want {
		t.Errorf("%s: got %s, want %s", g.name, got, want)
	}
}

// await checks a token until the gateway gives that verdict. Only unavailable may come before it.
func (g *gateway) await(t *testing.T, token string, want verdict) {
	t.Helper()
	await(t, fmt.Sprintf("%s: a token to be %s", g.name, want), func() error {
		got := g.ask(t, token)
		if got == want {
			return nil
		}
		if got != unavailable && (got == letIn || !g.vague) {
			t.Fatalf("%s: got %s, want %s", g.name, got, want)
		}
		return errors.New(string(got))
	})
}

// A website is protected content behind a gateway.
type website struct{ url string }

const protectedPage = "the protected page\n"

// A visit is the response that a user of the gateway got.
type visit struct {
	status int
	body   string
	header http.Header
}

// get requests the protected page. The answer must be complete.
func (w *website) get(t *testing.T, header http.Header) visit {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.url, http.NoBody)
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

// ask requests the page with a token.
func (w *website) ask(t *testing.T, token string) verdict {
	t.Helper()
	v := w.get(t, bearerHeader(token))
	switch challenge := v.header.Get("WWW-Authenticate"); {
	case v.status == http.StatusOK && v.body == protectedPage:
		return letIn
	case v.status == http.StatusUnauthorized && strings.Contains(challenge, "invalid_token"):
		return refused
	case v.status >= 500:
		return unavailable
	default:
		t.Fatalf("got %d, WWW-Authenticate %q, %.300q; want the page, 401 invalid_token or a 5xx", v.status, challenge,
			v.body)
		return ""
	}
}

func bearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// testForgeries sends requests that a user may try without a token, also with the header in which
// gateways authenticate.
func testForgeries(t *testing.T, g *gateway, live string) {
	forged := http.Header{"Revoked-Authorization": {"Basic eDp5"}}
	for what, header := range map[string]http.Header{
		"no token":            {},
		"another scheme":      {"Authorization": {"Basic YWxpY2U6c2VjcmV0"}},
		"a forged credential": {"Authorization": {"Bearer x"}, "Revoked-Authorization": forged["Revoked-Authorization"]},
	} {
		if v := g.web.get(t, header); v.status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", what, v.status)
		}
	}
	forged.Set("Authorization", "Bearer "+live)
	if v := g.web.get(t, forged); v.status != http.StatusOK {
		t.Errorf("Revoked-Authorization of the user: got %d, want 200: it is not passed on", v.status)
	}
}

// awaitAddress waits until a gateway accepts connections. Test cleanup stops the gateway.
func awaitAddress(t *testing.T, addr, log string, command []string) {
	t.Helper()
	p := startProcess(t, "", nil, command[0], command[1:]...)
	t.Cleanup(func() {
		p.Signal(syscall.SIGTERM)
		<-p.Done()
		if t.Failed() {
			t.Logf("output of %s:\n%s\n%s", command, p.out.String(), tail(log, 30))
		}
	})
	await(t, addr+" to answer", func() error {
		if !p.Running() {
			t.Fatalf("%s: exited: %v\n%s\n%s", command, p.Err(), p.out.String(), tail(log, 30))
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// A workshop is the directory of a gateway that runs as nobody.
type workshop struct {
	dir string
	c   *cluster
}

// newWorkshop creates the directory with the protected page and the CA of the cluster.
func newWorkshop(t *testing.T, c *cluster) workshop {
	t.Helper()
	w := workshop{realDir(t), c}
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"www", "run"} {
		if err := os.Mkdir(filepath.Join(w.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "ca.pem", string(ca))
	w.write(t, "www/index.html", protectedPage)
	return w
}

// write writes a file, and replaces DIR by the directory.
func (w workshop) write(t *testing.T, name, content string) string {
	t.Helper()
	writeFile(t, w.dir, name, content)
	return filepath.Join(w.dir, name)
}

// example writes a file of deploy/examples under its base name, with the names of this test. The
// example must contain every name to replace.
func (w workshop) example(t *testing.T, name string, names map[string]string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/examples", name))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for k, m := range w.c.Nodes {
		config = strings.ReplaceAll(config, fmt.Sprintf("node%d.example.org:8443", k+1),
			strings.TrimPrefix(m.API, "https://"))
	}
	for old, with := range names {
		if !strings.Contains(config, old) {
			t.Fatalf("%s: got no %q, want it", name, old)
		}
		config = strings.ReplaceAll(config, old, with)
	}
	return w.write(t, filepath.Base(name), config)
}

// giveAway makes nobody the owner of the directory and its contents.
func (w workshop) giveAway(t *testing.T) {
	t.Helper()
	err := filepath.Walk(w.dir, func(name string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(name, nobody, nobody))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asNobody returns a command line that runs a program without rights and kills it when this process
// exits.
func asNobody(command ...string) []string {
	id := fmt.Sprint(nobody)
	return append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--pdeathsig",
		"KILL"}, command...)
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
