//go:build system

package systemtest

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
)

// A member is a node of dev.json with its process.
type member struct {
	devcluster.Node
	program string   // path of the program; empty: the one under test
	args    []string // more flags of the server
	within  []string // command that execs the server, if any
	proc    *process
	client  *http.Client
}

// A cluster is the directory of `revoked dev --init-only` with the processes of its nodes.
type cluster struct {
	CA      string
	Nodes   []*member
	Clients map[string]devcluster.Credential

	t    testing.TB // its cleanup stops the nodes
	dir  string
	pool *x509.CertPool
}

// newCluster lays out n nodes and starts none.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	dir := realDir(t)
	return layOut(t, "revoked", dir, n, freePorts(t, n))
}

// layOut writes the directory of a cluster with a program. The API of node k has the port
// port + k - 1.
func layOut(t testing.TB, program, dir string, n, port int) *cluster {
	t.Helper()
	code, out, messages := runOther(t, program, nil, "", "dev", "--init-only", "--nodes", strconv.Itoa(n), "--dir", dir,
		"--api-port", strconv.Itoa(port))
	if code != 0 {
		t.Fatalf("dev --init-only: got exit code %d, want 0: %s%s", code, out, messages)
	}
	c := readCluster(t, dir)
	c.t = t
	t.Cleanup(func() { c.atEnd(t) })
	return c
}

// readCluster reads dev.json.
func readCluster(t testing.TB, dir string) *cluster {
	t.Helper()
	dev, err := devcluster.Read(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{CA: dev.CA, Clients: dev.Clients, dir: dir}
	tlsConfig, err := dev.TLS()
	if err != nil {
		t.Fatal(err)
	}
	c.pool = tlsConfig.RootCAs
	for _, n := range dev.Nodes {
		c.Nodes = append(c.Nodes, &member{Node: n})
	}
	for _, m := range c.Nodes {
		m.client = c.httpClient()
	}
	return c
}

// startCluster lays out n nodes, starts them all and waits until each is ready.
func startCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := newCluster(t, n)
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	return c
}

func (c *cluster) startAll(t testing.TB) {
	t.Helper()
	for _, m := range c.Nodes {
		c.start(t, m)
	}
}

// start starts one node and appends its output to its log. Cleanup of the test that created the
// cluster stops it.
func (c *cluster) start(t testing.TB, m *member) {
	t.Helper()
	if m.proc != nil && m.proc.Running() {
		t.Fatalf("%s: already running", m.ID)
	}
	line := slices.Concat(m.within, []string{cmp.Or(m.program, "revoked"), "server", "--config", m.Config}, m.args)
	m.proc = startProcess(c.t, m.Log, nil, line[0], line[1:]...)
}

// running returns the nodes with a running process.
func (c *cluster) running() []*member {
	var up []*member
	for _, m := range c.Nodes {
		if m.proc != nil && m.proc.Running() {
			up = append(up, m)
		}
	}
	return up
}

// without returns the other nodes.
func (c *cluster) without(some ...*member) []*member {
	var others []*member
	for _, m := range c.Nodes {
		if !slices.Contains(some, m) {
			others = append(others, m)
		}
	}
	return others
}

// atEnd stops every node. If the test failed, it logs the end of the log of each node.
func (c *cluster) atEnd(t testing.TB) {
	for _, m := range c.Nodes {
		if m.proc != nil {
			m.proc.Kill()
		}
		m.client.CloseIdleConnections()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", m.ID, tail(m.Log, 12))
		}
	}
}

// awaitReady waits until each node answers introspections and reports a leader.
func (c *cluster) awaitReady(t testing.TB, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, m.ID+" to be ready", func() error {
			if !m.proc.Running() {
				t.Fatalf("%s: exited (%v) before it was ready; end of its log:\n%s", m.ID, m.proc.Err(), tail(m.Log, 15))
			}
			return c.readiness(m)
		})
	}
}

// readiness returns nil if the node is ready, or an error with the failed checks.
func (c *cluster) readiness(m *member) error {
	a := c.send(m, request{method: http.MethodGet, path: "/readyz?verbose&revoke"})
	switch {
	case a.err != nil:
		return a.err
	case a.status != http.StatusOK:
		return fmt.Errorf("%d: %s", a.status, a.body)
	}
	return nil
}

// awaitNotReady waits until the node reports that it cannot answer.
func (c *cluster) awaitNotReady(t testing.TB, m *member) {
	t.Helper()
	await(t, m.ID+" to stop being ready", func() error {
		a := c.send(m, request{method: http.MethodGet, path: "/readyz"})
		if a.err != nil {
			return a.err
		}
		if a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("got %d, want 503", a.status)
		}
		return nil
	})
}

// leader waits for a leader that can write and returns it.
func (c *cluster) leader(t testing.TB) *member {
	t.Helper()
	var found *member
	await(t, "a leader", func() error {
		for _, m := range c.running() {
			if s, err := c.status(m); err == nil && s.State == "leader" && c.readiness(m) == nil {
				found = m
				return nil
			}
		}
		return errors.New("no leader")
	})
	return found
}

