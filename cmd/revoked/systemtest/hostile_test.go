//go:build system

package systemtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"revoked/internal/hostile"
)

// Addresses of the well-behaved client and of the attackers. The nodes have 127.0.0.1.
const goodAddress, floodAddress, clientAddress, nodeAddress = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"

// nodeMemory is the limit for the attacked node, in bytes.
const nodeMemory = 512 << 20

// Attackers repeat every attack that once stopped a node or locked out other clients. They attack
// one node of three. The kernel kills the node at 512 MiB. The node survives, the others stay
// ready, and a client at another address is served at every node. REVOKED_HOSTILE multiplies the
// attacks (default 1).
func TestHostileClients_LimitedNode_StaysUp(t *testing.T) {
	needRoot(t, "memory limits")
	c := newCluster(t, 3)
	for _, m := range c.Nodes {
		m.args = append(m.args, "--heartbeat-timeout=2s", "--election-timeout=2s", "--lease-duration=4s",
			"--misses-per-second=100", "--spool-limit-per-request="+spoolOfRequest, "--spool-limit="+spoolOfNode)
	}
	a := &attack{t: t, c: c, target: c.Nodes[2], scale: number(t, "REVOKED_HOSTILE", 1)}
	a.target.within = limitMemory(t, nodeMemory)
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	goroutines := c.metric(t, a.target, "go_goroutines")
	a.good = newGoodClient(c, rand.Text(), goodAddress)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { a.good.run(ctx, t, nil) })
	wg.Go(func() { a.watchReadiness(ctx) })
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"silent connections to the API", a.silentConnections},
		{"idle HTTP/2 connections", a.idleConnections},
		{"half-sent requests over HTTP/2", a.halfRequests},
		{"random tokens", a.randomTokens},
		{"a large header among valid requests", a.largeHeader},
		{"bulk registrations that are not read", a.unreadBulk},
		{"feeds", a.feeds},
		{"bodies that never come", a.missingBodies},
		{"gossip bombs and connections", a.gossip},
		{"silent connections to the cluster port", a.clusterPort},
		{"no leader", a.noLeader},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			step.run(t)
			a.check(t)
		}) {
			return
		}
	}
	a.end()
	await(t, "the goroutines of the attacks to end", func() error {
		got, err := c.readMetric(a.target, "go_goroutines")
		if err == nil && got > goroutines+50 {
			err = fmt.Errorf("got %v goroutines, want about the %v of the start", got, goroutines)
		}
		return err
	})
	cancel()
	wg.Wait()
	c.checkAgreement(t, c.Nodes...)
	t.Logf("%v; readiness of the others: %d times 200, %d times not", a.good, a.ready.Load(), a.unready.Load())
	// Attackers and nodes share the cores here, so a node may miss the renewal of its lease.
	if 10*a.unready.Load() > a.ready.Load() {
		t.Errorf("the others: got not ready %d times, ready %d times, want them ready", a.unready.Load(), a.ready.Load())
	}
}

// Limits of the spool, small so that an attack reaches them soon.
const spoolOfRequest, spoolOfNode = "2MiB", "6MiB"

// An attack has the connections of the attackers at one node.
type attack struct {
	t      *testing.T
	c      *cluster
	target *member
	scale  int
	good   *goodClient

	mu   sync.Mutex
	held []io.Closer
	stop bool // the others are stopped, so not ready

	ready, unready atomic.Int64 // answers of /readyz of the other nodes
}

// hold keeps a connection open until the end of the test.
func (a *attack) hold(c io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = append(a.held, c)
}

// end closes the connections of the attackers.
func (a *attack) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.held {
		_ = c.Close()
	}
	a.held = nil
}

// check fails unless the node runs and the well-behaved client is served. It logs the memory of the
// node.
func (a *attack) check(t *testing.T) {
	t.Helper()
	a.good.awaitRounds(t, 1)
	if !a.target.proc.Running() {
		t.Fatalf("%s: exited: %v", a.target.ID, a.target.proc.Err())
	}
	a.c.awaitReady(t, a.c.without(a.target)...)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.target.proc.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, size, _ := strings.Cut(line, ":")
		if name != "VmHWM" && name != "VmRSS" {
			continue
		}
		size = strings.TrimSpace(size)
		t.Logf("%s %s", name, size)
		if kib, err := strconv.Atoi(strings.TrimSuffix(size, " kB")); err != nil || kib > nodeMemory>>10 {
			t.Errorf("%s: got %s, want at most %d bytes", name, size, nodeMemory)
		}
	}
}

