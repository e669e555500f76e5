package node

import (
	"time"

	"github.com/hashicorp/raft"
)

// What the nemesis does to membership, leadership, snapshots and settings.

// settings changes the length of the leases.
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
			m.count("changes of the lease's length")
		}
	})
}

func (m *simNemesis) transfer() {
	n, to := m.leader(), m.node()
	if n == nil {
		return
	}
	for _, o := range m.s.nodes {
		if o.timeout > simTimeout && m.intn(2) == 0 { // the one that would notice late that it was deposed
			to = o
		}
	}
	l := n.now()
	m.s.wg.Go(func() {
		if _, err := l.n.TransferLeader(m.ctx, to.id); err == nil && !l.dead.Load() && to != n {
			m.s.o.count.add("race: leadership transfer")
		}
	})
}

// snapshot has a node take one and keep nearly nothing of its log, so that whoever is behind gets the
// state; best while somebody is cut off.
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
		pause(m.ctx, m.span(200*time.Millisecond, 2*time.Second))
		conf := l.n.raft.ReloadableConfig()
		conf.TrailingLogs = uint64(m.intn(3))
		if l.n.raft.ReloadConfig(conf) == nil && l.n.raft.Snapshot().Error() == nil {
			m.s.o.count.add("nemesis: snapshots")
		}
	})
}

// overtake has a member that holds a lease get, as a snapshot, revocations that wait for just this member: its
// log ends before them, the leader's begins behind them.
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
		heal := m.s.net.cut(n.k, far.k)
		defer heal()
		m.count("cuts")
		for k := range 6 { // one by one: the first is under way already when the others follow
			if g := m.s.o.live(k); g != nil {
				m.s.wg.Go(func() { m.s.revokeAt(m.ctx, l, g, g.access) })
			}
			pause(m.ctx, 30*time.Millisecond)
		}
		conf := l.n.raft.ReloadableConfig()
		conf.TrailingLogs = 0
		if l.n.raft.ReloadConfig(conf) == nil && l.n.raft.Snapshot().Error() == nil {
			m.count("snapshots to who holds a lease")
		}
	})
}

// remove takes a node out; it comes back as a new instance with an empty disk.
func (m *simNemesis) remove() {
	n := m.node()
	l, by := n.now(), m.node().now()
	if l == nil || by == nil || by == l || !m.shrink() {
		return
	}
	m.s.wg.Go(func() {
		defer m.later(10*time.Second, m.shrunk) // a leader that was asked may still do it
		m.delay(n)
		_, err := by.n.Remove(m.ctx, n.id, false, "")
		m.told("remove %s: %v", n.id, err)
		if err != nil || by.dead.Load() { // it may have happened: see strays
			return
		}
		m.count("removals")
		pause(m.ctx, m.span(0, 3*time.Second))
		n.mu.Lock()
		n.gone = true
		n.mu.Unlock()
		n.crash(false)
		pause(m.ctx, m.span(100*time.Millisecond, 2*time.Second))
		m.revive(n)
		m.delay(n)
	})
}

// shrink begins a removal, unless a disk has been lost whose voter has not been replaced yet: with another voter
// gone there would be no majority left, for good.
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

// lose notes that a disk is about to be lost, unless a removal may be under way.
func (m *simNemesis) lose(id raft.ServerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.removing > 0 {
		return false
	}
	m.lost = id
	return true
}

// loseDisk takes a node's disk away; it comes back as a new instance at the same address. All are up at that
// moment, and whoever lost a disk before has been replaced: no two disks may be away at once.
func (m *simNemesis) loseDisk() {
	n, lead := m.node(), m.leader()
	if lead == nil || n.now() == nil {
		return
	}
	l := lead.now()
	if l == nil || l.n.proposer.Load() == nil {
		return
	}
	f := l.n.raft.GetConfiguration()
	if f.Error() != nil || f.Index() > l.n.raft.CommitIndex() || len(f.Configuration().Servers) != len(m.s.nodes) {
		return
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage != raft.Voter || m.s.lifeOf(s.ID) == nil {
			return
		}
	}
	victim := n.now()
	if victim == nil || !m.lose(victim.self) {
		return
	}
	m.told("%s loses its disk", n.id)
	m.count("lost disks")
	n.mu.Lock()
	n.gone = true
	n.mu.Unlock()
	n.crash(false)
	m.later(m.span(50*time.Millisecond, 5*time.Second), func() { m.revive(n) })
}

// strays brings back, as new instances, nodes whose removal succeeded without a word: neither they nor
// who asked for it have heard.
func (m *simNemesis) strays() {
	n := m.leader()
	if n == nil {
		return
	}
	lead := n.now()
	if lead == nil || lead.n.proposer.Load() == nil {
		return
	}
	conf, err := lead.n.configuration()
	if err != nil {
		return
	}
	for _, o := range m.s.nodes {
		if l := o.now(); l != nil && !inConfiguration(conf, l.self) && m.s.o.wasMember(l.self) {
			m.told("%s is a member no more", l.self)
			o.mu.Lock()
			o.gone = true
			o.mu.Unlock()
			o.crash(false)
			m.revive(o)
		}
	}
}

// delay makes acknowledgements wait for a while: a holder other than n is frozen under a stream of
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
			pause(m.ctx, 100*time.Millisecond)
			l, g := m.node().now(), m.s.o.live(m.intn(4))
			if l != nil && g != nil && l.frozen.Load() == nil {
				m.s.wg.Go(func() { m.s.revokeAt(m.ctx, l, g, g.access) })
			}
		}
	})
}
