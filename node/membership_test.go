package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// join makes a new member and waits until it votes.
func join(t *testing.T, c *nodetest.Cluster, voters int) *nodetest.Member {
	t.Helper()
	m := c.Add()
	m.Start()
	if r := m.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr())); r.Status != 200 {
		t.Fatalf("join: got %d %s, want 200", r.Status, r.Body)
	}
	waitVoters(c, voters)
	return m
}

func waitVoters(c *nodetest.Cluster, want int) {
	c.T.Helper()
	c.Until(fmt.Sprintf("%d members vote", want), func() bool {
		return c.Leader().Node.NodeStatus(context.Background()).Voters == want
	})
}

func TestANodeWithAnEmptyDiskComesBackAsANewInstance(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	dead, _ := register(t, c.Members[0], "dead")
	if r := c.Members[0].Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	m := c.Follower()
	m.Stop()
	m.Wipe()
	m.Start()
	c.WaitReady()
	c.Until("the old instance is gone and the new one votes", func() bool {
		ms, err := c.Leader().Node.Members(context.Background())
		if err != nil || len(ms) != 3 {
			return false
		}
		for _, o := range ms {
			if !o.Voter {
				return false
			}
		}
		return true
	})
	if isActive(t, m, "resource_server", dead) {
		t.Error("the new instance brought a revoked token back")
	}
}

func TestAMemberMayChangeItsAddress(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	m := c.Follower()
	m.Stop()
	m.Move()
	m.Start()
	c.WaitReady()
	c.Until("the new address is known", func() bool {
		ms, err := c.Leader().Node.Members(context.Background())
		if err != nil {
			return false
		}
		for _, o := range ms {
			if o.NodeID == m.ID {
				return o.Cluster == m.ClusterAddr() && o.Voter
			}
		}
		return false
	})
	if n := len(must(c.Leader().Node.Members(context.Background()))); n != 3 {
		t.Errorf("members: got %d, want 3: an address is not an identity", n)
	}
}

// Who stops in order is waited for by nobody, not even by whoever leads in its place.
func TestWhoStopsInOrderGivesItsLeaseBack(t *testing.T) {
	for name, who := range map[string]func(*nodetest.Cluster) *nodetest.Member{
		"a follower": (*nodetest.Cluster).Follower, "the leader": (*nodetest.Cluster).Leader,
	} {
		t.Run(name, func(t *testing.T) {
			// It gives back as well as it can within its heartbeat timeout: enough for a busy machine.
			c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
				conf.HeartbeatTimeout, conf.ElectionTimeout = 2*time.Second, 2*time.Second
			}})
			m := who(c)
			m.Stop()
			for _, o := range must(c.Leader().Node.Members(context.Background())) {
				if o.NodeID == m.ID && o.LeaseLeftMS != 0 {
					t.Errorf("%s has stopped and is waited for: its lease has %d ms left", m.ID, o.LeaseLeftMS)
				}
			}
		})
	}
}

// A majority that moves at once finds itself no more: it says nothing until it has its old addresses back, and then it
// has lost nothing.
func TestAllMembersMoveAtOnce(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	live, _ := register(t, c.Members[0], "live")
	dead, _ := register(t, c.Members[1], "dead")
	if r := c.Members[2].Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	turn := func(move func(*nodetest.Member)) {
		for _, m := range c.Members {
			m.Stop()
		}
		for _, m := range c.Members {
			move(m)
		}
		for _, m := range c.Members {
			m.Start()
		}
	}
	var backs []func()
	turn(func(m *nodetest.Member) { backs = append(backs, m.Move()) })
	var asked sync.WaitGroup
	for _, m := range c.Members {
		asked.Go(func() {
			if r := m.Form("/oauth2/introspect", "resource_server", url.Values{"token": {live}}); r.Status != 503 {
				t.Errorf("%s at a new address among new addresses: got %d %s, want 503", m.ID, r.Status, r.Body)
			}
		})
	}
	asked.Wait()
	turn(func(*nodetest.Member) { backs[0](); backs = backs[1:] })
	c.WaitReady()
	for _, m := range c.Members {
		if !isActive(t, m, "resource_server", live) || isActive(t, m, "resource_server", dead) {
			t.Errorf("%s at its old address: want the live token active and the dead one not", m.ID)
		}
	}
}

