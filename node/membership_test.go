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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm/command"
	"revoked/node"
	"revoked/node/nodetest"
)

// joinNew adds a node to the cluster.
func joinNew(t *testing.T, c *nodetest.Cluster) *nodetest.Member {
	t.Helper()
	m := c.Add()
	m.Start()
	c.Admit(m)
	mustJoin(t, m, c.Members[0])
	return m
}

func join(m, through *nodetest.Member) nodetest.Reply {
	return m.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, through.ClusterAddr()))
}

// decidedJoin retries a join until a leader that has all reports has decided.
func decidedJoin(m, through *nodetest.Member) nodetest.Reply {
	return m.Decided(func() nodetest.Reply {
		r := join(m, through)
		for _, early := range []string{"no cluster could be joined", "has not reported", "does not support this operation"} {
			if r.Status == http.StatusUnprocessableEntity && strings.Contains(r.Body, early) {
				r.Status = http.StatusServiceUnavailable // so that it is retried
			}
		}
		return r
	})
}

func mustJoin(t *testing.T, m, through *nodetest.Member) {
	t.Helper()
	if r := decidedJoin(m, through); r.Status != http.StatusOK && r.Status != http.StatusConflict { // the answer was lost
		t.Fatalf("join of %s: got %d %s, want 200", m.ID, r.Status, r.Body)
	}
}

func revoke(t *testing.T, m *nodetest.Member, token string) {
	t.Helper()
	r := m.Decided(func() nodetest.Reply { return m.Form("/oauth2/revoke", "app", url.Values{"token": {token}}) })
	if r.Status != http.StatusOK {
		t.Fatalf("revoke: got %d %s, want 200", r.Status, r.Body)
	}
}

// members returns the leader's view by node id.
func members(t *testing.T, c *nodetest.Cluster) map[string]revoked.Member {
	t.Helper()
	ms, err := c.Leader().Node.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]revoked.Member{}
	for _, m := range ms {
		byID[m.NodeID] = m
	}
	return byID
}

func TestMember_NewAddress_IsAnnounced(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	m := c.Follower()
	m.Stop()
	m.Move()
	m.Start()
	c.WaitReady()
	c.Until("the new address is known", func() bool {
		o := members(t, c)[m.ID]
		return o.Cluster == m.ClusterAddr() && o.Voter
	})
	if got := len(members(t, c)); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
}

// A node that shuts down cleanly does not delay revocations, even under the next leader.
func TestStop_CleanShutdown_ReturnsLease(t *testing.T) {
	t.Parallel()
	for name, pick := range map[string]func(*nodetest.Cluster) *nodetest.Member{
		"follower": (*nodetest.Cluster).Follower, "leader": (*nodetest.Cluster).Leader,
	} {
		t.Run(name, func(t *testing.T) {
			// A node tries to return its lease for one heartbeat timeout, which may not suffice on a
			// busy machine. Then the next node tries.
			settings := revoked.DefaultSettings()
			settings.LeaseDuration = 10 * time.Second
			c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
				patient(conf)
				conf.Defaults = settings
			}})
			c.Until("the stopped node holds no lease", func() bool {
				m := pick(c)
				m.Stop()
				if members(t, c)[m.ID].LeaseLeft == 0 {
					return true
				}
				m.Start()
				c.WaitReady()
				return false
			})
		})
	}
}

