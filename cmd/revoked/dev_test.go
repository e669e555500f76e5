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
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

const (
	longStop     = 2 * time.Minute // maximum time to wait before a test fails
	pollInterval = 20 * time.Millisecond
)

// A program is a running revoked: the test binary under that name.
type program struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *bytes.Buffer
	ended  chan error
}

// startProgram starts revoked with args. Test cleanup kills it.
func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	return startWith(t, nil, args...)
}

// startCluster starts three nodes with dev and returns its output. A stall of a busy machine must
// not start an election, because calls fail during an election.
func startCluster(t *testing.T, dir string) (p *program, printed string) {
	t.Helper()
	p = startWith(t, []string{"REVOKED_HEARTBEAT_TIMEOUT=3s", "REVOKED_ELECTION_TIMEOUT=3s"},
		"dev", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 3)))
	return p, p.readUntil(t, "Stop with Ctrl-C.")
}

// startWith is startProgram with additional environment variables.
func startWith(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	exe, err := exec.LookPath("revoked") // TestMain put the program on the path
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
	p.cmd.Env = append(p.cmd.Env, env...)
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
		_ = p.cmd.Process.Kill() // fails only if the program has exited
		<-p.ended
	})
	return p
}

// readUntil reads standard output up to a line that starts with prefix. If no such line appears in
// time, it kills the program.
func (p *program) readUntil(t *testing.T, prefix string) string {
	t.Helper()
	kill := time.AfterFunc(longStop, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	var b strings.Builder
	for {
		line, err := p.stdout.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			<-p.ended
			p.ended <- nil
			t.Fatalf("no line starts with %q; standard output:\n%s\nstandard error:\n%s", prefix, b.String(), p.stderr)
		}
		if strings.HasPrefix(line, prefix) {
			return b.String()
		}
	}
}

// wait returns the result of the program's [exec.Cmd.Wait].
func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(longStop):
		t.Fatalf("the program did not exit; standard error:\n%s", p.stderr)
		return nil
	}
}

// freeBase returns an API port for which all ports of n nodes are free. The port is random, because
// tests of another checkout may look for ports at the same time. It is below the ports of the other
// packages.
func freeBase(t *testing.T, n int) int {
	t.Helper()
	for range 200 {
		base := 10_000 + 10*rand.IntN(95)
		if slices.IndexFunc([]int{0, 1000, 2000}, func(offset int) bool { return !allFree(base+offset, n) }) < 0 {
			return base
		}
	}
	t.Fatal("found no free ports")
	return 0
}

