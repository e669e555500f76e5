package node

import (
	"time"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// What the nemesis does to links and messages.

func (m *simNemesis) cut() { m.isolate(m.node()) }

func (m *simNemesis) cutLeader() {
	if n := m.leader(); n != nil {
		m.isolate(n)
	}
}

// isolate cuts the links of a node: to all or some, both ways or one way.
func (m *simNemesis) isolate(n *simNode) {
	in, out := true, true
	switch m.intn(4) {
	case 0:
		in = false
	case 1:
		out = false
	}
	m.sever(n, in, out, m.intn(4) == 0, m.span(100*time.Millisecond, 7*time.Second), m.intn(2) == 0)
}

// sever cuts links of a node for d. A leader that is late gets to the messages that depose it after a while
// only, as one whose main loop has other things to do.
func (m *simNemesis) sever(n *simNode, in, out, some bool, d time.Duration, late bool) {
	m.count("cuts")
	var heals []func()
	for _, o := range m.s.nodes {
		if o == n || some && m.intn(2) == 0 {
			continue
		}
		if in {
			heals = append(heals, m.s.net.cut(o.k, n.k))
		}
		if out {
			heals = append(heals, m.s.net.cut(n.k, o.k))
		}
	}
	if l := n.now(); l != nil {
		m.s.wg.Go(func() { m.s.insist(m.ctx, l, 4*time.Second) })
		if l.n.raft.State() == raft.Leader && late {
			l.raft.slow.Store(int64(m.span(10*time.Millisecond, 300*time.Millisecond)))
			m.later(d+2*time.Second, func() { l.raft.slow.Store(0) })
		}
	}
	m.told("cut %s, in %v, out %v, some %v, for %v", n.id, in, out, some, d)
	m.later(d, func() {
		for _, heal := range heals {
			heal()
		}
		m.told("heal %s", n.id)
		if l := n.now(); l != nil && l.n.raft.State() == raft.Leader {
			m.chores(l)
		}
	})
}

// depose makes the one whose timers are long the leader and cuts it off until the others have another: it
// learns that from their messages only, in the midst of proposals of its own.
func (m *simNemesis) depose() {
	lead := m.leader()
	if lead == nil {
		return
	}
	for _, n := range m.s.nodes {
		if n.timeout == simTimeout {
			continue
		}
		m.s.wg.Go(func() {
			if l := lead.now(); l != nil && lead != n {
				l.n.TransferLeader(m.ctx, n.id)
			}
			for range 20 {
				if l := n.now(); l != nil && l.n.proposer.Load() == nil {
					pause(m.ctx, 100*time.Millisecond)
				}
			}
			if l := n.now(); l != nil && l.n.proposer.Load() != nil {
				m.count("leaders deposed late")
				m.sever(n, true, true, false, m.span(1500*time.Millisecond, n.timeout), true)
			}
		})
	}
}

// chores has a leader propose commands of its own, as it does when something expires, while it may be
// learning that it leads no more. It does not look whether it does: nor does whoever is about to propose.
func (m *simNemesis) chores(l *simLife) {
	for range 40 {
		if l.dead.Load() {
			return
		}
		m.s.wg.Go(func() { l.n.proposeCommand(fsm.TypeTick, &fsm.Tick{Stamp: int64(l.n.fsm.Stamp())}) })
		pause(m.ctx, 5*time.Millisecond)
	}
}

func (m *simNemesis) slow() {
	a, b := m.node(), m.node()
	d := m.span(5*time.Millisecond, 800*time.Millisecond)
	m.count("slow links")
	m.s.net.slow(a.k, b.k, d)
	m.later(m.span(time.Second, 8*time.Second), func() { m.s.net.slow(a.k, b.k, 0) })
}

// slowNode makes all links of a node so slow that its leases come late or not at all, while calls get
// through.
func (m *simNemesis) slowNode() {
	n := m.node()
	d := m.span(100*time.Millisecond, 1500*time.Millisecond)
	set := func(d time.Duration) {
		for _, o := range m.s.nodes {
			if o != n {
				m.s.net.slow(n.k, o.k, d)
				m.s.net.slow(o.k, n.k, d)
			}
		}
	}
	m.count("slow nodes")
	m.told("slow %s by %v", n.id, d)
	set(d)
	if l := n.now(); l != nil {
		m.s.wg.Go(func() {
			for range 60 {
				pause(m.ctx, 50*time.Millisecond)
				if g := m.s.o.live(m.s.intn(3)); g != nil && !l.dead.Load() && l.frozen.Load() == nil {
					m.s.wg.Go(func() { m.s.ask(m.ctx, l, g, g.access) })
				}
			}
		})
	}
	m.later(m.span(3*time.Second, 8*time.Second), func() { set(0) })
}

func (m *simNemesis) reset() {
	m.count("resets")
	m.s.net.reset(m.node().k, m.node().k)
}

// late has answers of Raft leave late: those of an earlier round come in a later one.
func (m *simNemesis) late() {
	l := m.node().now()
	if l == nil {
		return
	}
	m.count("late answers")
	l.raft.faults(0, 0.3)
	m.later(m.span(time.Second, 6*time.Second), func() {
		l.raft.faults(0, 0)
		m.s.o.count.plus("race: an answer of Raft of an earlier round", int(l.raft.lateAnswers.Swap(0)))
	})
}

// replay has Raft's requests come again, and reports, asks and grants.
func (m *simNemesis) replay() {
	l := m.node().now()
	if l == nil {
		return
	}
	l.raft.faults(0.2, 0)
	m.s.wg.Go(func() {
		for range 10 {
			pause(m.ctx, m.span(50*time.Millisecond, 500*time.Millisecond))
			m.s.repeat(m.ctx)
		}
	})
	m.later(m.span(time.Second, 6*time.Second), func() {
		l.raft.faults(0, 0)
		m.s.o.count.plus("nemesis: requests of Raft repeated", int(l.raft.replays.Swap(0)))
	})
}
