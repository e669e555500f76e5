//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A partition is a failure of the network between a leader and two followers.
type partition struct {
	name  string
	drops func(leader, a, b *member) []drop
	hold  func(w *network, leader, a, b *member) // on the links
	// silent returns the nodes that must stop answering, nil for none. The others must continue.
	silent func(leader, a, b *member) []*member
}

func partitions() []partition {
	group := func(m ...*member) []*member { return m }
	theLeader := func(leader, _, _ *member) []*member { return group(leader) }
	follower := func(_, a, _ *member) []*member { return group(a) }
	return []partition{
		{name: "the leader is cut off both ways",
			drops: func(l, a, b *member) []drop { return both(group(l), group(a, b)) }, silent: theLeader},
		{name: "a follower is cut off both ways",
			drops: func(l, a, b *member) []drop { return both(group(a), group(l, b)) }, silent: follower},
		{name: "the leader can send but not receive",
			drops: func(l, a, b *member) []drop { return from(group(a, b), group(l)) }, silent: theLeader},
		{name: "the leader can receive but not send",
			drops: func(l, a, b *member) []drop { return from(group(l), group(a, b)) }, silent: theLeader},
		{name: "a follower can send but not receive",
			drops: func(l, a, b *member) []drop { return from(group(l, b), group(a)) }, silent: follower},
		{name: "a follower can receive but not send",
			drops: func(l, a, b *member) []drop { return from(group(a), group(l, b)) }, silent: follower},
		{name: "the leader and a follower cannot talk, a third reaches both",
			drops: func(l, a, _ *member) []drop { return both(group(l), group(a)) }, silent: follower},
		{name: "the followers cannot talk to each other",
			drops: func(_, a, b *member) []drop { return both(group(a), group(b)) }},
		{name: "the cluster port of a follower is cut, API and gossip work", silent: follower,
			drops: func(l, a, b *member) []drop {
				return []drop{
					{a, "tcp dport " + portOf(a.Cluster)},
					{a, fmt.Sprintf("tcp sport { %s, %s }", portOf(l.Cluster), portOf(b.Cluster))},
				}
			}},
		{name: "gossip is cut everywhere", drops: func(l, a, b *member) []drop {
			ports := fmt.Sprintf("{ %s, %s, %s }", portOf(l.Gossip), portOf(a.Gossip), portOf(b.Gossip))
			var drops []drop
			for _, m := range group(l, a, b) {
				drops = append(drops, drop{m, "udp dport " + ports}, drop{m, "tcp dport " + ports}, drop{m, "tcp sport " + ports})
			}
			return drops
		}},
		{name: "a tenth of all packets between nodes is lost", drops: func(l, a, b *member) []drop {
			var drops []drop
			for _, m := range group(l, a, b) {
				drops = append(drops, drop{m, "ip saddr != " + networkAddress + "254 numgen random mod 10 == 0"})
			}
			return drops
		}},
	}
}

// linkPartitions are for a network with links.
func linkPartitions() []partition {
	group := func(m ...*member) []*member { return m }
	// between cuts one protocol between a node and others in both directions.
	between := func(w *network, protocol string, m *member, others ...*member) {
		for _, o := range others {
			w.link(m, o).cut(protocol, true, true)
			w.link(o, m).cut(protocol, true, true)
		}
	}
	theLeader := func(leader, _, _ *member) []*member { return group(leader) }
	follower := func(_, a, _ *member) []*member { return group(a) }
	return []partition{
		{name: "only Raft is cut at a follower", silent: follower,
			hold: func(w *network, l, a, b *member) { between(w, raftStreams, a, l, b) }},
		{name: "only Raft is cut at the leader", silent: theLeader,
			hold: func(w *network, l, a, b *member) { between(w, raftStreams, l, a, b) }},
		{name: "only Raft is cut from the leader to a follower, one way", silent: follower,
			hold: func(w *network, l, a, _ *member) {
				w.link(l, a).cut(raftStreams, true, false)
				w.link(a, l).cut(raftStreams, false, true)
			}},
		{name: "only calls are cut at a follower", silent: follower,
			hold: func(w *network, l, a, b *member) { between(w, nodeCalls, a, l, b) }},
		{name: "only calls are cut at the leader", silent: func(_, a, b *member) []*member { return group(a, b) },
			hold: func(w *network, l, a, b *member) { between(w, nodeCalls, l, a, b) }},
		{name: "a follower's calls go out and no answer comes back", silent: follower,
			hold: func(w *network, l, a, b *member) {
				w.link(a, l).cut(nodeCalls, false, true)
				w.link(a, b).cut(nodeCalls, false, true)
			}},
		{name: "every connection breaks repeatedly",
			hold: func(w *network, l, a, b *member) {
				for range 10 {
					for _, k := range w.links {
						k.reset("")
					}
					w.mustRevoke(w.t, a, "revoked-among-resets")
				}
			}},
		{name: "50 ms delay and as much jitter on every link",
			hold: func(w *network, l, a, b *member) {
				w.delayBetween(l, a, 50*time.Millisecond, 50*time.Millisecond)
				w.delayBetween(l, b, 50*time.Millisecond, 50*time.Millisecond)
				w.delayBetween(a, b, 50*time.Millisecond, 50*time.Millisecond)
			}},
	}
}