// When Raft stops, it leaves entries in the queue of the state machine and never answers their
// futures. It picks at random whether to apply the next entry or to stop, hence many entries.
func TestStop_EntriesNotApplied_Ends(t *testing.T) {
	t.Parallel()
	var state sync.Mutex
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(_ int, conf *node.Config) { conf.StallState(&state) }})
	n := c.Leader().Node
	committed := func() uint64 { return n.NodeStatus(t.Context()).CommitIndex }
	var start uint64
	c.Until("every committed entry is applied", func() bool {
		state.Lock()
		if start = committed(); start == n.Applied() {
			return true
		}
		state.Unlock()
		return false
	})
	resume := sync.OnceFunc(state.Unlock)
	t.Cleanup(resume)
	const ticks = 32
	for range ticks {
		before := committed()
		if err := n.ApplyTick(); err != nil {
			t.Fatal(err)
		}
		c.Until("a tick is committed", func() bool { return committed() > before })
	}
	proposed := make(chan error, 1)
	go func() {
		proposed <- n.ProposeHere(context.Background(), command.BarNodeOp(revoked.Actor{}, "other", "test"))
	}()
	c.Until("the proposal, or a tick of the node before it, is committed",
		func() bool { return committed() > start+ticks })
	closed := make(chan error, 1)
	go func() { closed <- n.Close(context.Background()) }()
	c.Until("Raft stops", func() bool { return n.NodeStatus(t.Context()).State == "shutdown" })
	resume()
	for what, end := range map[string]chan error{"the proposal": proposed, "Close": closed} {
		select {
		case <-end:
		case <-time.After(nodetest.LongStop):
			t.Fatalf("%s did not end after Raft has stopped", what)
		}
	}
}