// Nobody calls on a node that was removed while it was away: it must ask, or it would stand for election
// for ever.
func TestWhoWasRemovedWhileAwayEnds(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 4})
	m := c.Follower()
	m.Stop()
	leader := c.Leader()
	c.Until("the removal is done", func() bool {
		return leader.JSON(http.MethodPost, "/v1/cluster/remove", "admin", fmt.Sprintf(`{"node":%q,"force":true,"reason":"away"}`, m.ID)).Status == http.StatusOK
	})
	leader.Restart() // whoever leads now has never called on it
	c.WaitReady()
	m.Start()
	select {
	case <-m.Node.Done():
	case <-time.After(nodetest.LongStop):
		t.Fatal("it runs on")
	}
	if err := m.Node.Err(); !errors.Is(err, revoked.ErrForbidden) || !strings.Contains(err.Error(), "was removed from its cluster") {
		t.Errorf("got %v, want it to say that it was removed", err)
	}
	m.Stop()
	if err := m.TryStart(); err == nil {
		t.Error("it starts again")
	}
}

// A copy of a member's data directory that starts elsewhere while the member runs could vote beside it: it ends.
func TestACopyOfAMemberEnds(t *testing.T) {
	confs := make([]node.Config, 3)
	c := nodetest.Start(t, nodetest.Options{Node: func(k int, conf *node.Config) { confs[k] = *conf }})
	k := slices.Index(c.Members, c.Follower())
	m := c.Members[k]
	m.Stop()
	conf := confs[k]
	copied := t.TempDir() + "/data"
	if err := os.CopyFS(copied, os.DirFS(conf.DataDir)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	c.WaitReady()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf.DataDir, conf.Listener, conf.ClusterAdvertise, conf.Registerer = copied, listener, "", prometheus.NewRegistry()
	twin, err := node.Open(context.Background(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close(context.Background())
	select {
	case <-twin.Done():
	case <-time.After(nodetest.LongStop):
		t.Fatal("the copy runs beside the member")
	}
	if err := twin.Err(); !errors.Is(err, revoked.ErrConflict) { // with the member, or with what the member had applied since
		t.Errorf("got %v, want a conflict", err)
	}
	for _, o := range must(c.Leader().Node.Members(context.Background())) {
		if o.NodeID == m.ID && o.Cluster != m.ClusterAddr() {
			t.Errorf("the member is looked for at %s, the copy's address", o.Cluster)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestANonVoterByChoiceAnswersAndIsNotPromoted(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) { conf.NonVoter = k == 1 }})
	replica := c.Add()
	replica.Start()
	if r := replica.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr())); r.Status != 200 {
		t.Fatalf("join: got %d %s", r.Status, r.Body)
	}
	third := join(t, c, 2)
	c.WaitReady()
	live, _ := register(t, replica, "live")
	for _, m := range []*nodetest.Member{c.Members[0], replica, third} {
		if !isActive(t, m, "resource_server", live) {
			t.Errorf("%s says inactive of a live token", m.ID)
		}
	}
	for _, m := range must(c.Leader().Node.Members(context.Background())) {
		if m.NodeID == replica.ID && m.Voter {
			t.Error("a node that chose not to vote was promoted")
		}
	}
}

func TestANodeOfNoClusterSaysSoAtOnce(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	lonely := c.Add()
	lonely.Start()
	for path, body := range map[string]string{"/leave": `{}`, "/remove": `{"node":"x"}`, "/transfer-leader": `{}`} {
		r := lonely.JSON(http.MethodPost, "/v1/cluster"+path, "admin", body)
		if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, "belongs to no cluster") {
			t.Errorf("%s: got %d %s, want 422 and why", path, r.Status, r.Body)
		}
	}
}

func TestAForeignClusterIsRefused(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	stranger := c.Add()
	stranger.Start()
	if r := stranger.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr())); r.Status != 200 {
		t.Fatalf("join: got %d %s", r.Status, r.Body)
	}
	waitVoters(c, 2)
	if r := stranger.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr())); r.Status != http.StatusConflict {
		t.Errorf("join of a member: got %d %s, want 409", r.Status, r.Body)
	}
	other := nodetest.Start(t, nodetest.Options{Nodes: 1})
	lonely := other.Add()
	lonely.Start()
	// Another CA: its handshake is refused, and the answer says that no cluster could be joined.
	r := lonely.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr()))
	if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, "no cluster could be joined") {
		t.Errorf("join of a cluster with another CA: got %d %s, want 422", r.Status, r.Body)
	}
}