// The network between the nodes fails. Nodes that cannot prove they are current answer 503, and the
// majority continues. During the failure and afterwards, no node answers active for a token with an
// acknowledged revocation.
func TestNetworkPartitions_MajorityContinues(t *testing.T) {
	t.Parallel() // see doc.go
	w := startNetwork(t, 3)
	w.runPartitions(t, partitions())
}

// The same holds if one protocol of the cluster port fails, and over slow or lossy links.
func TestLinkPartitions_MajorityContinues(t *testing.T) {
	t.Parallel() // see doc.go
	w := newNetwork(t, 3)
	w.putLinks(t)
	w.startAll(t)
	w.awaitReady(t, w.Nodes...)
	w.runPartitions(t, linkPartitions())
}

func (w *network) runPartitions(t *testing.T, partitions []partition) {
	t.Helper()
	l := startLoad(t, w.cluster, 4, 25)
	for i, p := range partitions {
		ok := t.Run(p.name, func(t *testing.T) {
			w.runPartition(t, l, fmt.Sprintf("cut-%d", i), p)
			l.check(t)
		})
		if !ok {
			break // the cut may still be active
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
	followers := w.without(leader)
	a, b := followers[0], followers[1]
	for _, grant := range []string{"dies", "lives", "doubtful"} {
		w.mustRegister(t, leader, name+grant, "alice", name+grant, name+grant+"-refresh")
	}
	w.wantActive(t, name+"dies", true, w.Nodes...) // every node caches it

	if p.drops != nil {
		w.cut(t, p.drops(leader, a, b))
	}
	if p.hold != nil {
		p.hold(w, leader, a, b)
	}
	going := w.Nodes
	if p.silent != nil {
		silent := p.silent(leader, a, b)
		going = w.without(silent...)
		w.mustRevoke(t, going[0], name+"dies")
		for _, m := range silent {
			w.checkSilent(t, m, name)
		}
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

// checkSilent checks a node that is cut off. After the acknowledgement it never answers active. It
// answers 503 if it cannot prove that it is current.
func (w *network) checkSilent(t *testing.T, m *member, name string) {
	t.Helper()
	if active, ok := w.introspect(m, "app", name+"dies").active(); ok && active {
		t.Fatalf("%s: got active after the acknowledged revocation, want inactive or 503", m.ID)
	}
	w.awaitNotReady(t, m)
	var requests sync.WaitGroup
	for what, ask := range map[string]func() answer{
		"introspection": func() answer { return w.introspect(m, "app", name+"lives") },
		"revocation":    func() answer { return w.revoke(m, "app", name+"doubtful") }, // a delayed call may arrive late
		"registration": func() answer {
			return w.register(m, name+"silent", "carol", name+"silent", name+"silent-refresh")
		},
	} {
		requests.Go(func() { // concurrently: each takes request_timeout
			a := ask()
			if err := a.want(http.StatusServiceUnavailable); err != nil {
				t.Errorf("%s at %s, cut off: %v", what, m.ID, err)
			} else if a.header.Get("Retry-After") == "" {
				t.Errorf("%s at %s: got 503 without Retry-After, want the header", what, m.ID)
			}
		})
	}
	requests.Wait()
}

// awaitAnswers waits until each node answers, from its lease or through the leader.
func (w *network) awaitAnswers(t *testing.T, nodes []*member, name string) {
	t.Helper()
	w.wantActive(t, name+"dies", false, nodes...)
	w.wantActive(t, name+"lives", true, nodes...)
}

// awaitWrites waits until the load has n more acknowledged revocations.
func awaitWrites(t *testing.T, l *load, n int64) {
	t.Helper()
	goal := l.revoked.Load() + n
	await(t, "the load to continue", func() error {
		l.check(t)
		if got := l.revoked.Load(); got < goal {
			return fmt.Errorf("%d revocations missing", goal-got)
		}
		return nil
	})
}

// awaitMembers waits until every node sees every other. It fails the test if a voter was removed:
// no failure of the network may do that.
func (w *network) awaitMembers(t *testing.T) {
	t.Helper()
	for _, m := range w.Nodes {
		await(t, "the members seen by "+m.ID, func() error {
			a := w.send(m, request{method: http.MethodGet, path: "/v1/members", as: "admin"})
			if err := a.want(http.StatusOK); err != nil {
				return err
			}
			var body struct {
				Members []struct {
					NodeID string `json:"node_id"`
					Voter  bool   `json:"voter"`
					Alive  bool   `json:"alive"`
				} `json:"members"`
			}
			if err := json.Unmarshal(a.body, &body); err != nil {
				return err
			}
			if len(body.Members) != len(w.Nodes) {
				return fmt.Errorf("%s", a.body)
			}
			for _, other := range body.Members {
				if !other.Voter {
					t.Errorf("%s: got %s as non-voter, want a voter", m.ID, other.NodeID)
				}
				if !other.Alive {
					return fmt.Errorf("%s is missing", other.NodeID)
				}
			}
			return nil
		})
	}
}
