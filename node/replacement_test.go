package node_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// A cluster of three replaces a lost disk without an operator. The old disk, started again, detects
// that it was replaced and stops. It must not remain a candidate forever.
func TestReplacement_OldDiskStarts_NodeStops(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	m := c.Follower()
	m.Stop()
	data, old := filepath.Join(m.Dir, "data"), filepath.Join(t.TempDir(), "old")
	if err := os.Rename(data, old); err != nil {
		t.Fatal(err)
	}
	m.Start()
	c.WaitReady()
	c.Until("only the new instance votes", func() bool {
		ms := members(t, c)
		all, err := c.Leader().Node.Members(t.Context())
		return err == nil && len(all) == 3 && len(ms) == 3 && ms[m.ID].Voter
	})
	m.Stop()
	m.Wipe()
	if err := os.Rename(old, data); err != nil {
		t.Fatal(err)
	}
	m.Start()
	wantEnd(t, m.Node, revoked.ErrForbidden, "another data directory has replaced this one of node "+m.ID)
	m.Stop()
	if err := m.TryStart(); err == nil || !strings.Contains(err.Error(), "--rejoin") {
		t.Errorf("start after the end: got %v, want it to mention --rejoin", err)
	}
}

// wantEnd waits until a node has stopped by itself.
func wantEnd(t *testing.T, n *node.Node, want error, text string) {
	t.Helper()
	select {
	case <-n.Done():
	case <-time.After(nodetest.LongStop):
		t.Fatalf("got the node running, want it stopped: %s", text)
	}
	if err := n.Err(); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v: %s", err, want, text)
	}
}

// secondDirectory opens a node with the certificate of conf, an empty directory and another
// address.
func secondDirectory(t *testing.T, conf node.Config) *node.Node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf.DataDir, conf.Listener, conf.ClusterAdvertise = t.TempDir()+"/data", listener, ""
	conf.Registerer, conf.Join, conf.BootstrapExpect = prometheus.NewRegistry(), nil, 0
	n, err := node.Open(context.Background(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(context.Background()) })
	return n
}

// patient makes a node count the others as alive through a pause of six seconds.
func patient(conf *node.Config) {
	conf.HeartbeatTimeout, conf.ElectionTimeout = 2*time.Second, 2*time.Second
}

// A second directory with the certificate of a live member is refused. The leader gets no reports
// of itself, and still counts as alive.
func TestSecondDirectory_NameAlive_IsRefused(t *testing.T) {
	t.Parallel()
	confs := make([]node.Config, 3)
	c := nodetest.Start(t, nodetest.Options{Node: func(k int, conf *node.Config) {
		patient(conf)
		confs[k] = *conf
	}})
	for name, pick := range map[string]func() *nodetest.Member{"leader": c.Leader, "follower": c.Follower} {
		t.Run(name, func(t *testing.T) {
			m := pick()
			second := secondDirectory(t, confs[slices.Index(c.Members, m)])
			var addresses []string
			for _, o := range c.Members {
				addresses = append(addresses, o.ClusterAddr())
			}
			c.Until("the cluster decides", func() bool {
				_, err := second.Join(t.Context(), addresses)
				if errors.Is(err, revoked.ErrNoLeader) || errors.Is(err, revoked.ErrOutcomeUnknown) { // a new leader
					return false
				}
				if !errors.Is(err, revoked.ErrConflict) || !strings.Contains(err.Error(), "two nodes must not share a node_id") {
					t.Errorf("got %v, want %v", err, revoked.ErrConflict)
				}
				return true
			})
		})
	}
	if ms, err := c.Leader().Node.Members(t.Context()); err != nil || len(ms) != 3 {
		t.Errorf("got %d members, %v, want 3", len(ms), err)
	}
}

// Made-up instances of one silent node do not accumulate in the configuration.
func TestSecondDirectory_ManyInstances_OneWaits(t *testing.T) {
	t.Parallel()
	confs := make([]node.Config, 3)
	c := nodetest.Start(t, nodetest.Options{Node: func(k int, conf *node.Config) { confs[k] = *conf }})
	m := c.Follower()
	conf := confs[slices.Index(c.Members, m)]
	m.Stop()
	leader := c.Leader()
	c.Until("the leader misses the node", func() bool { return !members(t, c)[m.ID].Alive })
	added := time.Now() // not later than the newest instance was added
	first := secondDirectory(t, conf)
	c.Until("a first instance joins", func() bool {
		_, err := first.Join(t.Context(), []string{leader.ClusterAddr()})
		return err == nil || errors.Is(err, revoked.ErrAlreadyMember)
	})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		next := secondDirectory(t, conf)
		began := time.Now()
		if _, err := next.Join(t.Context(), []string{leader.ClusterAddr()}); err == nil {
			if time.Since(added) < 10*time.Second { // the first one has this long to report
				t.Error("another instance immediately: got admitted, want refused")
			}
			added = began
		}
		_ = next.Close(t.Context())
		ms, err := c.Leader().Node.Members(t.Context())
		if err != nil || len(ms) > 4 {
			t.Errorf("got %d members, %v, want at most 4", len(ms), err)
		}
	}
}
