package node

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// This file is the world in which the lease protocol is checked: an abstract Raft, a network that loses,
// delays, repeats and reorders, clocks with rates of their own, crashes, a changing membership; and in
// it the real leaseTable and leaseHolder. leasemodel_test.go explores it to the end within bounds,
// leasesim_test.go walks through it at random.
//
// Raft is abstract: a leader's log is copied to a follower in one step (accept), what a follower has
// accepted becomes known to the leader in another (learn), so answers can be as late as they like. An
// index is committed where a majority of the leader's newest configuration is known to have accepted an
// entry of the leader's own term. What a leader may learn after it was deposed is learnt too.

// A rule is one that can be switched off. The switches are here, around the real code, never in it.
type rule int

const (
	allRules              rule = iota
	bookBeforeProof            // off: booked when the grant is sent
	proofNeeded                // off: granted on the belief to lead
	proofProposedAfter         // off: an entry proposed before the booking, committed after it, will do
	newLeaderWaits             // off: a new term assumes that nobody holds a lease
	newTermClearsOnlyOld       // off: a member that follows the term is cleared of the term's own bookings too
	grantNamesBoot             // off: a grant to an earlier life is taken
	bookNamesBoot              // off: what an earlier life had applied counts for the next
	grantNamesNonce            // off: a grant for an older ask is taken as one for the newest
	adoptionRefusesGrants      // off: older grants are taken after a newer term was followed
	adoptionEndsLease          // off: a newer term is followed, the older lease kept
	clockReadInRequest         // off: a flag that a timer set says whether there is a lease
	stateReadUnderLease        // off: the lease at the end of a read may be newer than the state read
	ackWaits                   // off: acknowledged when committed
	admitOnlyAcked             // off: admitted although behind what was acknowledged
	admitOnlyEpoch             // off: admitted although behind the term's first command
	openAfterEpoch             // off: a term opens before its first command has been applied
	removalWaits               // off: a member is removed while booked
	removalBars                // off: a member may be booked again between the wait and the removal
	removedStayBooked          // off: a member is removed while booked, and off the books at once
	giveBackNamesNonce         // off: a lease is given back by a word that came before it
	bookingCoversRates         // off: a booking ends when a lease would on the leader's own clock
	ackInOwnTerm               // off: the books of an old term acknowledge what a new one committed
	removalInOwnTerm           // off: the wait before a removal may have been an earlier term's
	rules
)

var ruleNames = [...]string{"all rules", "book before proof", "proof", "proof proposed after the booking", "the new leader's wait",
	"a new term clears only what was inherited", "a grant names the life it is for", "a booking names the life it is for",
	"a grant names its ask", "following a term refuses older grants", "following a term ends older leases",
	"the clock is read in the request", "the state is read under the lease", "an acknowledgement waits for the booked",
	"nobody behind an acknowledged index is admitted", "nobody behind the term's first command is admitted",
	"a term opens when its first command is applied", "nobody is removed while booked", "nobody is booked during its removal",
	"removed and still booked", "giving back names the newest ask", "a booking covers the clocks' rates",
	"an acknowledgement is of the table's own term", "a removal is of the wait's own term"}

func (r rule) String() string { return ruleNames[r] }

type entryKind uint8

const (
	entryEpoch entryKind = iota
	entryRevoke
	entryTick
	entryRemove
	entryAdd
)

type worldEntry struct {
	term uint64
	kind entryKind
	node int // whom entryRemove and entryAdd are about
}

// A scope bounds what may happen. A zero bound means never, a negative one is none.
type scope struct {
	nodes, initial                       int // initial: how many are members at the start
	length                               time.Duration
	tick                                 time.Duration // of true time, in one step
	rates                                []float64     // of each node's clock; nil: drawn by the walk
	asks, ticks, crashes, elections      int
	revokes, proofs, removes, adds, back int
	hellos, late                         int  // late: answers of followers that are held back
	askers, candidates, crashers         int  // bits of nodes
	reads                                bool // reads take two steps; else they are checked after every step, in one
	all                                  bool // also steps that make no difference to safety, or only for the better
	prologue                             []step
	off                                  rule
}

