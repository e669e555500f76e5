//go:build system

package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A network is a set of hosts of the test's own: a network namespace for each node, and one with the
// bridge between them, where the clients are. What is cut is cut between nodes; clients reach all.
type network struct {
	*cluster
	hub   string
	hosts map[*member]string // namespace of each node
}

const (
	networkPort    = 8443
	networkAddress = "10.77.0." // of node k: k
)

// startNetwork makes the hosts, starts a node on each of n, and waits until all are ready.
func startNetwork(t *testing.T, n int) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	need(t, "ip")
	need(t, "nft")
	name := fmt.Sprintf("rv%x", rand.Uint32()&0xffffff)
	w := &network{hub: name + "-hub", hosts: map[*member]string{}}
	w.addHost(t, w.hub)
	mustTool(t, "ip", "-n", w.hub, "link", "add", "bridge", "type", "bridge")
	mustTool(t, "ip", "-n", w.hub, "addr", "add", networkAddress+"254/24", "dev", "bridge")
	mustTool(t, "ip", "-n", w.hub, "link", "set", "bridge", "up")
	var addresses, hosts []string
	for k := 1; k <= n; k++ {
		host, address, plug := fmt.Sprintf("%s-%d", name, k), networkAddress+strconv.Itoa(k), fmt.Sprintf("to%d", k)
		w.addHost(t, host)
		mustTool(t, "ip", "-n", w.hub, "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", host)
		mustTool(t, "ip", "-n", w.hub, "link", "set", plug, "master", "bridge", "up")
		mustTool(t, "ip", "-n", host, "addr", "add", address+"/24", "dev", "eth0")
		mustTool(t, "ip", "-n", host, "link", "set", "eth0", "up")
		addresses, hosts = append(addresses, address), append(hosts, host)
	}
	dir := realFolder(t)
	code, out, messages := runProgram(t, nil, "", "dev", "--init-only", "--dir", dir, "--hosts", strings.Join(addresses, ","), "--api-port", strconv.Itoa(networkPort))
	if code != 0 {
		t.Fatalf("dev --init-only: exit code %d: %s%s", code, out, messages)
	}
	w.cluster = readCluster(t, dir)
	t.Cleanup(func() { w.atEnd(t) })
	for k, m := range w.Nodes {
		w.hosts[m] = hosts[k]
		m.client.Transport.(*http.Transport).DialContext = dialFrom(w.hub)
		m.proc = startProcess(t, m.Log, nil, "ip", "netns", "exec", hosts[k], "revoked", "server", "--config", m.Config)
	}
	w.awaitReady(t, w.Nodes...)
	return w
}

// addHost makes a namespace, which goes with the test.
func (w *network) addHost(t *testing.T, name string) {
	t.Helper()
	mustTool(t, "ip", "netns", "add", name)
	t.Cleanup(func() { mustTool(t, "ip", "netns", "del", name) })
	mustTool(t, "ip", "-n", name, "link", "set", "lo", "up")
}

func mustTool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := tool(t, nil, name, args...); err != nil {
		t.Fatal(err)
	}
}

// dialFrom connects from inside a namespace. The socket belongs to the thread that makes it, so the thread
// goes there, and never comes back: it ends with its goroutine.
func dialFrom(host string) func(ctx context.Context, netw, addr string) (net.Conn, error) {
	return func(ctx context.Context, netw, addr string) (conn net.Conn, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlock
			ns, openErr := os.Open(filepath.Join("/run/netns", host))
			if openErr != nil {
				err = openErr
				return
			}
			defer ns.Close()
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return
			}
			conn, err = new(net.Dialer).DialContext(ctx, netw, addr)
		}()
		<-done
		return conn, err
	}
}

// A drop is what one host stops hearing.
type drop struct {
	at   *member
	rule string // of nftables, without its verdict
}

// from returns the drops by which each of the hearers hears nothing more of the speakers.
func from(speakers, hearers []*member) []drop {
	var drops []drop
	for _, s := range speakers {
		for _, h := range hearers {
			drops = append(drops, drop{h, "ip saddr " + s.host()})
		}
	}
	return drops
}

// both returns the drops by which two groups of nodes hear nothing more of each other.
func both(a, b []*member) []drop { return append(from(a, b), from(b, a)...) }

func (m *member) host() string {
	host, _, err := net.SplitHostPort(m.Cluster)
	if err != nil {
		panic(err)
	}
	return host
}

func portOf(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }

// cut puts the drops in force, in place of any before.
func (w *network) cut(t *testing.T, drops []drop) {
	t.Helper()
	for _, m := range w.Nodes {
		var rules strings.Builder
		rules.WriteString("flush ruleset\ntable inet cut {\nchain in {\ntype filter hook input priority 0;\n")
		for _, d := range drops {
			if d.at == m {
				rules.WriteString(d.rule + " drop\n")
			}
		}
		rules.WriteString("}\n}\n")
		var said strings.Builder
		p := startProcess(t, "", func(cmd *exec.Cmd) {
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules.String()), &said, &said
		}, "ip", "netns", "exec", w.hosts[m], "nft", "-f", "-")
		if code := p.exit(t); code != 0 {
			t.Fatalf("nft: %s\n%s", said.String(), rules.String())
		}
	}
}

// heal ends every cut.
func (w *network) heal(t *testing.T) {
	t.Helper()
	w.cut(t, nil)
}

// A partition is one way in which the network fails, between a leader and two followers.
type partition struct {
	name  string
	drops func(leader, a, b *member) []drop
	// silent returns who must stop answering; the others must go on. Nil: all must go on.
	silent func(leader, a, b *member) *member
}

func partitions() []partition {
	group := func(m ...*member) []*member { return m }
	theLeader := func(leader, _, _ *member) *member { return leader }
	follower := func(_, a, _ *member) *member { return a }
	return []partition{
		{"the leader is cut off both ways", func(l, a, b *member) []drop { return both(group(l), group(a, b)) }, theLeader},
		{"a follower is cut off both ways", func(l, a, b *member) []drop { return both(group(a), group(l, b)) }, follower},
		{"the leader can send but not hear", func(l, a, b *member) []drop { return from(group(a, b), group(l)) }, theLeader},
		{"the leader can hear but not send", func(l, a, b *member) []drop { return from(group(l), group(a, b)) }, theLeader},
		{"a follower can send but not hear", func(l, a, b *member) []drop { return from(group(l, b), group(a)) }, follower},
		{"a follower can hear but not send", func(l, a, b *member) []drop { return from(group(a), group(l, b)) }, follower},
		{"the leader and a follower cannot talk, a third reaches both", func(l, a, _ *member) []drop { return both(group(l), group(a)) }, follower},
		{"the followers cannot talk to each other", func(_, a, b *member) []drop { return both(group(a), group(b)) }, nil},
		{"the cluster port of a follower is cut, API and gossip work", func(l, a, b *member) []drop {
			return []drop{
				{a, "tcp dport " + portOf(a.Cluster)},
				{a, fmt.Sprintf("tcp sport { %s, %s }", portOf(l.Cluster), portOf(b.Cluster))},
			}
		}, follower},
		{"gossip is cut everywhere", func(l, a, b *member) []drop {
			ports := fmt.Sprintf("{ %s, %s, %s }", portOf(l.Gossip), portOf(a.Gossip), portOf(b.Gossip))
			var drops []drop
			for _, m := range group(l, a, b) {
				drops = append(drops, drop{m, "udp dport " + ports}, drop{m, "tcp dport " + ports}, drop{m, "tcp sport " + ports})
			}
			return drops
		}, nil},
		{"a tenth of all packets between nodes is lost", func(l, a, b *member) []drop {
			var drops []drop
			for _, m := range group(l, a, b) {
				drops = append(drops, drop{m, "ip saddr != " + networkAddress + "254 numgen random mod 10 == 0"})
			}
			return drops
		}, nil},
	}
}

// However the network fails between the nodes: who cannot know says 503, the majority goes on, and no
// token whose revocation was acknowledged is active anywhere, during and afterwards.
func TestNetworkPartitions(t *testing.T) {
	w := startNetwork(t, 3)
	l := startLoad(t, w.cluster, 4, 25)
	for i, p := range partitions() {
		ok := t.Run(p.name, func(t *testing.T) {
			w.runPartition(t, l, fmt.Sprintf("cut-%d", i), p)
			l.check(t)
		})
		if !ok {
			break // the network may still be cut
		}
	}
	l.halt()
	if t.Failed() {
		return
	}
	w.checkAgreement(t, w.Nodes...)
	l.end(t, w.Nodes...)
}