// allFree reports whether n TCP ports from port on are free.
func allFree(port, n int) bool {
	for k := range n {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+k)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func readDevFile(t *testing.T, dir string) devcluster.Cluster {
	t.Helper()
	var c devcluster.Cluster
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

// Contract section 1: dev prints commands that work as pasted, writes dev.json, and stops every
// node on Ctrl-C.
func TestDev_PrintedCommands_Work(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	dir := filepath.Join(t.TempDir(), "with space")
	p, printed := startCluster(t, dir)
	c := readDevFile(t, dir)
	if c.ClusterID == "" || len(c.Nodes) != 3 || len(c.Clients) != 5 {
		t.Fatalf("got %+v, want a cluster id, three nodes and five clients", c)
	}
	if st, err := os.Stat(filepath.Join(dir, "dev.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	jwt := runCurlLines(t, printed)
	runMembersLine(t, printed)
	checkMetricsPage(t, c)
	checkNoTokenInLogs(t, printed, jwt, c)
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
		if log := devcluster.LastLines(n.Log, 10); !strings.Contains(log, "msg=stopped") {
			t.Errorf("%s did not shut down cleanly; the end of its log:\n%s", n.ID, log)
		}
	}
	for _, n := range readDevFile(t, dir).Nodes {
		if n.PID != 0 {
			t.Errorf("dev.json still has the process id of %s", n.ID)
		}
	}
}

// runCurlLines runs the printed commands in one shell, and returns the JWT that they signed. It
// returns "" on a machine without curl.
func runCurlLines(t *testing.T, printed string) (jwt string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("no curl on this machine: the printed lines were not run")
		return ""
	}
	const end = "-- end of line --"
	var script strings.Builder
	for line := range strings.Lines(printed) {
		if strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "JWT=") {
			script.WriteString(line + "echo '" + end + "'\n")
		}
	}
	out, code := shell(t, t.TempDir(), nil, script.String()+`echo "$JWT"`)
	got := strings.Split(strings.TrimSpace(out), end)
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if code != 0 || len(got) != 9 {
		t.Fatalf("got exit code %d and %d outputs, want 0 and 9:\n%s", code, len(got), out)
	}
	if !strings.Contains(got[0], `"state":"active"`) || !strings.Contains(got[1], `"active":true`) {
		t.Errorf("got %q", got[:2])
	}
	if diff := cmp.Diff([]string{"{}", `{"active":false}`, ""}, got[2:5]); diff != "" {
		t.Errorf("revoke, introspect and sign: -want +got:\n%s", diff)
	}
	if !strings.Contains(got[5], `"active":true`) || !strings.Contains(got[5], `"iss":"`+devfolder.IssuerURL+`"`) {
		t.Errorf("a signed JWT: got %s, want it active", got[5])
	}
	if diff := cmp.Diff([]string{"{}", `{"active":false}`}, got[6:8]); diff != "" {
		t.Errorf("revoke and introspect a JWT: -want +got:\n%s", diff)
	}
	return got[8]
}

// runMembersLine runs the lines that set up and call the command line tool.
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

// checkMetricsPage checks that the /metrics page of a node has metrics of every layer.
func checkMetricsPage(t *testing.T, c devcluster.Cluster) {
	t.Helper()
	tlsConfig, err := c.TLS()
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
	for _, want := range []string{"revoked_raft_commitTime", "revoked_raft_boltdb_", "revoked_memberlist_",
		"revoked_build_info{", "go_goroutines", "process_open_fds"} {
		if !strings.Contains(string(page), "\n"+want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// checkNoTokenInLogs checks that no log contains a token or a secret.
func checkNoTokenInLogs(t *testing.T, printed, jwt string, c devcluster.Cluster) {
	t.Helper()
	_, rest, ok := strings.Cut(printed, `"access_token":{"token":"`)
	token, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 || len(token) < 8 {
		t.Fatal("got no token in the printed commands")
	}
	for _, n := range c.Nodes {
		log, err := os.ReadFile(n.Log)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), token) || jwt != "" && strings.Contains(string(log), jwt) {
			t.Errorf("%s contains a token", n.Log)
		}
		for _, cl := range c.Clients {
			if strings.Contains(string(log), cl.ClientSecret) {
				t.Errorf("%s contains the secret of %s", n.Log, cl.ClientID)
			}
		}
	}
}

// checkDevTwice starts dev on a directory that another dev uses. The content of the directory must
// not change.
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
			t.Errorf("a second dev %v: got %v, %s; want it refused", more, err, p.stderr)
		}
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a second dev changed dev.json: %v", err)
	}
}

// The demo issuer survives a restart: dev neither replaces its key nor creates a second record. If
// its record was deleted, only the demo fails, not the cluster.
func TestDev_SameDirectory_KeepsDemoIssuer(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	port := strconv.Itoa(freeBase(t, 1))
	start := func() (*program, string) {
		p := startProgram(t, "dev", "--nodes", "1", "--dir", dir, "--api-port", port)
		return p, p.readUntil(t, "Stop with Ctrl-C.")
	}
	key := filepath.Join(dir, "demo-issuer-key.pem")
	var first []byte
	for run := range 2 {
		p, printed := start()
		runCurlLines(t, printed)
		st, err := os.Stat(key)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("key: got mode %v, %v, want 0600", st.Mode(), err)
		}
		data, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			first = data
		}
		if !bytes.Equal(data, first) {
			t.Error("a second dev replaced the key of the demo issuer")
		}
		if run == 1 {
			c := newDocsCluster(t, readDevFile(t, dir))
			out, code := shell(t, dir, c.env, "revoked issuer list; revoked issuer delete demo")
			if code != 0 || strings.Count(out, devfolder.IssuerURL) != 1 {
				t.Errorf("got exit code %d and %s, want one issuer", code, out)
			}
		}
		stopProgram(t, p)
	}
	p, printed := start()
	if strings.Contains(printed, "JWT") {
		t.Errorf("after the deletion of the issuer: got %s, want no lines with a JWT", printed)
	}
	stopProgram(t, p)
	if !strings.Contains(p.stderr.String(), "cannot show the demo of JWTs: create the issuer") {
		t.Errorf("got %s, want the reason", p.stderr)
	}
}

