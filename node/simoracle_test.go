package node

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A simOracle sees all nodes at one true time and checks the invariants I1 to I8:
//
//	I1 no active answer to a question that began after a revocation was acknowledged
//	I2 the history fits the interval model: active only once registered, inactive only once revoking
//	I3 what was acknowledged is there after restarts
//	I4 equal indexes have equal hashes; no two logs differ at the same index and term
//	I5 whoever holds a lease has applied everything that was acknowledged
//	I6 grants are taken only of terms not older than the one followed, given only by open terms
//	I7 nothing active from the copy without a lease
//	I8 terms and applied indexes never go back, across restarts
//
// Beside them it holds every lease event of the product to the rules of the model (leasespec_test.go).
type simOracle struct {
	s     *sim
	count *simCounts
	seq   atomic.Int64 // numbers the beginnings and ends of calls
	bad   atomic.Bool

	mu     sync.Mutex
	err    string
	ring   []string
	at     int
	grants []*simGrant

	hashes  map[uint64][2][32]byte
	entries map[simEntry]uint32
	config  map[raft.ServerID]bool // of the newest configuration seen in any log
	members map[raft.ServerID]bool // of any
	confAt  simEntry

	instances map[raft.ServerID]*simInstance
	lives     map[*simLife]bool

	reports, asks, grantsSent []traceEvent // the newest, to be repeated

	spec     *leaseSpec
	openedBy raft.ServerID
}

type simEntry struct{ index, term uint64 }

// A simInstance is what the oracle holds an instance to, through its lives.
type simInstance struct{ term, applied uint64 }

// A simGrant is one grant and what is known of it, in sequence numbers; 0 is never.
type simGrant struct {
	id              string
	access, refresh revoked.Digest
	began, known    int64 // registration: first call, first success
	revoking        int64 // first revocation called
	revoked         int64 // first acknowledged
	active          int64 // first answer that said so
}

func newSimOracle(s *sim, count *simCounts) *simOracle {
	o := &simOracle{s: s, count: count, ring: make([]string, 400), hashes: map[uint64][2][32]byte{}, entries: map[simEntry]uint32{},
		instances: map[raft.ServerID]*simInstance{}, lives: map[*simLife]bool{}, spec: newLeaseSpec(), config: map[raft.ServerID]bool{}, members: map[raft.ServerID]bool{}}
	o.spec.fail, o.spec.count, o.spec.time = o.failLocked, count.add, time.Now
	o.spec.entry = func(index, term uint64) bool { _, ok := o.entries[simEntry{index, term}]; return ok }
	return o
}

func (o *simOracle) failed() bool { return o.bad.Load() }

// fail notes the first violation; the schedule ends then.
func (o *simOracle) fail(what, format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failLocked(what, format, args...)
}

func (o *simOracle) failLocked(what, format string, args ...any) {
	text := fmt.Sprintf("%s: %s", what, fmt.Sprintf(format, args...))
	switch what {
	case "progress", "start", "end", "store":
	default: // an invariant, or a rule of the model
		text = "broken: " + text
	}
	if o.err == "" {
		o.err = text
	}
	o.noteLocked("VIOLATION " + text)
	o.bad.Store(true)
}

func (o *simOracle) note(text func() string) {
	b := text()
	o.mu.Lock()
	defer o.mu.Unlock()
	if strings.Contains(b, "INFO state restored") {
		o.count.add("race: snapshot installed on a follower")
	}
	o.noteLocked(b)
}

func (o *simOracle) noteLocked(text string) {
	o.ring[o.at%len(o.ring)] = fmt.Sprintf("%12s %s", time.Since(o.s.began).Round(10*time.Microsecond), text)
	o.at++
}

// told is the newest of what was noted, oldest first.
func (o *simOracle) told() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for i := max(0, o.at-len(o.ring)); i < o.at; i++ {
		b.WriteString(o.ring[i%len(o.ring)])
		b.WriteByte('\n')
	}
	return b.String()
}

