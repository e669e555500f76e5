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
	"revoked/node/datadir"
	"revoked/node/lease/leasecheck"
)

// A simOracle sees the state of all nodes at the same instant and checks these invariants:
//
//	I1 no active answer to a request that began after an acknowledged revocation
//	I2 the interval model: active only after its registration began; once registered, inactive
//	   only after a revocation began
//	I3 acknowledged changes survive restarts
//	I4 equal indexes have equal hashes; no two logs differ at the same index and term
//	I5 a lease holder has applied every acknowledged index
//	I6 a member accepts leases of its term or a newer one; only an open term grants them
//	I7 no active answer from the copy without a lease
//	I8 terms and applied indexes never decrease, across restarts
//	I9 in no configuration do two instances of a node vote, or more than two instances exist
//	I10 a node that was never admitted is in no configuration
//
// The comment of simTrust explains how JWTs of trusted issuers take part.
//
// It also checks every lease event of the product against the rules of the model (package
// leasecheck).
type simOracle struct {
	s     *sim
	count *simCounts
	seq   atomic.Int64 // number of the newest start or end of a call
	bad   atomic.Bool

	mu     sync.Mutex
	err    string
	ring   []string
	at     int
	grants []*simGrant
	trust  simTrust

	batches int // entries with operations
	hashes  map[uint64][2][32]byte
	entries map[simEntry]uint32
	config  map[raft.ServerID]bool // the newest configuration in any log
	members map[raft.ServerID]bool // members of any configuration
	confAt  simEntry

	instances map[raft.ServerID]*simInstance
	lives     map[*simLife]bool

	reports, requests, replies []leasecheck.Event // the newest, for repetition

	checker  *leasecheck.Checker
	openedBy raft.ServerID
}

type simEntry struct{ index, term uint64 }

// A simInstance has the highest values of an instance over all its processes.
type simInstance struct{ term, applied uint64 }

// A simGrant is one grant and its history in sequence numbers; 0 is never.
type simGrant struct {
	id              string
	access, refresh revoked.Digest
	began, known    int64 // registration: first call, first success
	revoking        int64 // first revocation called
	revoked         int64 // first acknowledged
	active          int64 // first active answer
	past            []simPast
}

func newSimOracle(s *sim, count *simCounts) *simOracle {
	o := &simOracle{s: s, count: count, ring: make([]string, 400), hashes: map[uint64][2][32]byte{},
		entries:   map[simEntry]uint32{},
		instances: map[raft.ServerID]*simInstance{}, lives: map[*simLife]bool{}, checker: leasecheck.New(),
		config: map[raft.ServerID]bool{}, members: map[raft.ServerID]bool{}}
	o.checker.Fail, o.checker.Count, o.checker.Time = o.failLocked, count.add, time.Now
	o.checker.Entry = func(index, term uint64) bool { _, ok := o.entries[simEntry{index, term}]; return ok }
	return o
}

func (o *simOracle) failed() bool { return o.bad.Load() }

// fail records the first violation, which ends the schedule.
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

// lastNotes returns the newest notes, oldest first.
func (o *simOracle) lastNotes() string {
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
	l.n, l.self = n, n.id.Server
	l.life.Server, l.life.Boot = string(n.id.Server), string(n.id.Boot)
	o.lives[l], o.checker.Lives[l.life] = true, true
	in := o.instances[l.self]
	if in == nil {
		in = &simInstance{}
		o.instances[l.self] = in
	}
	if l.rolled {
		*in = simInstance{}
	}
	if term := l.n.raft.CurrentTerm(); term < in.term {
		o.failLocked("I8", "%s came back with term %d, want at least %d", l.self, term, in.term)
	}
	// A state from a streamed snapshot may be ahead of the log.
	if last := max(l.n.raft.LastIndex(), l.n.fsm.Applied()); last < in.applied {
		o.failLocked("I8", "%s came back with a log up to %d, want at least %d", l.self, last, in.applied)
	}
	o.noteLocked(fmt.Sprintf("%s starts: applied %d, log up to %d", l.self, l.n.fsm.Applied(), l.n.raft.LastIndex()))
}

func (o *simOracle) died(l *simLife) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.observe(l)
	delete(o.lives, l)
	delete(o.checker.Lives, l.life)
	o.noteLocked(fmt.Sprintf("%s died", l.self))
}

// ended records that a node stopped by itself.
func (o *simOracle) ended(l *simLife, err error) {
	if l.dead.Load() {
		return
	}
	o.note(func() string { return fmt.Sprintf("%s stops: %v", l.self, err) })
	refused := l.rolled && err != nil && strings.Contains(err.Error(), "rolled back to an older image")
	if refused {
		o.count.add("race: a rolled-back disk is noticed")
	}
	if errors.Is(err, revoked.ErrForbidden) || refused { // it can only start as a new instance
		l.of.mu.Lock()
		l.of.gone = true
		l.of.mu.Unlock()
	}
	if err != nil && !errors.Is(err, revoked.ErrForbidden) && !refused &&
		!strings.Contains(err.Error(), "hangs") {
		o.fail("end", "%s stopped by itself: %v", l.self, err)
	}
}