// watchReadiness counts the answers of /readyz of the other nodes until ctx ends.
func (a *attack) watchReadiness(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range a.c.without(a.target) {
			a.mu.Lock()
			stopped := a.stop
			a.mu.Unlock()
			if stopped {
				continue
			}
			if got := a.c.send(m, request{method: http.MethodGet, path: "/readyz"}); got.status == http.StatusOK {
				a.ready.Add(1)
			} else {
				a.unready.Add(1)
			}
		}
	}
}

// dial opens a TLS connection to the API of the target. nil: the node refused it.
func (a *attack) dial(source, proto string) *tls.Conn {
	raw, err := dialerOf(source).Dial("tcp", strings.TrimPrefix(a.target.API, "https://"))
	if err != nil {
		return nil
	}
	a.hold(raw)
	c := tls.Client(raw, &tls.Config{RootCAs: a.c.pool, NextProtos: []string{proto}, ServerName: "127.0.0.1"})
	_ = c.SetDeadline(time.Now().Add(longStop / 2))
	if c.Handshake() != nil {
		return nil
	}
	return c
}

// dialH2 opens an HTTP/2 connection. nil: the node refused it.
func (a *attack) dialH2(source string) *hostile.H2 {
	c := a.dial(source, "h2")
	if c == nil {
		return nil
	}
	h, err := hostile.NewH2(c)
	if err != nil {
		return nil
	}
	return h
}

func (a *attack) basic(client string) hostile.Field {
	cl := a.c.Clients[client]
	return hostile.Field{"authorization",
		"Basic " + base64.StdEncoding.EncodeToString([]byte(cl.ClientID+":"+cl.ClientSecret))}
}

// flood opens n TCP connections to addr and sends the first bytes on each.
func (a *attack) flood(source, addr string, n int, first ...string) {
	inParallel(n, func(i int) {
		c, err := dialerOf(source).Dial("tcp", addr)
		if err != nil {
			return // refused
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // the node may read nothing
		_, _ = io.WriteString(c, first[i%len(first)])
		a.hold(c)
	})
}

// inParallel calls f for 0 to n-1, eight calls at a time.
func inParallel(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				f(int(i - 1))
			}
		})
	}
	wg.Wait()
}

func (a *attack) silentConnections(*testing.T) {
	a.flood(floodAddress, strings.TrimPrefix(a.target.API, "https://"), 2000*a.scale, "", "\x16",
		"\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\nHost:")
}

func (a *attack) idleConnections(*testing.T) {
	inParallel(300*a.scale, func(int) {
		if h := a.dialH2(floodAddress); h != nil {
			if id, err := h.Open(true, hostile.Request("GET", "/livez")...); err == nil {
				h.Answer(id)
			}
		}
	})
}

func (a *attack) halfRequests(t *testing.T) {
	const conns, streams = 320, 50
	var sent atomic.Int64
	inParallel(conns*a.scale, func(int) {
		h := a.dialH2(floodAddress)
		for i := 0; h != nil && i < streams && h.HalfRequest("/oauth2/introspect", 16000) == nil; i++ {
			sent.Add(1)
		}
	})
	t.Logf("sent %d incomplete requests", sent.Load())
	if sent.Load() == 0 {
		t.Error("got no incomplete request through, want some")
	}
}

// randomTokens introspects tokens that do not exist. Beyond the budget, the answer is 429.
func (a *attack) randomTokens(t *testing.T) {
	got := map[string]int{}
	for range 20 * a.scale {
		h := a.dialH2(clientAddress)
		var ids []uint32
		for h != nil && len(ids) < 50 {
			body := "token=" + rand.Text()
			id, err := h.Open(false, append(hostile.Request("POST", "/oauth2/introspect"), a.basic("resource_server"),
				hostile.Field{"content-type", "application/x-www-form-urlencoded"})...)
			if err != nil || h.WriteData(id, true, []byte(body)) != nil {
				break
			}
			ids = append(ids, id)
		}
		if h != nil {
			count(got, h.Answers(ids...))
			_ = h.Close()
		}
	}
	t.Logf("answers: %v", got)
	if got["200"] == 0 || got["429"] == 0 {
		t.Errorf("got %v, want some answers 200, then 429", got)
	}
}