func (o *simOracle) born(l *simLife, n *Node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.n, l.self = n, n.self
	l.spec.self, l.spec.boot = n.self, string(n.boot)
	o.lives[l], o.spec.lives[l.spec] = true, true
	in := o.instances[l.self]
	if in == nil {
		in = &simInstance{}
		o.instances[l.self] = in
	}
	if term := l.n.raft.CurrentTerm(); term < in.term {
		o.failLocked("I8", "%s came back with term %d, it was in %d", l.self, term, in.term)
	}
	// A state that a leader streamed is newer than its snapshot, and there although the log has not come as far.
	if last := max(l.n.raft.LastIndex(), l.n.fsm.Applied()); last < in.applied {
		o.failLocked("I8", "%s came back with a log that ends at %d, it had applied %d", l.self, last, in.applied)
	}
	o.noteLocked(fmt.Sprintf("%s starts: applied %d, log ends at %d", l.self, l.n.fsm.Applied(), l.n.raft.LastIndex()))
}

func (o *simOracle) died(l *simLife) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.observe(l)
	delete(o.lives, l)
	delete(o.spec.lives, l.spec)
	o.noteLocked(fmt.Sprintf("%s is gone", l.self))
}

// ended hears that a node has ended by itself.
func (o *simOracle) ended(l *simLife, err error) {
	if l.dead.Load() {
		return
	}
	o.note(func() string { return fmt.Sprintf("%s ends: %v", l.self, err) })
	if errors.Is(err, revoked.ErrForbidden) { // it starts again as a new instance only, whoever starts it
		l.of.mu.Lock()
		l.of.gone = true
		l.of.mu.Unlock()
	}
	if err != nil && !strings.Contains(err.Error(), "was removed from its cluster") && !strings.Contains(err.Error(), "hangs") {
		o.fail("end", "%s ended by itself: %v", l.self, err)
	}
}

// stored hears every entry that goes to a log: I4.
func (o *simOracle) stored(l *simLife, e *raft.Log) {
	sum := crc32.Update(crc32.Checksum([]byte{byte(e.Type)}, castagnoli), castagnoli, e.Data)
	o.mu.Lock()
	defer o.mu.Unlock()
	k := simEntry{e.Index, e.Term}
	if e.Type == raft.LogCommand {
		l.lastCommand = e.Index
	}
	if had, ok := o.entries[k]; ok {
		if had != sum {
			o.failLocked("I4", "two logs hold different entries at index %d of term %d", e.Index, e.Term)
		}
		return
	}
	o.entries[k] = sum
	if e.Type == raft.LogConfiguration && (k.term > o.confAt.term || k.term == o.confAt.term && k.index > o.confAt.index) {
		o.confAt = k
		o.configured(raft.DecodeConfiguration(e.Data))
	}
}

// configured counts members that come and go while an acknowledgement waits.
func (o *simOracle) configured(conf raft.Configuration) {
	now := map[raft.ServerID]bool{}
	for _, s := range conf.Servers {
		now[s.ID], o.members[s.ID] = true, true
	}
	waits := o.spec.waiting()
	for id := range now {
		if !o.config[id] && waits {
			o.count.add("race: member added during an ack wait")
		}
	}
	for id := range o.config {
		if !now[id] && waits {
			o.count.add("race: member removed during an ack wait")
		}
	}
	o.config = now
}

// isMember reports whether an instance is in the newest configuration.
func (o *simOracle) isMember(id raft.ServerID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.config[id]
}

func (o *simOracle) wasMember(id raft.ServerID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.members[id]
}

