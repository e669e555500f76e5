package cluster_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/cluster"
	"revoked/internal/await"
)

// longStop limits every wait of a test.
const longStop = 2 * time.Minute

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

// members polls the members of g until ok returns true, and returns them.
func members(t *testing.T, g *cluster.Gossip, what string, ok func([]cluster.Peer) bool) (got []cluster.Peer) {
	t.Helper()
	await.Until(t, what, func() bool {
		got = g.Members()
		return ok(got)
	})
	return got
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

func TestGossip_Join_FindsAllNodes(t *testing.T) {
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
		got := members(t, g, "three live members", alive(3))
		if !slices.IsSortedFunc(got, func(a, b cluster.Peer) int { return strings.Compare(a.NodeID, b.NodeID) }) {
			t.Errorf("got %+v, want them sorted", got)
		}
		want := cluster.Peer{
			NodeID: "node2", Instance: "node2-i1", Region: "south", API: "https://node2.example:8443",
			Cluster: "node2.example:7443", Gossip: n2.Addr(), Version: "v1.2.3", Alive: true,
		}
		if p := find(got, "node2"); p != want {
			t.Errorf("got %+v, want %+v", p, want)
		}
	}
	// A stall worsens the health score of a node. Answered probes restore it.
	members(t, n1, "a healthy node", func([]cluster.Peer) bool { return n1.Health() == 0 })
}

// A node that fails is probed over UDP, over TCP and through others, and suspected. No message of a
// node of the cluster may be refused.
func TestGossip_FailedNode_NoMessageIsRefused(t *testing.T) {
	key := newKey(t)
	reg := prometheus.NewRegistry()
	log := &await.Log{}
	tune := func(c *cluster.Config) { c.Log = log.Logger() }
	metrics := cluster.NewMetrics(reg)
	n1 := start(t, key, "node1", func(c *cluster.Config) { tune(c); c.Metrics = metrics })
	n2 := start(t, key, "node2", func(c *cluster.Config) { tune(c); c.Metrics = metrics; c.WAN = true })
	n3 := start(t, key, "node3", tune)
	for _, g := range []*cluster.Gossip{n2, n3} {
		if _, err := g.Join([]string{n1.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	members(t, n1, "three live members", alive(3))
	if err := n3.Close(); err != nil { // without Leave
		t.Fatal(err)
	}
	members(t, n1, "two live members", alive(2))
	members(t, n2, "two live members", alive(2))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) > 0 {
		t.Errorf("got %v, want nothing refused; log:\n%s", families, log)
	}
}

func TestGossip_NodeLeaves_StaysListed(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	n2 := start(t, key, "node2", nil)
	if _, err := n2.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	members(t, n1, "two live members", alive(2))
	old := n2.Addr()
	if err := n2.Leave(longStop); err != nil {
		t.Fatal(err)
	}
	got := members(t, n1, "one live member", alive(1))
	if p := find(got, "node2"); p.NodeID != "node2" || p.Alive {
		t.Errorf("node that left: got %+v, want it known and not alive", p)
	}
	again := start(t, key, "node2", nil) // same instance, another port; the old one still has its port
	if again.Addr() == old {
		t.Fatalf("got address %s, want another", old)
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
	got = members(t, n1, "two live members", alive(2))
	if p := find(got, "node2"); p.Gossip != again.Addr() {
		t.Errorf("got address %s, want %s", p.Gossip, again.Addr())
	}
}

// A node that lost its disk has a new instance. It is accepted immediately, even while the old one
// is considered alive, and listed once.
func TestGossip_NewInstance_ReplacesTheOld(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	n2 := start(t, key, "node2", nil)
	if _, err := n2.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	if err := n2.Close(); err != nil { // without Leave
		t.Fatal(err)
	}
	again := start(t, key, "node2", func(c *cluster.Config) { c.Instance = "node2-i2" })
	if _, err := again.Join([]string{n1.Addr()}); err != nil {
		t.Fatal(err)
	}
	members(t, n1, "only the new instance", func(peers []cluster.Peer) bool {
		p := find(peers, "node2")
		return len(peers) == 2 && p.Alive && p.Instance == "node2-i2"
	})
}

func TestGossip_WrongKey_IsRefused(t *testing.T) {
	log := &await.Log{}
	n1 := start(t, newKey(t), "node1", func(c *cluster.Config) { c.Log = log.Logger() })
	n2 := start(t, newKey(t), "node2", nil)
	_, err := n2.Join([]string{n1.Addr()})
	if err == nil || !strings.Contains(err.Error(), "same gossip key") {
		t.Errorf("join: got %v, want an error that mentions the key", err)
	}
	log.Wait(t, "put the same key into gossip_key_file on every node")
	if got := n1.Members(); len(got) != 1 {
		t.Errorf("got %+v, want only node1", got)
	}
}

func TestGossip_OtherCluster_IsRefused(t *testing.T) {
	key := newKey(t)
	log := &await.Log{}
	n1 := start(t, key, "node1", func(c *cluster.Config) { c.Log = log.Logger() })
	n2 := start(t, key, "node2", func(c *cluster.Config) { c.ClusterID = "c2" })
	if _, err := n2.Join([]string{n1.Addr()}); err == nil {
		t.Error("join: got nil, want an error")
	}
	log.Wait(t, "a node of another cluster sends messages to this node")
	if got := n1.Members(); len(got) != 1 {
		t.Errorf("got %+v, want only node1", got)
	}
}

func TestGossip_Peers_AreJoined(t *testing.T) {
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
	asked = []string{n1.Addr()} // added to Raft's configuration later
	mu.Unlock()
	members(t, n2, "two live members", alive(2))
}

func TestStart_InvalidConfig_ReturnsError(t *testing.T) {
	good := cluster.Config{NodeID: "n", Instance: "i", ClusterID: "c", Bind: "127.0.0.1:0", Key: newKey(t)}
	for name, spoil := range map[string]func(*cluster.Config){
		"no key":                    func(c *cluster.Config) { c.Key = nil },
		"key of 16 bytes":           func(c *cluster.Config) { c.Key = c.Key[:16] },
		"no cluster id":             func(c *cluster.Config) { c.ClusterID = "" },
		"no node id":                func(c *cluster.Config) { c.NodeID = "" },
		"instance with a tilde":     func(c *cluster.Config) { c.Instance = "a~b" },
		"bind address without port": func(c *cluster.Config) { c.Bind = "127.0.0.1" },
		"no host in advertise":      func(c *cluster.Config) { c.Advertise = ":1" },
		"metadata too long": func(c *cluster.Config) {
			c.API, c.Region = strings.Repeat("a", 255),
				strings.Repeat("b", 255)
		},
		"region with a line break": func(c *cluster.Config) { c.Region = "a\nb" },
	} {
		cfg := good
		spoil(&cfg)
		g, err := cluster.Start(cfg)
		if err == nil {
			t.Errorf("%s: got nil, want an error", name)
			_ = g.Close()
		}
		if err != nil && len(cfg.Key) > 0 && strings.Contains(err.Error(), string(cfg.Key)) {
			t.Errorf("%s: got %q, want it without the key", name, err)
		}
	}
}
