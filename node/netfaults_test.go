package node

import (
	"time"

	"github.com/hashicorp/raft"

	"revoked/fsm/command"
	"revoked/internal/retry"
)

// This file contains the faults of links and messages.

func (m *simNemesis) cut() { m.isolate(m.node()) }

func (m *simNemesis) cutLeader() {
	if n := m.leader(); n != nil {
		m.isolate(n)
	}
}

// isolate cuts the links of a node to all or some others, in both directions or in one.
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

// sever cuts links of a node for d. A leader whose timers fire late handles the messages that
// depose it only after a delay, like one with a busy main loop.
func (m *simNemesis) sever(n *simNode, in, out, some bool, d time.Duration, late bool) {
	m.count("cuts")
	var heals []func()
	for _, o := range m.s.nodes {
		if o == n || some && m.intn(2) == 0 {
			continue
		}
		if in {
			heals = append(heals, m.s.net.Cut(o.k, n.k))
		}
		if out {
			heals = append(heals, m.s.net.Cut(n.k, o.k))
		}
	}
	if l := n.now(); l != nil {
		m.s.wg.Go(func() { m.s.insist(m.ctx, l, 4*time.Second) })
		if l.n.raft.State() == raft.Leader && late {
			l.raft.slow.Store(int64(m.span(10*time.Millisecond, 300*time.Millisecond)))
			m.later(d+2*time.Second, func() { l.raft.slow.Store(0) })
		}
	}
	m.note("cut %s, in %v, out %v, some %v, for %v", n.id, in, out, some, d)
	m.later(d, func() {
		for _, heal := range heals {
			heal()
		}
		m.note("heal %s", n.id)
		if l := n.now(); l != nil && l.n.raft.State() == raft.Leader {
			m.proposeOwn(l)
		}
	})
}

// depose makes the node whose timers fire late the leader, and cuts it off until the others have a
// new one. Only their messages depose it, while it keeps proposing.
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
				l.n.TransferLeader(m.ctx, l.actor("admin"), n.id)
			}
			for range 20 {
				if l := n.now(); l != nil && l.n.leadership.proposer() == nil {
					retry.Sleep(m.ctx, 100*time.Millisecond)
				}
			}
			if l := n.now(); l != nil && l.n.leadership.proposer() != nil {
				m.count("leaders deposed late")
				m.sever(n, true, true, false, m.span(1500*time.Millisecond, n.timeout), true)
			}
		})
	}
}

// proposeOwn makes a leader propose its own commands, as for expiry, while it may learn that it was
// deposed. Like a real proposer, it does not check that it still leads.
func (m *simNemesis) proposeOwn(l *simLife) {
	for range 40 {
		if l.dead.Load() {
			return
		}
		m.s.wg.Go(func() { l.n.newLeader().commit(&command.Tick{Stamp: int64(l.n.fsm.Stamp())}) })
		retry.Sleep(m.ctx, 5*time.Millisecond)
	}
}

func (m *simNemesis) slow() {
	a, b := m.node(), m.node()
	d := m.span(5*time.Millisecond, 800*time.Millisecond)
	m.count("slow links")
	m.s.net.Slow(a.k, b.k, d)
	m.later(m.span(time.Second, 8*time.Second), func() { m.s.net.Slow(a.k, b.k, 0) })
}

// slowNode slows all links of a node, so that lease replies arrive late or never, while calls
// succeed.
func (m *simNemesis) slowNode() {
	n := m.node()
	d := m.span(100*time.Millisecond, 1500*time.Millisecond)
	set := func(d time.Duration) {
		for _, o := range m.s.nodes {
			if o != n {
				m.s.net.Slow(n.k, o.k, d)
				m.s.net.Slow(o.k, n.k, d)
			}
		}
	}
	m.count("slow nodes")
	m.note("slow %s by %v", n.id, d)
	set(d)
	if l := n.now(); l != nil {
		m.s.wg.Go(func() {
			for range 60 {
				retry.Sleep(m.ctx, 50*time.Millisecond)
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
	m.s.net.Reset(m.node().k, m.node().k)
}

// late delays Raft responses, so that they arrive in a later round.
func (m *simNemesis) late() {
	l := m.node().now()
	if l == nil {
		return
	}
	m.count("late responses")
	l.raft.faults(0, 0.3)
	m.later(m.span(time.Second, 6*time.Second), func() {
		l.raft.faults(0, 0)
		m.s.o.count.plus("race: Raft response of an earlier round", int(l.raft.lateAnswers.Swap(0)))
	})
}

// replay repeats old Raft requests, reports, lease requests and replies.
func (m *simNemesis) replay() {
	l := m.node().now()
	if l == nil {
		return
	}
	l.raft.faults(0.2, 0)
	m.s.wg.Go(func() {
		for range 10 {
			retry.Sleep(m.ctx, m.span(50*time.Millisecond, 500*time.Millisecond))
			m.s.repeat(m.ctx)
		}
	})
	m.later(m.span(time.Second, 6*time.Second), func() {
		l.raft.faults(0, 0)
		m.s.o.count.plus("nemesis: requests of Raft repeated", int(l.raft.replays.Swap(0)))
	})
}

// notices loses, delays and repeats notices of a commit.
func (m *simNemesis) notices() {
	l := m.node().now()
	if l == nil {
		return
	}
	n := &l.raft.notices
	n.rate.Store(60)
	m.later(m.span(time.Second, 8*time.Second), func() {
		n.rate.Store(0)
		m.s.o.count.plus("nemesis: notices lost", int(n.lost.Swap(0)))
		m.s.o.count.plus("nemesis: notices late", int(n.late.Swap(0)))
		m.s.o.count.plus("nemesis: notices repeated", int(n.repeated.Swap(0)))
		m.s.o.count.plus("race: a notice of an earlier term", int(n.ofPastTerm.Swap(0)))
	})
}
