package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// longStop ends a test that would wait for ever. No test expects to come near it.
const longStop = 2 * time.Minute

// A program is a running revoked: the test binary under that name.
type program struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *bytes.Buffer
	ended  chan error
}

// startProgram starts revoked with args; the test's end kills it if it still runs.
func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	exe, err := exec.LookPath("revoked") // TestMain put it there
	if err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: exec.Command(exe, args...), stderr: new(bytes.Buffer), ended: make(chan error, 1)}
	p.cmd.Stderr = p.stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REVOKED_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.stdout = w, bufio.NewReader(r)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		r.Close()
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			<-p.ended
			p.ended <- nil
		}
	})
	return p
}

// readUntil reads standard output up to a line that begins with prefix.
func (p *program) readUntil(t *testing.T, prefix string) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := p.stdout.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			<-p.ended
			p.ended <- nil
			t.Fatalf("%q never came; standard output:\n%s\nstandard error:\n%s", prefix, b.String(), p.stderr)
		}
		if strings.HasPrefix(line, prefix) {
			return b.String()
		}
	}
}

// wait returns how the program ended.
func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(longStop):
		t.Fatalf("it does not end; standard error:\n%s", p.stderr)
		return nil
	}
}

// freeBase returns an API port from which n nodes find all their ports free.
func freeBase(t *testing.T, n int) int {
	t.Helper()
	c := devCluster{dir: "/", hosts: make([]string, n)}
	for i := range c.hosts {
		c.hosts[i] = "127.0.0.1"
	}
	port := c.freePort()
	if port == 0 {
		t.Skip("no free ports from 18443 to 19443")
	}
	return port
}

func readDevFile(t *testing.T, dir string) devCluster {
	t.Helper()
	var c devCluster
	data, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The first minutes of a newcomer, contract section 1: dev prints commands that work as they are
// pasted, writes dev.json, and leaves nothing running after a Ctrl-C.
func TestDevRunsAClusterAsPrinted(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	dir := filepath.Join(t.TempDir(), "with space")
	p := startProgram(t, "dev", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 3)))
	printed := p.readUntil(t, "Stop with Ctrl-C.")
	c := readDevFile(t, dir)
	if c.ClusterID == "" || len(c.Nodes) != 3 || len(c.Clients) != 5 {
		t.Fatalf("got %+v", c)
	}
	if st, err := os.Stat(filepath.Join(dir, "dev.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	runCurlLines(t, printed)
	runMembersLine(t, printed)
	checkMetricsPage(t, c)
	checkNoTokenInLogs(t, printed, c)
	checkDevTwice(t, dir)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("got %v after Ctrl-C, want exit code 0; standard error:\n%s", err, p.stderr)
	}
	for _, n := range c.Nodes {
		if err := syscall.Kill(n.PID, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s still runs: %v", n.ID, err)
		}
		if log := lastLines(n.Log, 10); !strings.Contains(log, "msg=stopped") {
			t.Errorf("%s was not stopped in order; the end of its log:\n%s", n.ID, log)
		}
	}
	for _, n := range readDevFile(t, dir).Nodes {
		if n.PID != 0 {
			t.Errorf("dev.json still tells the process of %s", n.ID)
		}
	}
}

// runCurlLines runs the printed commands in a shell.
func runCurlLines(t *testing.T, printed string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("no curl on this machine: the printed lines were not run")
		return
	}
	var got []string
	for line := range strings.Lines(printed) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		got = append(got, strings.TrimSpace(string(out)))
	}
	if len(got) != 4 {
		t.Fatalf("got %d curl lines, want 4", len(got))
	}
	if !strings.Contains(got[0], `"state":"active"`) || !strings.Contains(got[1], `"active":true`) {
		t.Errorf("got %q", got[:2])
	}
	if diff := cmp.Diff([]string{"{}", `{"active":false}`}, got[2:]); diff != "" {
		t.Errorf("revoke and introspect: -want +got:\n%s", diff)
	}
}

// runMembersLine pastes the lines that set up the command line tool and call it.
func runMembersLine(t *testing.T, printed string) {
	t.Helper()
	_, rest, ok := strings.Cut(printed, "\nThe same program is the command line tool:\n")
	lines, _, ok2 := strings.Cut(rest, "\nStop with")
	if !ok || !ok2 {
		t.Fatalf("got %s, want the command line tool", printed)
	}
	out, code := shell(t, t.TempDir(), nil, lines)
	if code != 0 || !strings.Contains(out, "node3") {
		t.Errorf("got exit code %d and %s of\n%s\nwant the members", code, out, lines)
	}
}

// checkMetricsPage wants the numbers of every layer on one page.
func checkMetricsPage(t *testing.T, c devCluster) {
	t.Helper()
	tlsConfig, err := trustConfig(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Nodes[0].API+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"revoked_raft_commitTime", "revoked_raft_boltdb_", "revoked_memberlist_", "revoked_build_info{", "go_goroutines", "process_open_fds"} {
		if !strings.Contains(string(page), "\n"+want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// checkNoTokenInLogs is the canary: what was sent as a token or a secret is in no log.
func checkNoTokenInLogs(t *testing.T, printed string, c devCluster) {
	t.Helper()
	_, rest, ok := strings.Cut(printed, `"access_token":{"token":"`)
	token, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 || len(token) < 8 {
		t.Fatal("no token in what was printed")
	}
	for _, n := range c.Nodes {
		log, err := os.ReadFile(n.Log)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), token) {
			t.Errorf("%s holds a token", n.Log)
		}
		for _, cl := range c.Clients {
			if strings.Contains(string(log), cl.ClientSecret) {
				t.Errorf("%s holds the secret of %s", n.Log, cl.ClientID)
			}
		}
	}
}

// checkDevTwice starts dev on a folder that another one uses: nothing in it changes.
func checkDevTwice(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Join(dir, "dev.json")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{{}, {"--init-only"}} {
		p := startProgram(t, append([]string{"dev", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 3))}, more...)...)
		if err := p.wait(t); err == nil || !strings.Contains(p.stderr.String(), "another revoked dev uses "+dir) {
			t.Errorf("a second dev %v: got %v, %s; want it to be refused", more, err, p.stderr)
		}
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a second dev changed dev.json: %v", err)
	}
}

