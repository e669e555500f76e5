package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/retry"
)

// This file contains the faults of membership, leadership, snapshots and settings.

// settings changes the lease duration.
func (m *simNemesis) settings() {
	l := m.node().now()
	if l == nil {
		return
	}
	m.s.wg.Go(func() {
		st := l.n.Settings()
		st.LeaseDuration = m.span(time.Second, 3*time.Second)
		if _, index, err := l.n.UpdateSettings(m.ctx, l.actor("admin"), st); err == nil && !l.dead.Load() {
			m.s.o.acknowledgedAt(index)
			m.count("lease duration changes")
		}
	})
}

func (m *simNemesis) transfer() {
	n, to := m.leader(), m.node()
	if n == nil {
		return
	}
	for _, o := range m.s.nodes {
		if o.timeout > simTimeout && m.intn(2) == 0 { // the node whose timers fire late
			to = o
		}
	}
	l := n.now()
	m.s.wg.Go(func() {
		if _, err := l.n.TransferLeader(m.ctx, l.actor("admin"), to.id); err == nil && !l.dead.Load() && to != n {
			m.s.o.count.add("race: leadership transfer")
		}
	})
}

// snapshot makes a node take a snapshot and truncate its log, so that a node that is behind gets
// the state. It often cuts a node off first.
func (m *simNemesis) snapshot() {
	n := m.leader()
	if n == nil {
		return
	}
	l, far := n.now(), m.node()
	if l == nil {
		return
	}
	if far != n && far.now() != nil {
		m.kill(far)
	}
	m.s.wg.Go(func() {
		retry.Sleep(m.ctx, m.span(200*time.Millisecond, 2*time.Second))
		conf := l.n.raft.ReloadableConfig()
		conf.TrailingLogs = uint64(m.intn(3))
		if l.n.raft.ReloadConfig(conf) == nil && l.n.raft.Snapshot().Error() == nil {
			m.s.o.count.add("nemesis: snapshots")
		}
	})
}

// overtake sends a lease holder a snapshot with revocations that wait for this member. Its log ends
// before them, and the leader's log starts after them.
func (m *simNemesis) overtake() {
	n, far := m.leader(), m.node()
	if n == nil || n == far {
		return
	}
	l, h := n.now(), far.now()
	if l == nil || h == nil || h.frozen.Load() != nil || !h.n.leases.valid() {
		return
	}
	m.s.wg.Go(func() {
		heal := m.s.net.Cut(n.k, far.k)
		defer heal()
		m.count("cuts")
		for k := range 6 { // one at a time, so that each starts before the next
			if g := m.s.o.live(k); g != nil {
				m.s.wg.Go(func() { m.s.revokeAt(m.ctx, l, g, g.access) })
			}
			retry.Sleep(m.ctx, 30*time.Millisecond)
		}
		conf := l.n.raft.ReloadableConfig()
		conf.TrailingLogs = 0
		if l.n.raft.ReloadConfig(conf) == nil && l.n.raft.Snapshot().Error() == nil {
			m.count("snapshots to a lease holder")
		}
	})
}

// remove removes a node, which returns as a new instance with an empty disk.
func (m *simNemesis) remove() {
	n := m.node()
	l, by := n.now(), m.node().now()
	if l == nil || by == nil || by == l || !m.shrink() {
		return
	}
	m.s.wg.Go(func() {
		defer m.later(10*time.Second, m.shrunk) // the leader may still complete it
		m.delay(n)
		_, err := by.n.Remove(m.ctx, by.actor("admin"), n.id, true, "it is alive")
		m.note("remove %s: %v", n.id, err)
		if err != nil || by.dead.Load() { // the outcome is unknown: see strays
			return
		}
		m.count("removals")
		retry.Sleep(m.ctx, m.span(0, 3*time.Second))
		n.crashForGood()
		retry.Sleep(m.ctx, m.span(100*time.Millisecond, 2*time.Second))
		m.revive(n)
		m.delay(n)
	})
}

// shrink starts a removal, unless a voter that lost its disk is not replaced yet. Losing another
// voter would lose quorum permanently.
func (m *simNemesis) shrink() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.s.o.isMember(m.lost) {
		return false
	}
	m.removing++
	return true
}

