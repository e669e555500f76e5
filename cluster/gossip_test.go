package cluster_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"revoked/cluster"
)

// longStop is how long a test waits for what must happen.
const longStop = 30 * time.Second

// A logBook keeps what was logged and lets a test wait for a text.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLogBook() *logBook { return &logBook{more: make(chan struct{})} }

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	return b.text.Write(p)
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) wait(t *testing.T, want string) {
	t.Helper()
	stop := time.After(longStop)
	for {
		b.mu.Lock()
		all, more := b.text.String(), b.more
		b.mu.Unlock()
		if strings.Contains(all, want) {
			return
		}
		select {
		case <-more:
		case <-stop:
			t.Fatalf("%q was not logged; log:\n%s", want, all)
		}
	}
}

func newKey(t testing.TB) []byte {
	t.Helper()
	key, err := cluster.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func start(t testing.TB, key []byte, node string, tune func(*cluster.Config)) *cluster.Gossip {
	t.Helper()
	cfg := cluster.Config{
		NodeID: node, Instance: node + "-i1", Region: "north", ClusterID: "c1", Bind: "127.0.0.1:0", Key: key,
		API: "https://" + node + ".example:8443", Cluster: node + ".example:7443", Version: "v1.2.3",
	}
	if tune != nil {
		tune(&cfg)
	}
	g, err := cluster.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close %s: %v", node, err)
		}
	})
	return g
}

// await returns the members of g when they satisfy ok. Gossip announces nothing to its users, so
// this looks again and again.
func await(t *testing.T, g *cluster.Gossip, what string, ok func([]cluster.Peer) bool) []cluster.Peer {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	stop := time.After(longStop)
	for {
		got := g.Members()
		if ok(got) {
			return got
		}
		select {
		case <-tick.C:
		case <-stop:
			t.Fatalf("want %s, got %+v", what, got)
		}
	}
}

func alive(n int) func([]cluster.Peer) bool {
	return func(peers []cluster.Peer) bool {
		got := 0
		for _, p := range peers {
			if p.Alive {
				got++
			}
		}
		return got == n
	}
}

func find(peers []cluster.Peer, node string) cluster.Peer {
	for _, p := range peers {
		if p.NodeID == node {
			return p
		}
	}
	return cluster.Peer{}
}

func TestNodesFindEachOther(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	n2 := start(t, key, "node2", func(c *cluster.Config) { c.Region = "south" })
	n3 := start(t, key, "node3", func(c *cluster.Config) { c.WAN = true })
	for _, g := range []*cluster.Gossip{n2, n3} {
		if n, err := g.Join([]string{n1.Addr()}); n != 1 || err != nil {
			t.Fatalf("join: got %d, %v", n, err)
		}
	}
	for _, g := range []*cluster.Gossip{n1, n2, n3} {
		got := await(t, g, "three living members", alive(3))
		if !slices.IsSortedFunc(got, func(a, b cluster.Peer) int { return strings.Compare(a.NodeID, b.NodeID) }) {
			t.Errorf("not sorted: %+v", got)
		}
		want := cluster.Peer{
			NodeID: "node2", Instance: "node2-i1", Region: "south", API: "https://node2.example:8443",
			Cluster: "node2.example:7443", Gossip: n2.Addr(), Version: "v1.2.3", Alive: true,
		}
		if p := find(got, "node2"); p != want {
			t.Errorf("got %+v, want %+v", p, want)
		}
	}
	if got := n1.Health(); got != 0 {
		t.Errorf("health: got %d, want 0", got)
	}
}

func TestANodeThatLeavesStaysKnownAndMayComeBackElsewhere(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	n2 := start(t, key, "node2", nil)
	if _, err := n2.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	await(t, n1, "two living members", alive(2))
	old := n2.Addr()
	if err := n2.Leave(longStop); err != nil {
		t.Fatal(err)
	}
	got := await(t, n1, "one living member", alive(1))
	if p := find(got, "node2"); p.NodeID != "node2" || p.Alive {
		t.Errorf("the one that left: got %+v, want it known and not alive", p)
	}
	again := start(t, key, "node2", nil) // same instance, another port, while the old one still holds its own
	if again.Addr() == old {
		t.Fatal("the test needs another address")
	}
	if err := n2.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n2.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := again.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	got = await(t, n1, "two living members", alive(2))
	if p := find(got, "node2"); p.Gossip != again.Addr() {
		t.Errorf("got address %s, want %s", p.Gossip, again.Addr())
	}
}