// stored checks I4 for an entry. It must be called for every entry written to a log.
func (o *simOracle) stored(l *simLife, e *raft.Log) {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum([]byte{byte(e.Type)}, table), table, e.Data)
	o.mu.Lock()
	defer o.mu.Unlock()
	k := simEntry{e.Index, e.Term}
	if e.Type == raft.LogCommand {
		l.lastCommand = e.Index
	}
	if had, ok := o.entries[k]; ok {
		if had != sum {
			o.failLocked("I4", "two logs differ at index %d of term %d", e.Index, e.Term)
		}
		return
	}
	o.entries[k] = sum
	if e.Type == raft.LogCommand && isBatch(e.Data) {
		o.batches++
	}
	if e.Type == raft.LogConfiguration {
		o.checkConfiguration(raft.DecodeConfiguration(e.Data))
	}
	if e.Type == raft.LogConfiguration && (k.term > o.confAt.term || k.term == o.confAt.term && k.index > o.confAt.index) {
		o.confAt = k
		o.configured(raft.DecodeConfiguration(e.Data))
	}
}

// checkConfiguration checks I9 and I10. The caller holds the lock.
func (o *simOracle) checkConfiguration(conf raft.Configuration) {
	votes, instances := map[string]int{}, map[string]int{}
	for _, s := range conf.Servers {
		node := datadir.NodeOf(s.ID)
		if o.s.outside != nil && node == o.s.outside.id {
			o.failLocked("I10", "%s was never admitted: %v", node, conf.Servers)
		}
		instances[node]++
		if s.Suffrage == raft.Voter {
			votes[node]++
		}
		if votes[node] > 1 || instances[node] > 2 {
			o.failLocked("I9", "%s has %d instances, %d of them with a vote: %v", node, instances[node], votes[node],
				conf.Servers)
		}
	}
}

// configured counts membership changes while an acknowledgement waits.
func (o *simOracle) configured(conf raft.Configuration) {
	now := map[raft.ServerID]bool{}
	for _, s := range conf.Servers {
		now[s.ID], o.members[s.ID] = true, true
	}
	waits := o.checker.Waiting()
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

// isMember reports whether the instance is in the newest configuration.
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

// observe checks that a process's values never decrease. The caller holds the lock.
func (o *simOracle) observe(l *simLife) {
	in := o.instances[l.self]
	term, applied := l.n.raft.CurrentTerm(), l.n.fsm.Applied()
	if term < in.term {
		o.failLocked("I8", "%s: term decreased from %d to %d", l.self, in.term, term)
	}
	if applied < l.applied {
		o.failLocked("I8", "%s: applied index decreased from %d to %d", l.self, l.applied, applied)
	}
	in.term, l.applied = term, applied
	in.applied = max(in.applied, applied)
	index, log, state := l.n.fsm.Hashes()
	h := [2][32]byte{log, state}
	if had, ok := o.hashes[index]; ok && had != h {
		o.failLocked("I4", "%s: hash differs from others at index %d", l.self, index)
	}
	o.hashes[index] = h
}

// check runs after every step.
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
	o.checker.Forget()
}

// acknowledgedAt checks I5 for an index. It must be called for every final success before its
// caller gets the result.
func (o *simOracle) acknowledgedAt(index uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.checker.Final(index)
}

// known reports whether the registration of a grant was acknowledged.
func (o *simOracle) known(g *simGrant) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return g.known != 0
}

// answered checks one introspection: I1 and I2.
func (o *simOracle) answered(l *simLife, g *simGrant, st revoked.TokenStatus, start, end int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	overlaps := g.revoking != 0 && g.revoking < end && (g.revoked == 0 || g.revoked > start)
	if overlaps {
		o.count.add("race: read during its own revocation")
	}
	if st.Verdict == revoked.Active {
		switch {
		case g.revoked != 0 && g.revoked < start:
			o.failLocked("I1", "%s answered active for %s after its revocation was acknowledged", l.self, g.id)
		case g.began == 0 || g.began > end:
			o.failLocked("I2", "%s answered active for %s, which is not registered", l.self, g.id)
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
		o.failLocked("I2", "%s answered %v for %s, which is registered and not revoked", l.self, st.Verdict, g.id)
	}
}

// durable checks I3: after a read barrier the node's copy has every acknowledged change.
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
	dead := o.endedJWTs(20)
	past := o.pastAnswers(grants)
	o.mu.Unlock()
	if l.n.propose.ReadBarrier(ctx) != nil || l.dead.Load() {
		return
	}
	o.count.add("checks: durability")
	for i, g := range grants {
		for _, d := range []revoked.Digest{g.access, g.refresh} {
			look := l.n.tokens.Look(&revoked.PresentedToken{Digest: d})
			st, err := l.n.evaluate(ctx, &look)
			switch {
			case err != nil:
				return
			case wants[i].dead && st.Verdict == revoked.Active:
				o.fail("I3", "%s is current, but lost the revocation of %s", l.self, g.id)
			case wants[i].known && st.Verdict == revoked.Unknown:
				o.fail("I3", "%s is current, but lost the registration of %s", l.self, g.id)
			}
		}
	}
	o.checkPast(l, past)
	for _, t := range dead {
		look := l.n.tokens.Look(t.presented(0))
		st, err := l.n.evaluate(ctx, &look)
		if err == nil && st.Verdict == revoked.Active {
			o.fail("I3", "%s is current, but lost the change that ended %v", l.self, t)
		}
	}
}

// simCounts counts events over all schedules.
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