func (m *simNemesis) shrunk() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removing--
}

// lose records that a disk is about to be lost, unless a removal is in progress.
func (m *simNemesis) lose(id raft.ServerID) bool { return m.loseInstead(id, id) }

// loseInstead is like lose, for a disk that is lost instead of the disk of another instance, which
// still runs.
func (m *simNemesis) loseInstead(id, other raft.ServerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.removing > 0 || m.lost != id && m.lost != other && m.s.o.isMember(m.lost) {
		return false
	}
	m.lost = id
	return true
}

// loseDisk empties a node's disk. The node returns as a new instance at the same address. All nodes
// are up, and an earlier instance that lost its disk has been replaced: two lost disks could lose
// quorum.
func (m *simNemesis) loseDisk() {
	n := m.node()
	if !m.isWhole() {
		return
	}
	victim := n.now()
	if victim == nil || !m.lose(victim.self) {
		return
	}
	m.note("%s loses its disk", n.id)
	m.count("lost disks")
	n.crashForGood()
	m.later(m.span(50*time.Millisecond, 5*time.Second), func() { m.revive(n) })
}

// isWhole reports whether every node is up and is a voter of a committed configuration.
func (m *simNemesis) isWhole() bool {
	lead := m.leader()
	if lead == nil {
		return false
	}
	l := lead.now()
	if l == nil || l.n.leadership.proposer() == nil {
		return false
	}
	f := l.n.raft.GetConfiguration()
	if f.Error() != nil || !isConfigurationCommitted(l) || len(f.Configuration().Servers) != len(m.s.nodes) {
		return false
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage != raft.Voter || m.s.lifeOf(s.ID) == nil {
			return false
		}
	}
	return true
}

// crashForGood ends the process. The node starts again only with an empty disk.
func (m *simNode) crashForGood() {
	m.mu.Lock()
	m.gone = true
	m.mu.Unlock()
	m.crash(false)
}

// pairUp stops a node for a while, as SIGSTOP would, and starts a second directory with the same
// certificate. If the second replaces the first, the first exits when it continues.
func (m *simNemesis) pairUp() {
	n := m.node()
	m.s.wg.Go(func() {
		for end := time.Now().Add(20 * time.Second); m.ctx.Err() == nil && time.Now().Before(end); {
			l := n.now()
			if l != nil && l.frozen.Load() == nil && n.twin.now() == nil && m.isWhole() && m.lose(l.self) {
				m.runTwin(n)
				return
			}
			retry.Sleep(m.ctx, 500*time.Millisecond)
		}
	})
}

func (m *simNemesis) runTwin(n *simNode) {
	m.count("twins")
	d := m.span(4*time.Second, 12*time.Second)
	m.holdFor(n, d)
	n.twin.start(true)
	retry.Sleep(m.ctx, d+m.span(time.Second, 8*time.Second))
	for m.ctx.Err() == nil && !m.endTwin(n) {
		retry.Sleep(m.ctx, time.Second)
	}
}

// endTwin ends a twin permanently, unless another disk is lost or a removal is in progress. If the
// twin had replaced the node, the node returns as a new instance.
func (m *simNemesis) endTwin(n *simNode) bool {
	twin := n.twin.now()
	if twin == nil {
		return true
	}
	first := n.now()
	if first != nil && first.frozen.Load() != nil {
		return false
	}
	survivor := twin.self
	if first != nil && m.s.o.isMember(first.self) {
		survivor = first.self // it continued before the twin could take its vote
	}
	replaced := m.s.o.isMember(twin.self)
	if replaced && (!m.canLose(twin.self) || !m.loseInstead(twin.self, survivor)) {
		return false
	}
	m.note("end of the twin of %s, a member: %v", n.id, replaced)
	n.twin.crashForGood()
	if l := n.now(); l != nil && m.s.o.isMember(l.self) {
		return true
	}
	if replaced {
		m.s.o.count.add("race: a second directory replaced its node")
		n.crashForGood()
		m.revive(n)
	}
	return true
}

// endTwins ends all twins, one after the other. A node with an unrecorded removal or demotion would
// keep them running.
func (m *simNemesis) endTwins() bool {
	for _, n := range m.s.nodes {
		if !m.s.until("the twin of "+n.id+" may end", time.Minute, func() bool {
			m.strays()
			return m.endTwin(n)
		}) {
			return false
		}
	}
	return true
}