func TestRemovalsThatWouldLoseQuorumAreRefused(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	down, leader := c.Follower(), c.Leader()
	down.Stop()
	var up *nodetest.Member
	for _, m := range c.Members {
		if m != down && m != leader {
			up = m
		}
	}
	c.Until("the leader knows that it is down", func() bool {
		for _, m := range must(leader.Node.Members(context.Background())) {
			if m.NodeID == down.ID {
				return !m.Alive
			}
		}
		return false
	})
	if r := leader.JSON(http.MethodPost, "/v1/cluster/remove", "admin", fmt.Sprintf(`{"node":%q}`, up.ID)); r.Status != http.StatusConflict {
		t.Errorf("removing a live voter while another is down: got %d %s, want 409", r.Status, r.Body)
	}
	if r := up.JSON(http.MethodPost, "/v1/cluster/leave", "admin", `{}`); r.Status != http.StatusConflict || !strings.Contains(r.Body, "stop this node instead") {
		t.Errorf("a live voter leaves while another is down: got %d %s, want 409 and what to do", r.Status, r.Body)
	}
	if r := leader.JSON(http.MethodPost, "/v1/cluster/remove", "admin", fmt.Sprintf(`{"node":%q}`, "nobody")); r.Status != http.StatusNotFound {
		t.Errorf("removing nobody: got %d %s, want 404", r.Status, r.Body)
	}
	if r := up.JSON(http.MethodPost, "/v1/cluster/remove", "admin", fmt.Sprintf(`{"node":%q}`, down.ID)); r.Status != 200 {
		t.Errorf("removing the one that is down, through a follower: got %d %s, want 200", r.Status, r.Body)
	}
	waitVoters(c, 2)
	down.Start()
	<-down.Node.Done()
	if err := down.Node.Err(); err == nil || !strings.Contains(err.Error(), "--rejoin") {
		t.Errorf("a removed node that comes back: got %v, want an error that names --rejoin", err)
	}
	down.Stop()
	if r := leader.JSON(http.MethodPost, "/v1/cluster/remove", "admin", fmt.Sprintf(`{"node":%q,"force":true}`, up.ID)); r.Status != http.StatusUnprocessableEntity {
		t.Errorf("a forced removal without a reason: got %d %s, want 422", r.Status, r.Body)
	}
}

func TestLeadershipGoesWhereItIsSent(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	target := c.Follower()
	if r := target.JSON(http.MethodPost, "/v1/cluster/transfer-leader", "admin", fmt.Sprintf(`{"node":%q}`, target.ID)); r.Status != 200 {
		t.Fatalf("transfer: got %d %s, want 200", r.Status, r.Body)
	}
	c.Until("the target leads", func() bool { return c.Leader() == target })
	live, _ := register(t, target, "live")
	if r := c.Follower().Form("/oauth2/revoke", "app", url.Values{"token": {live}}); r.Status != 200 {
		t.Errorf("revoke after a transfer: got %d %s", r.Status, r.Body)
	}
}

// A node that lost its disk has forgotten what it stored and whom it voted for. Its successor at the same
// address must not speak for it: with the one other member that has an acknowledged revocation away, it would
// elect a leader that lacks it.
func TestANewInstanceDoesNotVoteForTheOneItReplaces(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	dead, _ := register(t, c.Members[0], "dead")
	c.Until("it is active everywhere", func() bool {
		return !slices.ContainsFunc(c.Members, func(m *nodetest.Member) bool { return !isActive(t, m, "resource_server", dead) })
	})
	late := c.Follower()
	late.Stop()
	leader := c.Leader()
	if r := leader.Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	var wiped *nodetest.Member
	for _, m := range c.Members {
		if m != leader && m != late {
			wiped = m
		}
	}
	wiped.Stop()
	leader.Stop()
	wiped.Wipe()
	wiped.Start()
	late.Start()
	c.Until("the new instance has been asked for the old one's vote a few times, and refused", func() bool {
		if late.Node.Readiness(context.Background()).CanAnswer || late.Node.NodeStatus(context.Background()).Leader.NodeID != "" {
			t.Fatal("a leader was elected by a member that has forgotten the revocation")
		}
		return refusals(t, wiped, "another_instance") >= 3
	})
	leader.Start()
	c.WaitReady()
	for _, m := range c.Members {
		if isActive(t, m, "resource_server", dead) {
			t.Errorf("%s brought a revoked token back", m.ID)
		}
	}
	c.Until("the new instance has taken the old one's place", func() bool {
		ms, err := c.Leader().Node.Members(context.Background())
		return err == nil && len(ms) == 3 && !slices.ContainsFunc(ms, func(m revoked.Member) bool { return !m.Voter })
	})
}

// refusals is how many connections of peers a node has refused for a reason.
func refusals(t *testing.T, m *nodetest.Member, reason string) float64 {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, x := range f.GetMetric() {
			if f.GetName() == "revoked_peer_refused_total" && x.GetLabel()[0].GetValue() == reason {
				return x.GetCounter().GetValue()
			}
		}
	}
	return 0
}
