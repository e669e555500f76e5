package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/retry"
)

// A simNemesis injects faults into one cluster. Its seed determines them.
type simNemesis struct {
	s   *sim
	ctx context.Context

	mu       sync.Mutex
	rng      *rand.Rand
	removing int           // removals in progress
	lost     raft.ServerID // the instance that lost its disk last
}

// simFaults are the faults with their weights.
var simFaults = []struct {
	weight int
	name   string
	do     func(*simNemesis)
}{
	{12, "crash", (*simNemesis).crash},
	{8, "crash of the leader", (*simNemesis).crashLeader},
	{1, "crash of all", (*simNemesis).crashAll},
	{14, "cut", (*simNemesis).cut},
	{8, "cut of the leader", (*simNemesis).cutLeader},
	{8, "freeze", (*simNemesis).freeze},
	{6, "freeze of the leader", (*simNemesis).freezeLeader},
	{5, "slow link", (*simNemesis).slow},
	{5, "disk stall", (*simNemesis).stall},
	{6, "transfer", (*simNemesis).transfer},
	{6, "deposed late", (*simNemesis).depose},
	{4, "reset", (*simNemesis).reset},
	{5, "snapshot", (*simNemesis).snapshot},
	{5, "snapshot to a holder", (*simNemesis).overtake},
	{4, "removal", (*simNemesis).remove},
	{3, "lost disk", (*simNemesis).loseDisk},
	{3, "twin", (*simNemesis).pairUp},
	{4, "rolled-back disk", (*simNemesis).rollBack},
	{3, "demotion", (*simNemesis).demote},
	{3, "clock jump", (*simNemesis).jump},
	{3, "clock far off", (*simNemesis).farOff},
	{3, "restart in order", (*simNemesis).restart},
	{6, "late responses", (*simNemesis).late},
	{5, "slow node", (*simNemesis).slowNode},
	{2, "another lease", (*simNemesis).settings},
	{6, "replays", (*simNemesis).replay},
	{6, "notices", (*simNemesis).notices},
}

// run injects faults until ctx ends. They heal by themselves.
func (m *simNemesis) run() {
	total := 0
	for _, f := range simFaults {
		total += f.weight
	}
	for m.ctx.Err() == nil && !m.s.o.failed() {
		retry.Sleep(m.ctx, time.Duration(m.exp()*float64(3*time.Second)))
		if m.intn(5) == 0 { // pause until every node holds a lease
			retry.Sleep(m.ctx, 4*time.Second)
		}
		n := m.intn(total)
		for _, f := range simFaults {
			if n -= f.weight; n < 0 {
				m.note("%s", f.name)
				f.do(m)
				break
			}
		}
	}
}

func (m *simNemesis) note(format string, args ...any) {
	m.s.o.note(func() string { return "nemesis: " + fmt.Sprintf(format, args...) })
}

func (m *simNemesis) count(what string) { m.s.o.count.add("nemesis: " + what) }

func (m *simNemesis) span(least, most time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return least + time.Duration(m.rng.Int64N(int64(most-least)))
}

func (m *simNemesis) intn(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

func (m *simNemesis) exp() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.ExpFloat64()
}

// later calls undo after d, or when the schedule ends.
func (m *simNemesis) later(d time.Duration, undo func()) {
	m.s.wg.Go(func() {
		retry.Sleep(m.ctx, d)
		undo()
	})
}

func (m *simNemesis) leader() *simNode {
	var best *simNode
	term := uint64(0)
	for _, n := range m.s.nodes {
		if l := n.now(); l != nil && l.n.raft.State() == raft.Leader && l.n.raft.CurrentTerm() >= term {
			best, term = n, l.n.raft.CurrentTerm()
		}
	}
	return best
}

func (m *simNemesis) node() *simNode { return m.s.nodes[m.intn(len(m.s.nodes))] }

func (m *simNemesis) crash() { m.kill(m.node()) }

func (m *simNemesis) crashLeader() {
	if n := m.leader(); n != nil {
		m.kill(n)
	}
}