// isConfigurationCommitted reports whether the log of a process has no uncommitted change of the
// configuration. The index that Raft gives with its configuration is always 0.
func isConfigurationCommitted(l *simLife) bool {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	return l.of.life == l && !l.of.disk.HasConfiguration(l.n.raft.CommitIndex()+1)
}

// canLose reports whether the voters without id that are up are a majority, according to a
// committed configuration. A node that was removed, replaced or demoted may not vote again yet.
func (m *simNemesis) canLose(id raft.ServerID) bool {
	l := m.leading()
	if l == nil {
		return false
	}
	f := l.n.raft.GetConfiguration()
	if f.Error() != nil || !isConfigurationCommitted(l) {
		return false
	}
	voters, others := 0, 0
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			if s.ID != id && m.s.lifeOf(s.ID) != nil {
				others++
			}
		}
	}
	return 2*others > voters
}

// leading returns the process that leads the highest term that any node or twin has, or nil.
func (m *simNemesis) leading() (lead *simLife) {
	var term uint64
	for _, n := range m.s.nodes {
		for _, p := range []*simNode{n, n.twin} {
			l := p.now()
			if l == nil || l.frozen.Load() != nil || l.n.raft.CurrentTerm() < term {
				continue
			}
			if t := l.n.raft.CurrentTerm(); t > term {
				lead, term = nil, t
			}
			if l.n.leadership.term() == term {
				lead = l
			}
		}
	}
	return lead
}

// strays restarts nodes as new instances if their removal succeeded although neither they nor the
// caller received the result. It promotes those whose demotion took effect late.
func (m *simNemesis) strays() {
	lead := m.leading()
	if lead == nil {
		return
	}
	conf, err := lead.n.roster.Configuration()
	if err != nil {
		return
	}
	members := serverIDs(conf)
	for _, o := range m.s.nodes {
		if l := o.now(); l != nil && !slices.Contains(members, string(l.self)) && m.s.o.wasMember(l.self) {
			m.note("%s is no longer a member", l.self)
			o.crashForGood()
			m.revive(o)
		}
		if a, _ := lead.n.fsm.Admission(o.id); a.NonVoter {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := lead.n.Promote(ctx, lead.actor("admin"), o.id)
			cancel()
			m.note("promote %s at the end: %v", o.id, err)
		}
	}
}

// demote demotes a voter, and promotes it again later.
func (m *simNemesis) demote() {
	n, by := m.node(), m.node().now()
	if by == nil || !m.shrink() {
		return
	}
	m.s.wg.Go(func() {
		defer m.shrunk()
		_, err := by.n.Demote(m.ctx, by.actor("admin"), n.id)
		m.note("demote %s: %v", n.id, err)
		if err == nil {
			m.count("demotions")
		}
		retry.Sleep(m.ctx, m.span(time.Second, 10*time.Second))
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			by := m.node().now()
			if by == nil {
				cancel()
				time.Sleep(time.Second)
				continue
			}
			_, err := by.n.Promote(ctx, by.actor("admin"), n.id)
			cancel()
			m.note("promote %s: %v", n.id, err)
			if err == nil || m.ctx.Err() != nil && errors.Is(err, revoked.ErrNotFound) || m.s.o.failed() {
				return
			}
			time.Sleep(time.Second)
		}
	})
}

// delay makes acknowledgements wait: it freezes a lease holder other than n under a stream of
// revocations.
func (m *simNemesis) delay(n *simNode) {
	var far *simNode
	for _, o := range m.s.nodes {
		if l := o.now(); o != n && l != nil && l.n.raft.State() != raft.Leader {
			far = o
		}
	}
	if far == nil {
		return
	}
	m.hold(far)
	m.s.wg.Go(func() {
		for range 20 {
			retry.Sleep(m.ctx, 100*time.Millisecond)
			l, g := m.node().now(), m.s.o.live(m.intn(4))
			if l != nil && g != nil && l.frozen.Load() == nil {
				m.s.wg.Go(func() { m.s.revokeAt(m.ctx, l, g, g.access) })
			}
		}
	})
}
