package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// A simNemesis does one cluster harm, by its seed.
type simNemesis struct {
	s   *sim
	ctx context.Context

	mu       sync.Mutex
	rng      *rand.Rand
	removing int           // removals that may still happen
	lost     raft.ServerID // whose disk was lost last
}

// simFaults are what it does, by weight.
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
	{3, "clock jump", (*simNemesis).jump},
	{3, "restart in order", (*simNemesis).restart},
	{6, "late answers", (*simNemesis).late},
	{5, "slow node", (*simNemesis).slowNode},
	{2, "another lease", (*simNemesis).settings},
	{6, "replays", (*simNemesis).replay},
}

// run does harm until ctx ends, then heals everything.
func (m *simNemesis) run() {
	total := 0
	for _, f := range simFaults {
		total += f.weight
	}
	for m.ctx.Err() == nil && !m.s.o.failed() {
		pause(m.ctx, time.Duration(m.exp()*float64(3*time.Second)))
		if m.intn(5) == 0 { // a calm in which everybody holds a lease
			pause(m.ctx, 4*time.Second)
		}
		n := m.intn(total)
		for _, f := range simFaults {
			if n -= f.weight; n < 0 {
				m.told("%s", f.name)
				f.do(m)
				break
			}
		}
	}
}

func (m *simNemesis) told(format string, args ...any) {
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

// later undoes a fault after d, or at the end.
func (m *simNemesis) later(d time.Duration, undo func()) {
	m.s.wg.Go(func() {
		pause(m.ctx, d)
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
	m.told("kill %s, machine %v", n.id, machine)
	m.count("crashes")
	n.crash(machine)
	m.later(m.span(50*time.Millisecond, 5*time.Second), func() { m.revive(n) })
}

// revive starts a node again: with its disk, or as a new instance when it was removed.
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
		pause(m.ctx, 6*time.Second)
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

func (m *simNemesis) freeze() { m.hold(m.node()) }

func (m *simNemesis) freezeLeader() {
	if n := m.leader(); n != nil {
		m.hold(n)
	}
}

// hold freezes a node: nothing comes in, goes out, is answered or written, while its clocks go on.
func (m *simNemesis) hold(n *simNode) {
	l := n.now()
	if l == nil || l.frozen.Load() != nil {
		return
	}
	d := m.span(100*time.Millisecond, 5*time.Second)
	m.told("freeze %s for %v", n.id, d)
	m.count("freezes")
	ch := make(chan struct{})
	l.frozen.Store(&ch)
	for range 2 { // their answers stop between the copy and the lease, and go on first of all
		if g := m.s.o.live(m.intn(3)); g != nil {
			m.s.wg.Go(func() { m.s.ask(m.ctx, l, g, g.access) })
		}
	}
	thaw, open := m.s.net.freeze(l.host), l.gate.close()
	m.later(d, func() {
		l.frozen.Store(nil)
		close(ch)
		open()
		thaw()
		m.told("thaw %s", n.id)
	})
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

func (m *simNemesis) stall() {
	if l := m.node().now(); l != nil {
		m.count("disk stalls")
		open := l.gate.close()
		most := 4 * time.Second
		if m.intn(6) == 0 {
			most = 30 * time.Second
		}
		m.later(m.span(50*time.Millisecond, most), open)
	}
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

func (m *simNemesis) reset() {
	m.count("resets")
	m.s.net.reset(m.node().k, m.node().k)
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

// jump moves the wall clock of a node for a while.
func (m *simNemesis) jump() {
	n := m.node()
	d := m.span(-10*time.Second, 10*time.Second)
	if m.intn(2) == 0 {
		d /= 200
	}
	m.count("clock jumps")
	n.clock.wall.Add(int64(d))
	m.later(m.span(time.Second, 10*time.Second), func() { n.clock.wall.Add(int64(-d)) })
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