func (w *network) runPartition(t *testing.T, l *load, name string, p partition) {
	t.Helper()
	leader := w.leader(t)
	var followers []*member
	for _, m := range w.Nodes {
		if m != leader {
			followers = append(followers, m)
		}
	}
	a, b := followers[0], followers[1]
	for _, grant := range []string{"dies", "lives"} {
		w.mustRegister(t, leader, name+grant, "alice", name+grant, name+grant+"-refresh")
	}
	w.wantActive(t, name+"dies", true, w.Nodes...) // it is in every cache

	w.cut(t, p.drops(leader, a, b))
	going := w.Nodes
	if p.silent != nil {
		silent := p.silent(leader, a, b)
		going = nil
		for _, m := range w.Nodes {
			if m != silent {
				going = append(going, m)
			}
		}
		w.mustRevoke(t, going[0], name+"dies")
		w.checkSilent(t, silent, name)
	} else {
		awaitWrites(t, l, 100)
	}
	w.mustRevoke(t, going[0], name+"dies-refresh")
	w.awaitAnswers(t, going, name)
	w.mustRegister(t, going[len(going)-1], name+"later", "bob", name+"later", name+"later-refresh")
	w.mustRevoke(t, going[len(going)-1], name+"later")

	w.heal(t)
	w.awaitReady(t, w.Nodes...)
	w.awaitMembers(t)
	for _, dead := range []string{"dies", "later", "later-refresh"} {
		w.wantActive(t, name+dead, false, w.Nodes...)
	}
	w.wantActive(t, name+"lives", true, w.Nodes...)
}

// checkSilent holds the node that is cut off to its silence: never active after the acknowledgement, and
// 503 for everything that it cannot know.
func (w *network) checkSilent(t *testing.T, m *member, name string) {
	t.Helper()
	if active, ok := w.introspect(m, "app", name+"dies").active(); ok && active {
		t.Fatalf("%s says active after the revocation was acknowledged", m.ID)
	}
	w.awaitNotReady(t, m)
	var asked sync.WaitGroup
	for what, ask := range map[string]func() answer{
		"introspection": func() answer { return w.introspect(m, "app", name+"lives") },
		"revocation":    func() answer { return w.revoke(m, "app", name+"lives") },
		"registration": func() answer {
			return w.register(m, name+"silent", "carol", name+"silent", name+"silent-refresh")
		},
	} {
		asked.Go(func() { // at once: each waits for request_timeout
			a := ask()
			if err := a.want(http.StatusServiceUnavailable); err != nil {
				t.Errorf("%s at %s, which is cut off: %v", what, m.ID, err)
			} else if a.header.Get("Retry-After") == "" {
				t.Errorf("%s at %s: 503 without Retry-After", what, m.ID)
			}
		})
	}
	asked.Wait()
}

// awaitAnswers waits until each of the nodes answers what it must: from its lease, or by asking.
func (w *network) awaitAnswers(t *testing.T, nodes []*member, name string) {
	t.Helper()
	w.wantActive(t, name+"dies", false, nodes...)
	w.wantActive(t, name+"lives", true, nodes...)
}

// awaitWrites waits until the load has had so many more revocations acknowledged.
func awaitWrites(t *testing.T, l *load, n int64) {
	t.Helper()
	goal := l.revoked.Load() + n
	await(t, "the load to go on", func() error {
		l.check(t)
		if got := l.revoked.Load(); got < goal {
			return fmt.Errorf("%d more revocations", goal-got)
		}
		return nil
	})
}

// awaitMembers waits until every node sees every other again. No failure of the network takes a voter
// away.
func (w *network) awaitMembers(t *testing.T) {
	t.Helper()
	for _, m := range w.Nodes {
		await(t, "the members, as "+m.ID+" sees them", func() error {
			a := w.send(m, request{method: http.MethodGet, path: "/v1/members", as: "admin"})
			if err := a.want(http.StatusOK); err != nil {
				return err
			}
			var said struct {
				Members []struct {
					NodeID string `json:"node_id"`
					Voter  bool   `json:"voter"`
					Alive  bool   `json:"alive"`
				} `json:"members"`
			}
			if err := json.Unmarshal(a.body, &said); err != nil {
				return err
			}
			if len(said.Members) != len(w.Nodes) {
				return fmt.Errorf("%s", a.body)
			}
			for _, other := range said.Members {
				if !other.Voter {
					t.Errorf("%s: %s is no voter any more", m.ID, other.NodeID)
				}
				if !other.Alive {
					return fmt.Errorf("%s is not seen", other.NodeID)
				}
			}
			return nil
		})
	}
}
