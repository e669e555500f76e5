package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"revoked"
)

// A benchCluster is the cluster that is measured: one of its own, a process a node, or a given one.
type benchCluster struct {
	dev      devCluster
	exe      string
	children []*devChild // by node; none for a given cluster
	tls      *tls.Config // HTTP/1.1 over TLS, trusting the cluster's CA
	http     *http.Client
}

// startBenchCluster makes a cluster in dir and starts it.
func startBenchCluster(ctx context.Context, dir string, nodes, apiPort int) (*benchCluster, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	init := exec.CommandContext(ctx, exe, "dev", "--init-only", "--dir", dir, "--nodes", strconv.Itoa(nodes), "--api-port", strconv.Itoa(apiPort))
	init.Args[0] = "revoked"
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a cluster in %s: %w: %s", dir, err, printable(strings.TrimSpace(string(out))))
	}
	c, err := loadBenchCluster(filepath.Join(dir, "dev.json"))
	if err != nil {
		return nil, err
	}
	c.exe = exe
	c.children = make([]*devChild, len(c.dev.Nodes))
	for i := range c.dev.Nodes {
		if err := c.start(i); err != nil {
			c.stop()
			return nil, err
		}
	}
	for i := range c.dev.Nodes {
		if _, err := c.awaitReady(ctx, i, time.Minute); err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

// loadBenchCluster reads a dev.json.
func loadBenchCluster(file string) (*benchCluster, error) {
	b, err := readBounded(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	c := &benchCluster{}
	if err := json.Unmarshal(b, &c.dev); err != nil {
		return nil, fmt.Errorf("read the cluster: %s: %w", file, err)
	}
	if len(c.dev.Nodes) == 0 {
		return nil, fmt.Errorf("read the cluster: %s names no node", file)
	}
	for _, role := range []string{"admin", "issuer", "resource_server", "app"} {
		if c.dev.Clients[role].ClientID == "" {
			return nil, fmt.Errorf("read the cluster: %s has no client %s", file, role)
		}
	}
	for i := range c.dev.Nodes {
		u, err := url.Parse(c.dev.Nodes[i].API)
		if err != nil || !isLoopback(u.Hostname()) {
			return nil, fmt.Errorf("read the cluster: node %s is not on loopback; bench loads this machine only", c.dev.Nodes[i].ID)
		}
	}
	pem, err := readBounded(c.dev.CA, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	if c.tls, err = rawTLS(pem); err != nil {
		return nil, err
	}
	c.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: c.tls, MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func isLoopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

// rawTLS returns the TLS settings of every connection that is measured.
func rawTLS(ca []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the CA is no PEM certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

// start starts node i.
func (c *benchCluster) start(i int) error {
	child, err := startChild(c.exe, c.dev.Nodes[i], childEnvironment(os.Environ(), c.dev.settings(i)))
	if err != nil {
		return err
	}
	c.children[i] = child
	c.dev.Nodes[i].PID = child.pid
	return nil
}

// kill ends node i at once and waits until it is gone.
func (c *benchCluster) kill(i int, s syscall.Signal) error {
	child := c.children[i]
	child.signal(s)
	select {
	case <-child.done:
	case <-time.After(30 * time.Second):
		child.signal(syscall.SIGKILL)
		<-child.done
		child.alive.Close()
		return fmt.Errorf("%s did not end within 30 s of signal %v", child.node.ID, s)
	}
	return child.alive.Close()
}

// stop ends what this cluster started.
func (c *benchCluster) stop() {
	var running []*devChild
	for _, child := range c.children {
		if child != nil {
			running = append(running, child)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stopChildren(ctx, running)
}

// awaitReady waits until node i can answer and revoke, and returns how long that took.
func (c *benchCluster) awaitReady(ctx context.Context, i int, atMost time.Duration) (time.Duration, error) {
	start := time.Now()
	n := c.dev.Nodes[i]
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	var ended <-chan struct{}
	if c.children != nil {
		ended = c.children[i].done
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if c.isReady(ctx, n) {
			return time.Since(start), nil
		}
		select {
		case <-poll.C:
		case <-ended:
			return 0, fmt.Errorf("%s ended; its last lines:\n%s", n.ID, lastLines(n.Log, 10))
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not ready after %v; its last lines:\n%s", n.ID, atMost, lastLines(n.Log, 10))
		}
	}
}

func (c *benchCluster) isReady(ctx context.Context, n devNode) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.API+"/readyz?revoke", nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode == http.StatusOK
}

// host returns host:port of node i's API.
func (c *benchCluster) host(i int) string { return strings.TrimPrefix(c.dev.Nodes[i].API, "https://") }

func (c *benchCluster) hosts() []string {
	all := make([]string, len(c.dev.Nodes))
	for i := range all {
		all[i] = c.host(i)
	}
	return all
}

// pids returns the processes of the nodes, as far as they are known.
func (c *benchCluster) pids() []int {
	var pids []int
	for _, n := range c.dev.Nodes {
		if n.PID != 0 {
			pids = append(pids, n.PID)
		}
	}
	return pids
}

// client returns a client of node i's API.
func (c *benchCluster) client(role string, i int) *apiClient {
	cr := c.dev.Clients[role]
	return &apiClient{addrs: []string{c.dev.Nodes[i].API}, id: cr.ClientID, secret: cr.ClientSecret, timeout: rawTimeout, customCA: true, http: c.http}
}

// basic returns the credentials of a client as they stand in the header.
func (c *benchCluster) basic(role string) string {
	cr := c.dev.Clients[role]
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(cr.ClientID) + ":" + url.QueryEscape(cr.ClientSecret)))
}

// status asks node i.
func (c *benchCluster) status(ctx context.Context, i int) (revoked.NodeStatus, error) {
	var s revoked.NodeStatus
	b, err := c.client("admin", i).do(ctx, call{what: "read the status", method: http.MethodGet, path: "/v1/status"})
	if err != nil {
		return s, err
	}
	return s, parseAnswer("read the status", b, &s)
}

// leader returns the position of the leader.
func (c *benchCluster) leader(ctx context.Context) (int, error) {
	for i := range c.dev.Nodes {
		s, err := c.status(ctx, i)
		if err != nil {
			continue // it may be down on purpose
		}
		for k, n := range c.dev.Nodes {
			if n.ID == s.Leader.NodeID {
				return k, nil
			}
		}
	}
	return 0, errors.New("no node knows a leader")
}

// settle waits until every node has applied what the leader has committed, and rests.
func (c *benchCluster) settle(ctx context.Context) error {
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	return c.rest(ctx)
}

// rest waits, for half a minute at most, until the nodes do next to nothing: what they still owe their
// disks for the pairs just registered is no part of what is measured next.
func (c *benchCluster) rest(ctx context.Context) error {
	const look, busy = 250 * time.Millisecond, 0.25 // of a core, all nodes together
	quiet := 0
	for end := time.Now().Add(30 * time.Second); quiet < 2 && time.Now().Before(end); {
		before, err := processorTimes(c.pids())
		if err != nil {
			return nil // not known here
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := processorTimes(c.pids())
		if err != nil {
			return nil
		}
		if quiet++; (after - before).Seconds() >= busy*look.Seconds() {
			quiet = 0
		}
	}
	return nil
}

// catchUp waits until every node has applied what the leader has committed.
func (c *benchCluster) catchUp(ctx context.Context) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	s, err := c.status(ctx, leader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for i := range c.dev.Nodes {
		for {
			f, err := c.status(ctx, i)
			if err != nil {
				return err
			}
			if f.AppliedIndex >= s.CommitIndex {
				break
			}
			select {
			case <-poll.C:
			case <-ctx.Done():
				return fmt.Errorf("%s did not catch up: %w", c.dev.Nodes[i].ID, ctx.Err())
			}
		}
	}
	return nil
}

// counter returns a counter of node i by its metric's name, with or without labels; false where the
// node does not offer it.
func (c *benchCluster) counter(ctx context.Context, i int, name string) (float64, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.dev.Nodes[i].API+"/metrics", nil)
	if err != nil {
		return 0, false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err == nil {
			sum, found = sum+v, true
		}
	}
	return sum, found && lines.Err() == nil
}

// A baselineServer is the child that serves the baseline.
type baselineServer struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
	tls   *tls.Config
}

// startBaseline starts the baseline with the bodies it is to answer with.
func startBaseline(exe string, bodies map[string]string) (*baselineServer, error) {
	cmd := exec.Command(exe, "bench", "baseline-server")
	cmd.Args[0] = "revoked"
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	b := &baselineServer{cmd: cmd, stdin: in}
	if err := json.NewEncoder(in).Encode(baselineRequest{Bodies: bodies}); err != nil {
		b.stop()
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	var ready baselineReady
	if err := json.NewDecoder(io.LimitReader(out, 64<<10)).Decode(&ready); err != nil {
		b.stop()
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	b.addr = ready.Addr
	if b.tls, err = rawTLS([]byte(ready.CA)); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// stop ends the baseline: it ends when its standard input does.
func (b *baselineServer) stop() {
	b.stdin.Close()
	_ = b.cmd.Wait()
}