type worldNode struct {
	clock   instant
	rate    float64
	boot    int
	term    uint64 // highest that it voted in or accepted from
	log     []worldEntry
	applied int // indexes count from 1
	holder  leaseHolder
	late    *leaseAsk // the last report of the life before: it may arrive at any time
	lateTo  uint64

	reading bool // a read that began after an acknowledgement has read a state from before it
	mark    uint64
	flag    bool // what a timer saw, for the rule about it
}

func (n *worldNode) bootName() string { return fmt.Sprint(n.boot) }

// A worldLead is one term of leadership. Copied before it is changed.
type worldLead struct {
	term     uint64
	node     int
	boot     int
	alive    bool // as it believes
	epoch    int  // index of its first command
	table    *leaseTable
	accepted []int // by node: what it accepted in this term
	match    []int // as the leader knows
	commit   int
	proofs   []worldProof
	clearing int // whose removal may be proposed; -1: nobody's
}

type worldProof struct {
	ask   worldAsk
	after int // the proof must be above this index
	sent  bool
}

type worldAsk struct {
	node int
	term uint64 // to whom
	ask  leaseAsk
}

type worldGrant struct {
	node  int
	grant leaseGrant
}

type world struct {
	s      *scope
	nodes  []worldNode
	leads  []*worldLead
	asks   []worldAsk
	grants []worldGrant
	backs  []worldAsk // leases being given back
	acked  int

	trace func(k int, e traceEvent) // hears what the product's nodes would tell; nil: nobody
	true  time.Duration             // what has passed

	used struct{ asks, ticks, crashes, elections, revokes, proofs, removes, adds, back, hellos, late int }
}

func newWorld(s *scope) *world {
	w := &world{s: s}
	first := []worldEntry{{term: 1, kind: entryEpoch}}
	for k := range s.nodes {
		n := worldNode{clock: instant(1000*s.length) + instant(k)*instant(s.length), rate: 1, boot: 1, holder: leaseHolder{boot: "1"}}
		if s.rates != nil {
			n.rate = s.rates[k]
		}
		if k < s.initial {
			n.term, n.log, n.applied = 1, first, 1
		}
		w.nodes = append(w.nodes, n)
	}
	l := &worldLead{term: 1, boot: 1, alive: true, epoch: 1, accepted: make([]int, s.nodes), match: make([]int, s.nodes), commit: 1, clearing: -1}
	for k := range s.initial {
		l.accepted[k], l.match[k] = 1, 1
	}
	// The first term finds no leases.
	l.table = newLeaseTable(1, 1, w.nodes[0].clock.add(-10*boundAfter(s.length)), s.length, s.length, w.members(first))
	w.leads = append(w.leads, l)
	return w
}

// tell tells of an event at node k.
func (w *world) tell(k int, e traceEvent) {
	if w.trace != nil {
		w.trace(k, e)
	}
}

func serverID(k int) raft.ServerID { return raft.ServerID(rune('A' + k)) }

// configured reports whether node k is in the newest configuration of a log.
func (w *world) configured(log []worldEntry, k int) bool {
	for i := len(log) - 1; i >= 0; i-- {
		if e := log[i]; e.node == k && (e.kind == entryRemove || e.kind == entryAdd) {
			return e.kind == entryAdd
		}
	}
	return k < w.s.initial
}

func (w *world) members(log []worldEntry) []raft.ServerID {
	var ids []raft.ServerID
	for k := range w.s.nodes {
		if w.configured(log, k) {
			ids = append(ids, serverID(k))
		}
	}
	return ids
}

// stable reports whether the newest change of the configuration is committed: only then Raft takes another.
func (l *worldLead) stable(log []worldEntry) bool {
	for i := len(log) - 1; i >= l.commit; i-- {
		if log[i].kind == entryRemove || log[i].kind == entryAdd {
			return false
		}
	}
	return l.commit >= l.epoch
}

// clone copies the world; what is behind pointers is copied when it is changed.
func (w *world) clone() *world {
	c := *w
	c.nodes = slices.Clone(w.nodes)
	c.leads = slices.Clone(w.leads)
	c.asks, c.grants, c.backs = slices.Clip(w.asks), slices.Clip(w.grants), slices.Clip(w.backs)
	return &c
}