func (m *simNemesis) kill(n *simNode) {
	if n.now() == nil {
		return
	}
	machine := m.intn(3) == 0
	m.note("kill %s, machine %v", n.id, machine)
	m.count("crashes")
	n.crash(machine)
	m.later(m.span(50*time.Millisecond, 5*time.Second), func() { m.revive(n) })
}

// revive starts a node again: with its disk, or as a new instance if it was removed.
func (m *simNemesis) revive(n *simNode) {
	n.mu.Lock()
	if n.life != nil || n.turning {
		n.mu.Unlock()
		return
	}
	fresh := n.gone
	n.turning, n.gone = true, false
	n.mu.Unlock()
	n.start(fresh)
	n.mu.Lock()
	n.turning = false
	l := n.life
	n.mu.Unlock()
	if l == nil {
		return
	}
	m.s.wg.Go(func() {
		retry.Sleep(m.ctx, 6*time.Second)
		if l == n.now() && l.frozen.Load() == nil {
			m.s.o.durable(l)
		}
	})
}

func (m *simNemesis) crashAll() {
	for _, n := range m.s.nodes {
		m.kill(n)
	}
}

func (m *simNemesis) freeze() { m.hold(m.node()) }

func (m *simNemesis) freezeLeader() {
	if n := m.leader(); n != nil {
		m.hold(n)
	}
}

// hold freezes a node for up to 5 s.
func (m *simNemesis) hold(n *simNode) { m.holdFor(n, m.span(100*time.Millisecond, 5*time.Second)) }

// holdFor freezes a node: it does not receive, send, answer or write. Its clocks continue.
func (m *simNemesis) holdFor(n *simNode, d time.Duration) {
	l := n.now()
	if l == nil || l.frozen.Load() != nil {
		return
	}
	m.note("freeze %s for %v", n.id, d)
	m.count("freezes")
	ch := make(chan struct{})
	l.frozen.Store(&ch)
	for range 2 { // these answers pause between the copy and the lease check, and continue first
		if g := m.s.o.live(m.intn(3)); g != nil {
			m.s.wg.Go(func() { m.s.ask(m.ctx, l, g, g.access) })
		}
	}
	thaw, open := m.s.net.Freeze(l.host), l.gate.Close()
	m.later(d, func() {
		l.frozen.Store(nil)
		close(ch)
		open()
		thaw()
		m.note("thaw %s", n.id)
	})
}

func (m *simNemesis) stall() {
	if l := m.node().now(); l != nil {
		m.count("disk stalls")
		open := l.gate.Close()
		most := 4 * time.Second
		if m.intn(6) == 0 {
			most = 30 * time.Second
		}
		m.later(m.span(50*time.Millisecond, most), open)
	}
}

// jump moves the wall clock of a node temporarily.
func (m *simNemesis) jump() {
	n := m.node()
	d := m.span(-10*time.Second, 10*time.Second)
	if m.intn(2) == 0 {
		d /= 200
	}
	m.count("clock jumps")
	n.clock.jump(d)
	m.later(m.span(time.Second, 10*time.Second), func() { n.clock.jump(-d) })
}

// farOff moves the wall clock of a node, often the leader, further than any skew, for some seconds.
// Until then only the stamps of the log decide when tokens and denials expire.
func (m *simNemesis) farOff() {
	n, d := m.node(), m.span(11*time.Second, 25*time.Second)
	if l := m.leader(); l != nil && m.intn(2) == 0 {
		n = l
	}
	if m.intn(2) == 0 {
		d = -d
	}
	m.note("clock of %s is off by %v", n.id, d)
	m.count("clocks far off")
	n.clock.jump(d)
	m.later(m.span(2*time.Second, 6*time.Second), func() { n.clock.jump(-d) })
	m.s.wg.Go(func() {
		for range 3 {
			retry.Sleep(m.ctx, 900*time.Millisecond)
			for _, t := range m.s.o.expiring(5) {
				m.s.present(m.ctx, t)
			}
		}
	})
}

func (m *simNemesis) restart() {
	n := m.node()
	l := n.now()
	if l == nil || l.frozen.Load() != nil {
		return
	}
	m.count("restarts in order")
	n.stop()
	m.later(m.span(0, time.Second), func() { m.revive(n) })
}