// A nodeStatus has the fields of GET /v1/status that the tests use.
type nodeStatus struct {
	NodeID       string `json:"node_id"`
	ClusterID    string `json:"cluster_id"`
	State        string `json:"state"`
	Term         uint64 `json:"term"`
	AppliedIndex uint64 `json:"applied_index"`
	Voters       int    `json:"voters"`
	HashIndex    uint64 `json:"hash_index"`
	LogHash      string `json:"log_hash"`
	StateHash    string `json:"state_hash"`
	Tokens       uint64 `json:"tokens"`
	Grants       uint64 `json:"grants"`
	Leader       struct {
		NodeID string `json:"node_id"`
	} `json:"leader"`
}

func (c *cluster) status(m *member) (nodeStatus, error) {
	var s nodeStatus
	a := c.send(m, request{method: http.MethodGet, path: "/v1/status", as: "admin"})
	if err := a.want(http.StatusOK); err != nil {
		return s, err
	}
	return s, json.Unmarshal(a.body, &s)
}

// checkAgreement waits until every node has reported its hashes for one index. It fails the test if
// two nodes report different hashes for the same index.
func (c *cluster) checkAgreement(t testing.TB, nodes ...*member) {
	t.Helper()
	type hashes struct{ log, state string }
	reported := map[uint64]hashes{}
	seen := map[uint64]map[string]bool{}
	await(t, "all nodes at one index", func() error {
		for _, m := range nodes {
			s, err := c.status(m)
			if err != nil {
				return err
			}
			h := hashes{s.LogHash, s.StateHash}
			if other, ok := reported[s.HashIndex]; ok && other != h {
				t.Fatalf("index %d: got hashes %[3]v of %[2]s, want %[4]v as on another node", s.HashIndex, m.ID, h, other)
			}
			reported[s.HashIndex] = h
			if seen[s.HashIndex] == nil {
				seen[s.HashIndex] = map[string]bool{}
			}
			seen[s.HashIndex][m.ID] = true
			if len(seen[s.HashIndex]) == len(nodes) {
				return nil
			}
		}
		return errors.New("no index reported by all nodes yet")
	})
}

// A request is one HTTP request to a node.
type request struct {
	method, path string
	as           string // client of dev.json; empty: no credentials
	form         url.Values
	json         any
	header       http.Header
}

// An answer is the response to a request; err is set if it is incomplete.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// want returns nil if the answer has that status.
func (a answer) want(status int) error {
	if a.err != nil {
		return a.err
	}
	if a.status != status {
		return fmt.Errorf("got %d %s, want %d", a.status, strings.TrimSpace(string(a.body)), status)
	}
	return nil
}

// httpClient returns a client that trusts the cluster's CA.
func (c *cluster) httpClient() *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: c.pool},
			MaxIdleConnsPerHost: 64,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			ForceAttemptHTTP2:   false,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// keepFile in a cluster's directory keeps the directory after the test.
const keepFile = "KEEP"

// realDir returns a new directory on a real disk.
func realDir(t testing.TB) string {
	t.Helper()
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	for _, base := range []string{os.Getenv("REVOKED_DIR"), os.TempDir(), "/var/tmp"} {
		var fs syscall.Statfs_t
		if base == "" || syscall.Statfs(base, &fs) != nil || fs.Type == tmpfs || fs.Type == ramfs {
			continue
		}
		dir, err := os.MkdirTemp(base, "revoked-system-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := os.Stat(filepath.Join(dir, keepFile)); err == nil || os.Getenv("REVOKED_KEEP") != "" {
				t.Logf("kept %s", dir)
				return
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	t.Fatal("found no directory on a real disk; set REVOKED_DIR")
	return ""
}

// portsUsed has the ports that freePorts has returned: a parallel test may not listen yet.
var portsUsed sync.Map

// freePorts returns an API port for which all ports of n nodes are free. They are below the range
// that the kernel uses for outgoing connections.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	for range 200 {
		base := 15000 + 16*rand.IntN(800)
		_, used := portsUsed.LoadOrStore(base, true)
		free := !used
		for k := range n {
			for _, offset := range []int{0, 1000, 2000} {
				free = free && isFree(net.JoinHostPort("127.0.0.1", strconv.Itoa(base+k+offset)))
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("found no free ports")
	return 0
}

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return p.Close() == nil
}

// logOf returns the whole log of a node, over all its restarts.
func logOf(t testing.TB, m *member) string {
	t.Helper()
	data, err := os.ReadFile(m.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tail returns the last lines of a file, without request lines.
func tail(name string, lines int) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, " msg=request ") {
			all = append(all, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// need skips the test if a tool is missing; in CI it fails the test.
func need(t testing.TB, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
}

// needRoot skips the test if it does not run as root; in CI it fails the test.
func needRoot(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s need root", what)
	}
	t.Skipf("%s need root", what)
}

// number returns the value of an environment variable, or the default without if it is not set.
func number(t testing.TB, name string, without int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return without
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s: got %q, want a number above 0", name, v)
	}
	return n
}