func (t *leaseTable) copied() *leaseTable {
	if t == nil {
		return nil
	}
	c := *t
	c.books = make(map[raft.ServerID]*booking, len(t.books))
	for id, b := range t.books {
		d := *b
		d.past, d.lapses = slices.Clone(b.past), slices.Clone(b.lapses)
		c.books[id] = &d
	}
	c.waiting = slices.Clone(t.waiting)
	return &c
}

// lead returns a term of leadership to be changed, or nil.
func (w *world) lead(term uint64) *worldLead {
	for i, l := range w.leads {
		if l.term == term {
			c := *l
			c.table = l.table.copied()
			c.accepted, c.match, c.proofs = slices.Clone(l.accepted), slices.Clone(l.match), slices.Clone(l.proofs)
			w.leads[i] = &c
			return &c
		}
	}
	return nil
}

// deposed ends the beliefs of the leaders on node k of terms before its own.
func (w *world) deposed(k int) {
	for _, l := range w.leads {
		if l.node == k && l.alive && l.term < w.nodes[k].term {
			w.lead(l.term).alive = false
		}
	}
}

func (w *world) applyUpTo(k, index int) {
	n := &w.nodes[k]
	n.applied = max(n.applied, min(index, len(n.log)))
}

// canonical is what tells two worlds apart: instants count from their owner's clock, and what is over is
// over. Bounds that were used up are part of it, so the exploration is finite.
func (w *world) canonical(b []byte) []byte {
	num := func(vs ...int) {
		for _, v := range vs {
			b = binary.AppendVarint(b, int64(v))
		}
	}
	flag := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	left := func(end, now instant) {
		if end > now {
			num(int(end - now))
		} else {
			num(0)
		}
	}
	ask := func(a worldAsk) {
		num(a.node, int(a.term), int(a.ask.boot[0]), int(a.ask.nonce), int(a.ask.applied), int(a.ask.adopted), int(a.ask.dropped))
	}
	u := w.used
	num(u.asks, u.ticks, u.crashes, u.elections, u.revokes, u.proofs, u.removes, u.adds, u.back, u.hellos, u.late, w.acked)
	for k := range w.nodes {
		n := &w.nodes[k]
		num(n.boot, int(n.term), n.applied, len(n.log))
		for _, e := range n.log {
			num(int(e.term), int(e.kind), e.node)
		}
		h := &n.holder
		num(int(h.nonce), int(h.adopted), int(h.dropped))
		flag(h.open)
		if h.open {
			num(int(n.clock - h.asked))
		}
		left(h.end.add(-leaseGuard), n.clock)
		flag(n.reading)
		flag(n.reading && n.mark == h.run)
		flag(n.flag)
		flag(n.late != nil)
		if n.late != nil {
			ask(worldAsk{term: n.lateTo, ask: *n.late})
		}
	}
	for _, l := range w.leads {
		num(l.node, l.boot, l.epoch, l.commit, l.clearing)
		flag(l.alive)
		num(l.accepted...)
		num(l.match...)
		num(len(l.proofs))
		for _, p := range l.proofs {
			ask(p.ask)
			num(p.after)
			flag(p.sent)
		}
		flag(l.table != nil)
		if l.table == nil {
			continue
		}
		now := w.nodes[l.node].clock
		num(int(l.table.acked))
		for k := range w.s.nodes {
			bk := l.table.books[serverID(k)]
			if bk == nil {
				b = append(b, 'x')
				continue
			}
			b = append(b, bk.boot...)
			left(bk.bound, now)
			left(bk.inherited, now)
			var past instant
			for _, o := range bk.past {
				past = max(past, o.bound)
			}
			left(past, now)
			num(int(bk.applied), int(bk.booked), int(bk.dropped), len(bk.lapses))
			flag(bk.barred)
			flag(bk.bound != 0)
		}
	}
	for _, a := range w.asks {
		if w.askMatters(a) {
			b = append(b, 'a')
			ask(a)
		}
	}
	for _, g := range w.grants {
		if w.grantMatters(g) {
			b = append(b, 'g')
			num(g.node, int(g.grant.term), int(g.grant.nonce), int(g.grant.boot[0]))
		}
	}
	num(len(w.backs))
	for _, a := range w.backs {
		ask(a)
	}
	return b
}