func TestMembers_AllMoved_Get503UntilMovedBack(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	valid, _ := register(t, c.Members[0], "valid")
	ended, _ := register(t, c.Members[1], "ended")
	revoke(t, c.Members[2], ended)
	restart := func(move func(*nodetest.Member)) {
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
	restart(func(m *nodetest.Member) { backs = append(backs, m.Move()) })
	var wg sync.WaitGroup
	for _, m := range c.Members {
		wg.Go(func() {
			r := m.Form("/oauth2/introspect", "resource_server", url.Values{"token": {valid}})
			if r.Status != http.StatusServiceUnavailable {
				t.Errorf("%s at its new address: got %d %s, want 503", m.ID, r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	restart(func(*nodetest.Member) { backs[0](); backs = backs[1:] })
	c.WaitReady()
	for _, m := range c.Members {
		if got := isActive(t, m, "resource_server", valid); !got {
			t.Errorf("valid token on %s at its old address: got inactive, want active", m.ID)
		}
		if got := isActive(t, m, "resource_server", ended); got {
			t.Errorf("revoked token on %s at its old address: got active, want inactive", m.ID)
		}
	}
}

// A copy of a data directory that runs elsewhere could vote in addition to the member.
func TestDuplicateIdentity_Copy_Stops(t *testing.T) {
	t.Parallel()
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
	duplicate, err := node.Open(context.Background(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer duplicate.Close(context.Background())
	select {
	case <-duplicate.Done():
	case <-time.After(nodetest.LongStop):
		t.Fatal("copy of the member's directory: got running, want stopped")
	}
	if err := duplicate.Err(); !errors.Is(err, revoked.ErrConflict) {
		t.Errorf("got %v, want %v", err, revoked.ErrConflict)
	}
	if got := members(t, c)[m.ID].Cluster; got != m.ClusterAddr() {
		t.Errorf("address of the member: got %s, want %s", got, m.ClusterAddr())
	}
}

func TestNonVoter_Serves_IsNotPromoted(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) { conf.NonVoter = k == 1 }})
	replica := joinNew(t, c)
	third := joinNew(t, c)
	c.Until("the third node votes", func() bool { return members(t, c)[third.ID].Voter })
	c.WaitReady()
	valid, _ := register(t, replica, "valid")
	for _, m := range c.Members {
		if !isActive(t, m, "resource_server", valid) {
			t.Errorf("valid token on %s: got inactive, want active", m.ID)
		}
	}
	if members(t, c)[replica.ID].Voter {
		t.Error("node with non_voter: got a voter, want a replica")
	}
}

func TestJoin_OtherCA_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	other := nodetest.Start(t, nodetest.Options{Nodes: 1}).Add()
	other.Start()
	r := join(other, c.Members[0])
	if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, "no cluster could be joined") {
		t.Errorf("got %d %s, want 422", r.Status, r.Body)
	}
}

// A node that lost its disk has also lost entries and votes. If the new instance at its address
// answered for the old one, the two followers here would elect a leader without the revocation.
func TestNewInstance_OldVote_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	ended, _ := register(t, c.Members[0], "ended")
	c.Until("the token is active on every node", func() bool {
		return !slices.ContainsFunc(c.Members, func(m *nodetest.Member) bool {
			return !isActive(t, m, "resource_server",
				ended)
		})
	})
	late := c.Follower()
	late.Stop()
	leader := c.Leader()
	revoke(t, leader, ended)
	wiped := c.Members[slices.IndexFunc(c.Members, func(m *nodetest.Member) bool { return m != leader && m != late })]
	wiped.Stop()
	leader.Stop()
	wiped.Wipe()
	wiped.Start()
	late.Start()
	c.Until("the new instance has refused three connections", func() bool {
		if late.Node.Readiness(t.Context()).CanAnswer || late.Node.NodeStatus(t.Context()).Leader.NodeID != "" {
			t.Fatal("got a leader without the revocation, want none")
		}
		return refusals(t, wiped, "another_instance") >= 3
	})
	leader.Start()
	c.WaitReady()
	for _, m := range c.Members {
		if isActive(t, m, "resource_server", ended) {
			t.Errorf("revoked token on %s: got active, want inactive", m.ID)
		}
	}
	c.Until("the new instance has replaced the old one", func() bool {
		ms, err := c.Leader().Node.Members(t.Context())
		return err == nil && len(ms) == 3 && !slices.ContainsFunc(ms, func(m revoked.Member) bool { return !m.Voter })
	})
}

// refusals counts the peer connections that a node refused for a reason.
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

// Only the leader has series about the voters. They change when a voter stops and when it comes
// back.
func TestVotingMetrics_VoterStopped_CountsOneLess(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	c.Until("all voters are up", func() bool { return votingOf(t, c) == "up 3 of 3, 1 node and 0 regions may fail" })
	down := c.Follower()
	down.Stop()
	c.Until("a voter is down", func() bool { return votingOf(t, c) == "up 2 of 3, 0 node and 0 regions may fail" })
	down.Start()
	c.Until("the voter is back", func() bool { return votingOf(t, c) == "up 3 of 3, 1 node and 0 regions may fail" })
	for _, m := range c.Members {
		text := strings.Join(votingSeries(t, m), " ")
		if isLeader := m == c.Leader(); isLeader != strings.Contains(text, "revoked_voters{region1}") {
			t.Errorf("%s, leader %t: got the series %q", m.ID, isLeader, text)
		}
	}
}

// votingOf describes the series of the leader. It returns "" without a leader.
func votingOf(t *testing.T, c *nodetest.Cluster) string {
	t.Helper()
	sum := map[string]float64{}
	for _, s := range votingSeries(t, c.Leader()) {
		name, value, _ := strings.Cut(s, " ")
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum[name] += v
	}
	return fmt.Sprintf("up %v of %v, %v node and %v regions may fail", sum["revoked_voters_up"], sum["revoked_voters"],
		sum["revoked_failure_tolerance"], sum["revoked_region_failure_tolerance"])
}

// votingSeries returns the series of a node about the voters, such as "revoked_voters{region1} 2".
func votingSeries(t *testing.T, m *nodetest.Member) []string {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "revoked_voters") && !strings.HasSuffix(name, "failure_tolerance") {
			continue
		}
		for _, x := range f.GetMetric() {
			label := ""
			if len(x.GetLabel()) > 0 {
				label = "{" + x.GetLabel()[0].GetValue() + "}"
			}
			out = append(out, fmt.Sprint(name, label, " ", x.GetGauge().GetValue()))
		}
	}
	return out
}