// observe holds a life to what never goes back. The lock is held.
func (o *simOracle) observe(l *simLife) {
	in := o.instances[l.self]
	term, applied := l.n.raft.CurrentTerm(), l.n.fsm.Applied()
	if term < in.term {
		o.failLocked("I8", "%s went back from term %d to %d", l.self, in.term, term)
	}
	if applied < l.applied {
		o.failLocked("I8", "%s went back from index %d to %d", l.self, l.applied, applied)
	}
	in.term, l.applied = term, applied
	in.applied = max(in.applied, applied)
	index, log, state := l.n.fsm.Hashes()
	h := [2][32]byte{log, state}
	if had, ok := o.hashes[index]; ok && had != h {
		o.failLocked("I4", "%s has another hash than others at index %d", l.self, index)
	}
	o.hashes[index] = h
}

// check is made after every step.
func (o *simOracle) check() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for l := range o.lives {
		o.observe(l)
	}
	if len(o.hashes) > 4096 {
		keys := slices.Sorted(maps.Keys(o.hashes))
		for _, k := range keys[:len(keys)/2] {
			delete(o.hashes, k)
		}
	}
	maps.DeleteFunc(o.spec.tables, func(term uint64, _ *specTable) bool { return term+50 < o.spec.maxOpened })
}

// acknowledgedAt is told of every success that is final, before anybody else hears of it: I5.
func (o *simOracle) acknowledgedAt(index uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spec.final(index)
}

// known reports whether the registration of a grant was acknowledged.
func (o *simOracle) known(g *simGrant) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return g.known != 0
}

// answered checks one introspection: I1 and I2.
func (o *simOracle) answered(l *simLife, g *simGrant, st revoked.Status, start, end int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	overlaps := g.revoking != 0 && g.revoking < end && (g.revoked == 0 || g.revoked > start)
	if overlaps {
		o.count.add("race: read while its revocation is under way")
	}
	if st.Verdict == revoked.Active {
		switch {
		case g.revoked != 0 && g.revoked < start:
			o.failLocked("I1", "%s says active for %s, whose revocation was acknowledged before the question", l.self, g.id)
		case g.began == 0 || g.began > end:
			o.failLocked("I2", "%s says active for %s, which nobody has registered", l.self, g.id)
		}
		if g.active == 0 || end < g.active {
			g.active = end
		}
		o.count.add("answers: active")
		return
	}
	o.count.add("answers: inactive")
	if g.revoking != 0 && g.revoking < end {
		return
	}
	if g.known != 0 && g.known < start || g.active != 0 && g.active < start {
		o.failLocked("I2", "%s says %v for %s, which is registered and which nobody has revoked", l.self, st.Verdict, g.id)
	}
}

// durable looks for everything that was acknowledged in the copy of a node that is proven current: I3.
func (o *simOracle) durable(l *simLife) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	o.mu.Lock()
	grants := slices.Clone(o.grants[max(0, len(o.grants)-150):])
	type want struct{ known, dead bool }
	wants := make([]want, len(grants))
	for i, g := range grants {
		wants[i] = want{g.known != 0, g.revoked != 0}
	}
	o.mu.Unlock()
	if l.n.prove(ctx) != nil || l.dead.Load() {
		return
	}
	o.count.add("checks: durability")
	for i, g := range grants {
		for _, d := range []revoked.Digest{g.access, g.refresh} {
			st, err := l.n.judge(d)
			switch {
			case err != nil:
				return
			case wants[i].dead && st.Verdict == revoked.Active:
				o.fail("I3", "%s is current and has lost the revocation of %s", l.self, g.id)
			case wants[i].known && st.Verdict == revoked.Unknown:
				o.fail("I3", "%s is current and has lost the registration of %s", l.self, g.id)
			}
		}
	}
}

// simCounts is how often what has happened, over all schedules.
type simCounts struct {
	mu sync.Mutex
	n  map[string]int
}

func newSimCounts() *simCounts { return &simCounts{n: map[string]int{}} }

func (c *simCounts) add(what string) { c.plus(what, 1) }

func (c *simCounts) plus(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what] += n
}

func (c *simCounts) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

func (c *simCounts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c.n)) {
		fmt.Fprintf(&b, "%9d  %s\n", c.n[k], k)
	}
	return b.String()
}