func count(into map[string]int, answers map[uint32]string) {
	for _, text := range answers {
		into[text]++
	}
}

// largeHeader sends large headers between valid requests on one connection.
func (a *attack) largeHeader(t *testing.T) {
	h := a.dialH2(goodAddress)
	if h == nil {
		t.Fatal("got no connection, want one")
	}
	defer h.Close()
	want, got := map[string]int{}, map[string]int{}
	for range 4 * a.scale {
		var ids []uint32
		for i := range 40 {
			fields, status := append(hostile.Request("POST", "/v1/check"), a.basic("app")), "403"
			if i%4 == 3 {
				fields, status = append(fields, hostile.Field{"x-token", strings.Repeat("x", 17<<10<<(i%4))}), "431"
			}
			id, err := h.Open(true, fields...)
			if err != nil {
				t.Fatalf("got %v, want the connection open", err)
			}
			ids = append(ids, id)
			want[status]++
		}
		count(got, h.Answers(ids...))
	}
	t.Logf("answers: %v", got)
	if got["431"] != want["431"] || got["403"]+got["503"] != want["403"] {
		t.Errorf("got %v, want %v (503 instead of 403 is right too)", got, want)
	}
}

// unreadBulk sends lines and reads no results.
func (a *attack) unreadBulk(t *testing.T) {
	const most = 4 // of one client
	part := fmt.Sprintf("8000\r\n%s\r\n", strings.Repeat("x\n", 0x4000))
	for range most {
		c := a.dial(clientAddress, "http/1.1")
		if c == nil {
			t.Fatal("got no connection, want one")
		}
		fmt.Fprintf(c, "POST /v1/grants HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n%s: %s\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n", a.basic("issuer")[0], a.basic("issuer")[1])
		go func() { // until the node stops reading, or the end of the test
			for range 350 * a.scale { // 11 MB
				if _, err := io.WriteString(c, part); err != nil {
					return
				}
			}
		}()
	}
	limit, _ := strconv.ParseFloat(strings.TrimSuffix(spoolOfNode, "MiB"), 64)
	await(t, "the spools to fill", func() error {
		got, err := a.c.readMetric(a.target, "revoked_api_spool_bytes")
		if err == nil && (got < 1<<20 || got > limit*(1<<20)) {
			err = fmt.Errorf("got %v bytes, want 1 MiB to %v MiB", got, limit)
		}
		return err
	})
	own := *a.target
	own.client = a.good.nodes[2].client // an address with room
	if got := a.c.sendLines(&own, "/v1/grants", []byte("x\n")); got.want(http.StatusTooManyRequests) != nil {
		t.Errorf("a further stream of that client: %v", got.want(http.StatusTooManyRequests))
	}
}

// feeds opens more feeds than one client may have.
func (a *attack) feeds(t *testing.T) {
	got := map[string]int{}
	for range 4 * a.scale {
		h := a.dialH2(clientAddress)
		if h == nil {
			t.Fatal("got no connection, want one")
		}
		var ids []uint32
		for range 50 {
			id, err := h.Open(true, append(hostile.Request("GET", "/v1/revocations?follow=true"), a.basic("resource_server"),
				hostile.Field{"accept", "text/event-stream"})...)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		count(got, h.Answers(ids...))
	}
	t.Logf("answers: %v", got)
	if got["200"] == 0 || got["200"] > 100 || got["429"] == 0 {
		t.Errorf("got %v, want 200 for at most 100, then 429", got)
	}
}

// missingBodies announces bodies that never come. The answer does not wait for them.
func (a *attack) missingBodies(t *testing.T) {
	inParallel(10*a.scale, func(int) {
		for line, want := range map[string]int{"GET /v1/check": 403, "GET /livez": 200, "PUT /none": 404,
			"POST /v1/grants": 401, "GET /oauth2/revoke": 405} {
			c := a.dial(clientAddress, "http/1.1")
			if c == nil {
				t.Errorf("%s: got no connection, want one", line)
				return
			}
			fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: 77\r\n\r\n", line)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != want && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s: got %v, %v, want %d", line, resp, err, want)
			}
		}
	})
}