// A node that lost its disk has a new instance: it is heard at once, whatever is thought of the old
// one, and listed once.
func TestANewInstanceIsHeardAtOnce(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	n2 := start(t, key, "node2", nil)
	if _, err := n2.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	if err := n2.Close(); err != nil { // no farewell
		t.Fatal(err)
	}
	again := start(t, key, "node2", func(c *cluster.Config) { c.Instance = "node2-i2" })
	if _, err := again.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	await(t, n1, "the new instance alone", func(peers []cluster.Peer) bool {
		p := find(peers, "node2")
		return len(peers) == 2 && p.Alive && p.Instance == "node2-i2"
	})
}

func TestAWrongKeyIsNotHeardAndTheLogSaysWhatToDo(t *testing.T) {
	log := newLogBook()
	n1 := start(t, newKey(t), "node1", func(c *cluster.Config) { c.Log = log.logger() })
	n2 := start(t, newKey(t), "node2", nil)
	_, err := n2.Join([]string{n1.Addr()})
	if err == nil || !strings.Contains(err.Error(), "same gossip key") {
		t.Errorf("join: got %v, want an error that names the key", err)
	}
	log.wait(t, "put the same key into gossip_key_file on every node")
	if got := n1.Members(); len(got) != 1 {
		t.Errorf("got %+v, want node1 alone", got)
	}
}

func TestAnotherClusterIsNotHeard(t *testing.T) {
	key := newKey(t)
	log := newLogBook()
	n1 := start(t, key, "node1", func(c *cluster.Config) { c.Log = log.logger() })
	n2 := start(t, key, "node2", func(c *cluster.Config) { c.ClusterID = "c2" })
	if _, err := n2.Join([]string{n1.Addr()}); err == nil {
		t.Error("join: got no error")
	}
	log.wait(t, "a node of another cluster is talking to this one")
	if got := n1.Members(); len(got) != 1 {
		t.Errorf("got %+v, want node1 alone", got)
	}
}

func TestMissingMembersAreLookedFor(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	var mu sync.Mutex
	var asked []string
	n2 := start(t, key, "node2", func(c *cluster.Config) {
		c.JoinEvery = 5 * time.Millisecond
		c.Peers = func(context.Context) []string {
			mu.Lock()
			defer mu.Unlock()
			return asked
		}
	})
	mu.Lock()
	asked = []string{n1.Addr()} // Raft's configuration learns of it later
	mu.Unlock()
	await(t, n2, "two living members", alive(2))
}

func TestStartRefusesAConfigurationThatCannotWork(t *testing.T) {
	good := cluster.Config{NodeID: "n", Instance: "i", ClusterID: "c", Bind: "127.0.0.1:0", Key: newKey(t)}
	for name, spoil := range map[string]func(*cluster.Config){
		"no key":                      func(c *cluster.Config) { c.Key = nil },
		"a key of 16 bytes":           func(c *cluster.Config) { c.Key = c.Key[:16] },
		"no cluster id":               func(c *cluster.Config) { c.ClusterID = "" },
		"no node id":                  func(c *cluster.Config) { c.NodeID = "" },
		"an instance with a tilde":    func(c *cluster.Config) { c.Instance = "a~b" },
		"a bind address without port": func(c *cluster.Config) { c.Bind = "127.0.0.1" },
		"no host in advertise":        func(c *cluster.Config) { c.Advertise = ":1" },
		"metadata that is too long":   func(c *cluster.Config) { c.API, c.Region = strings.Repeat("a", 255), strings.Repeat("b", 255) },
		"a region with a line break":  func(c *cluster.Config) { c.Region = "a\nb" },
	} {
		cfg := good
		spoil(&cfg)
		g, err := cluster.Start(cfg)
		if err == nil {
			t.Errorf("%s: got no error", name)
			_ = g.Close()
		}
		if err != nil && len(cfg.Key) > 0 && strings.Contains(err.Error(), string(cfg.Key)) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
}