func TestDev_KilledParent_NodesStop(t *testing.T) {
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

// dev stops a node by a signal and by closing its pipe. If the node sees the pipe first, the signal
// must not interrupt the clean shutdown.
func TestServer_ReleasedThenSignalled_StopsCleanly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port",
		strconv.Itoa(freeBase(t, 1))).wait(t); err != nil {
		t.Fatal(err)
	}
	c := readDevFile(t, dir)
	r := newRunner(t, &c)
	if err := r.Start(0); err != nil {
		t.Fatal(err)
	}
	child := r.Process(0)
	defer child.Signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	if _, err := r.AwaitCluster(ctx); err != nil {
		t.Fatal(err)
	}
	request := holdRequest(t, c) // the shutdown waits for this request
	if err := r.Release(0); err != nil {
		t.Fatal(err)
	}
	awaitLog(ctx, t, c.Nodes[0], "msg=stopping")
	child.Signal(syscall.SIGTERM)
	request.Close()
	select {
	case <-child.Done():
	case <-ctx.Done():
		t.Fatal("the node did not exit")
	}
	if log := devcluster.LastLines(c.Nodes[0].Log, 10); child.Err() != nil || !strings.Contains(log, "msg=stopped") {
		t.Errorf("got %s, want a clean shutdown; the end of the log:\n%s", devcluster.ExitReason(child.Err()), log)
	}
}

// newRunner returns a runner for a cluster that `revoked dev` prepared.
func newRunner(t *testing.T, c *devcluster.Cluster) *devcluster.Runner {
	t.Helper()
	r, err := devcluster.NewRunner(c, devfolder.Environment(os.Environ()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// holdRequest sends the header of a request to the first node and returns when the node waits for
// the body.
func holdRequest(t *testing.T, c devcluster.Cluster) io.Closer {
	t.Helper()
	tlsConfig, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(c.Nodes[0].API, "https://")
	conn, err := tls.Dial("tcp", addr, tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "POST /oauth2/introspect HTTP/1.1\r\nHost: " + addr +
		"\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
		"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	return conn
}

// awaitLog returns when the log of the node contains want.
func awaitLog(ctx context.Context, t *testing.T, n devcluster.Node, want string) {
	t.Helper()
	err := devcluster.Poll(ctx, pollInterval, func(context.Context) error {
		log, err := os.ReadFile(n.Log)
		if err == nil && !strings.Contains(string(log), want) {
			err = fmt.Errorf("%s does not contain %q", n.Log, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitClosed returns when addr refuses connections.
func awaitClosed(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	err := devcluster.Poll(ctx, pollInterval, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New(addr + " still accepts connections")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDev_InitOnlyDirectory_RunsAsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	port := freeBase(t, 1)
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port",
		strconv.Itoa(port)).wait(t); err != nil {
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
		id, err := newRunner(t, &c).AwaitCluster(ctx)
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
		if err := second.wait(t); err == nil || !strings.Contains(second.stderr.String(),
			"is in use by another process; stop it or choose another port") {
			t.Errorf("got %v, %s, want an error with the port in use", err, second.stderr)
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.wait(t); err != nil {
			t.Errorf("got %v after SIGTERM, want exit code 0; standard error:\n%s", err, p.stderr)
		}
	}
}

func TestDev_PortInUse_NamesIt(t *testing.T) {
	port := freeBase(t, 1)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+devfolder.ClusterOffset)))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	p := startProgram(t, "dev", "--nodes", "1", "--dir", t.TempDir(), "--api-port", strconv.Itoa(port))
	err = p.wait(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != cli.ExitFailed {
		t.Errorf("got %v, want exit code 1", err)
	}
	want := l.Addr().String() + " is in use by another process; node1 needs it for its cluster port: try --api-port "
	if !strings.Contains(p.stderr.String(), want) {
		t.Errorf("got %q, want %q in it", p.stderr, want)
	}

	// No node has run, so the directory is removed even with --keep.
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	p = startProgram(t, "dev", "--nodes", "1", "--keep", "--api-port", strconv.Itoa(port))
	if err := p.wait(t); err == nil {
		t.Error("got no error with --keep")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("temporary directory: got %v and %v, want it empty", left, err)
	}
}