// A parent that is killed takes its nodes along.
func TestDevChildrenEndWithTheirParent(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	p := startProgram(t, "dev", "--nodes", "1", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 1)))
	p.readUntil(t, "Stop with Ctrl-C.")
	n := readDevFile(t, dir).Nodes[0]
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.wait(t)
	awaitClosed(t, strings.TrimPrefix(n.API, "https://"))
}

// dev stops a node by a signal and by letting go of it, and the node may see the second first: the signal that
// comes then does not cut the orderly stop short.
func TestAChildStopsInOrderHoweverItIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 1))).wait(t); err != nil {
		t.Fatal(err)
	}
	c := readDevFile(t, dir)
	exe, err := exec.LookPath("revoked")
	if err != nil {
		t.Fatal(err)
	}
	child, err := startChild(exe, c.Nodes[0], childEnvironment(os.Environ(), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer child.signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	if _, err := waitReady(ctx, &c); err != nil {
		t.Fatalf("%v; the end of the log:\n%s", err, lastLines(c.Nodes[0].Log, 10))
	}
	request := holdRequest(t, c) // the stop waits for it
	child.alive.Close()
	awaitLog(ctx, t, c.Nodes[0], "msg=stopping")
	child.signal(syscall.SIGTERM)
	request.Close()
	select {
	case <-child.done:
	case <-ctx.Done():
		t.Fatal("it does not end")
	}
	if log := lastLines(c.Nodes[0].Log, 10); child.err != nil || !strings.Contains(log, "msg=stopped") {
		t.Errorf("got %s, want an orderly stop; the end of the log:\n%s", howEnded(child.err), log)
	}
}

// holdRequest sends the first node the head of a request, and returns when the node waits for its body.
func holdRequest(t *testing.T, c devCluster) io.Closer {
	t.Helper()
	tlsConfig, err := trustConfig(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(c.Nodes[0].API, "https://")
	conn, err := tls.Dial("tcp", addr, tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "POST /oauth2/introspect HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
		"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("got %q, %v, want to be told to go on", line, err)
	}
	return conn
}

// awaitLog returns when the node's log says what is wanted.
func awaitLog(ctx context.Context, t *testing.T, n devNode, want string) {
	t.Helper()
	err := poll(ctx, func(context.Context) error {
		log, err := os.ReadFile(n.Log)
		if err == nil && !strings.Contains(string(log), want) {
			err = fmt.Errorf("%s never says %q", n.Log, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitClosed returns when nobody listens on addr any more.
func awaitClosed(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("somebody listens on " + addr)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A folder written by --init-only runs node by node, each a server of its own; a stopped node comes
// back with what it knew.
func TestInitOnlyFolderRunsAsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	port := freeBase(t, 1)
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port", strconv.Itoa(port)).wait(t); err != nil {
		t.Fatal(err)
	}
	c := readDevFile(t, dir)
	if c.ClusterID != "" || c.Nodes[0].PID != 0 {
		t.Errorf("got %+v, want neither cluster nor processes", c)
	}
	var first string
	for range 2 {
		p := startProgram(t, "server", "--config", c.Nodes[0].Config)
		ctx, cancel := context.WithTimeout(t.Context(), longStop)
		id, err := waitReady(ctx, &c)
		cancel()
		if err != nil {
			t.Fatalf("%v; standard error:\n%s", err, p.stderr)
		}
		if first == "" {
			first = id
		}
		if id != first {
			t.Errorf("got cluster %s after a restart, want %s", id, first)
		}
		second := startProgram(t, "server", "--config", c.Nodes[0].Config)
		if err := second.wait(t); err == nil || !strings.Contains(second.stderr.String(), "is in use by another process; stop that one or choose another port") {
			t.Errorf("got %v, %s, want the taken port named", err, second.stderr)
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.wait(t); err != nil {
			t.Errorf("got %v after SIGTERM, want exit code 0; standard error:\n%s", err, p.stderr)
		}
	}
}

func TestDevNamesThePortThatIsTaken(t *testing.T) {
	port := freeBase(t, 1)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+devClusterOffset)))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	p := startProgram(t, "dev", "--nodes", "1", "--dir", t.TempDir(), "--api-port", strconv.Itoa(port))
	err = p.wait(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("got %v, want exit code 1", err)
	}
	want := l.Addr().String() + " is in use by another process; node1 needs it for its cluster port: try --api-port "
	if !strings.Contains(p.stderr.String(), want) {
		t.Errorf("got %q, want it to say %q", p.stderr, want)
	}

	// Its keys are in nobody's way: no node has run, so there is nothing to keep.
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	p = startProgram(t, "dev", "--nodes", "1", "--keep", "--api-port", strconv.Itoa(port))
	if err := p.wait(t); err == nil {
		t.Error("got no error with --keep")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("temporary folder: got %v and %v, want nothing left", left, err)
	}
}