// gossip sends messages that expand under the right key, and floods the port with connections.
func (a *attack) gossip(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(a.c.dir, "gossip.key"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(file)), "\n")
	key, err := base64.StdEncoding.DecodeString(lines[len(lines)-1]) // after comments
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.c.status(a.target)
	if err != nil {
		t.Fatal(err)
	}
	g := hostile.Gossip{Key: key, Label: s.ClusterID, Addr: a.target.Gossip}
	small, large := g.Packet(t, hostile.Bomb(t, 30<<10)), g.Stream(t, 1, hostile.Bomb(t, 100<<10))
	a.flood(nodeAddress, a.target.Gossip, 8*a.scale, string(large))
	a.flood(nodeAddress, a.target.Gossip, 1500*a.scale, "", string(large[:30]), string(large[:10<<10]))
	g.SendPackets(t, small, small, small, small)
}

// clusterPort holds silent connections to the cluster port. A node that restarts becomes ready.
func (a *attack) clusterPort(t *testing.T) {
	a.flood(nodeAddress, a.target.Cluster, 300*a.scale, "", "\x16", "\x16\x03\x01\x02\x00\x01")
	a.flood("127.0.0.1", a.target.Cluster, 64, "")
	m := a.c.without(a.target, a.c.leader(t))[0]
	a.pause(true)
	m.proc.Kill()
	a.c.start(t, m)
	a.c.awaitReady(t, m)
	a.pause(false)
}

// pause stops the count of ready nodes.
func (a *attack) pause(stop bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stop = stop
}

// noLeader stops the other nodes and sends revocations, which are refused immediately.
func (a *attack) noLeader(t *testing.T) {
	a.pause(true)
	others := a.c.without(a.target)
	for _, m := range others {
		m.proc.Signal(syscall.SIGSTOP)
	}
	own := *a.target
	own.client = a.good.nodes[2].client
	await(t, "no leader in the status of the node", func() error {
		got := a.c.revoke(&own, "app", "no-leader")
		if got.err == nil && got.status == http.StatusServiceUnavailable && strings.Contains(string(got.body), "no leader") {
			return nil
		}
		return fmt.Errorf("got %d %s %w", got.status, got.body, got.err)
	})
	answers := map[string]int{}
	for range 10 * a.scale {
		h := a.dialH2(clientAddress)
		if h == nil {
			t.Fatal("got no connection, want one")
		}
		var ids []uint32
		for range 50 {
			id, err := h.Open(false, append(hostile.Request("POST", "/oauth2/revoke"), a.basic("app"),
				hostile.Field{"content-type", "application/x-www-form-urlencoded"})...)
			if err != nil || h.WriteData(id, true, []byte("token=no-leader")) != nil {
				t.Fatalf("got %v, want the connection open", err)
			}
			ids = append(ids, id)
		}
		count(answers, h.Answers(ids...))
	}
	for _, m := range others {
		m.proc.Signal(syscall.SIGCONT)
	}
	t.Logf("answers: %v", answers)
	if len(answers) != 1 || answers["503"] == 0 {
		t.Errorf("got %v, want only 503", answers)
	}
	a.c.awaitReady(t, a.c.Nodes...)
	a.pause(false)
}

// limitMemory returns a command that runs a program. The kernel kills the program when it needs
// more than size bytes.
func limitMemory(t testing.TB, size int64) []string {
	t.Helper()
	text := strconv.FormatInt(size, 10)
	group, err := controlGroup(t,
		groupFiles{"/sys/fs/cgroup/memory", map[string]string{"memory.limit_in_bytes": text}},
		groupFiles{"/sys/fs/cgroup", map[string]string{"memory.max": text}})
	if err != nil {
		t.Logf("no control group, %v: only the memory that the node has used is checked", err)
		return nil
	}
	within := []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group}
	greedy := append(within, "tail", "/dev/zero") // keeps the last line, which has no end
	if p := startProcess(t, "", nil, greedy[0], greedy[1:]...); p.exit(t) == 0 {
		t.Fatalf("a program without bounds: got exit code 0, want it killed at %d bytes", size)
	}
	return within
}
