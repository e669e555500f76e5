package node

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/mutant"
)

// Lease time is an instant on CLOCK_BOOTTIME of one machine: it goes on while the machine is
// suspended, and means nothing on another machine.
type instant int64 // nanoseconds

func (t instant) add(d time.Duration) instant { return t + instant(d) }
func (t instant) sub(u instant) time.Duration { return time.Duration(t - u) }

// The constants of the lease argument (DESIGN.md). They are the same on every node of a version.
const (
	rateBound  = 0.01                  // e: how far a clock's rate may be off
	leaseGuard = 50 * time.Millisecond // d
)

// boundAfter is how long a booking holds on the leader's clock: whatever a holder makes of a lease
// of length l on a clock of its own, it has ended by then.
func boundAfter(l time.Duration) time.Duration {
	return time.Duration(float64(l)*(1+rateBound)/(1-rateBound)) + leaseGuard
}

// A leaseAsk is a member's wish for a read lease.
type leaseAsk struct {
	server  raft.ServerID
	boot    string
	nonce   uint64
	applied uint64
	adopted uint64 // highest term it has adopted: older leases are dropped
	dropped uint64 // it refuses every grant with a nonce up to this one
}

// A leaseGrant answers one ask.
type leaseGrant struct {
	term   uint64
	nonce  uint64
	boot   string
	length time.Duration
}

// A refusalReason says why an ask was not admitted; empty when it was.
type refusalReason string

// The reasons, as metric labels.
const (
	admitted         refusalReason = ""
	refusedNotMember refusalReason = "not_member"
	refusedBehind    refusalReason = "behind"
	refusedDiverged  refusalReason = "diverged"
	refusedLapsed    refusalReason = "lapsed"
	refusedClock     refusalReason = "clock"
	refusedRate      refusalReason = "clock_rate"
	refusedReturned  refusalReason = "returned"
	refusedSilent    refusalReason = "no_report"
)

// A leaseTable is the leader's side of the read leases in one term: who may still be answering from
// its own copy, until when, and which indexes are therefore final. It is a pure state machine: the
// caller holds one lock around every method, and brings the time.
//
// Invariants: bounds only grow until their holder says that it has dropped what they stand for; acked
// only grows; an index is acknowledged only when no booking is left whose holder has not applied it.
type leaseTable struct {
	term   uint64
	epoch  uint64 // index of the term's first command
	length time.Duration

	acked   uint64 // highest index that was acknowledged in this term
	books   map[raft.ServerID]*booking
	waiting []*leaseWaiter
}

// A booking is what the leader must assume of one member.
type booking struct {
	boot      string  // whose bound and applied are meant; empty: nothing was booked in this term
	bound     instant // 0: nothing booked
	applied   uint64
	inherited instant // until when a lease of an earlier term may last; 0: cleared
	past      []oldBoot
	barred    bool   // its removal is under way: no new lease
	booked    uint64 // highest nonce that was booked under boot
	dropped   uint64 // under boot it refuses every grant up to this nonce
	reserved  uint64 // what it had applied when a place was kept for it last

	lapses   []instant // when its booking ran out before it was renewed
	keptUp   instant   // since when it has been keeping up, after two lapses
	goal     uint64    // while it must keep up: what it has to have applied next,
	goalSet  instant   // and since when
	lastSeen instant
}

// An oldBoot is a booking of an earlier life of a member: what it had applied counts no more.
type oldBoot struct {
	boot  string
	bound instant
}

type leaseWaiter struct {
	index uint64
	since instant
	done  chan struct{}
}

// newLeaseTable begins a term whose first command, at index epoch, has been applied here at now. Every
// member is booked for the longest lease that an earlier leader can have granted.
func newLeaseTable(term, epoch uint64, now instant, length, longest time.Duration, members []raft.ServerID) *leaseTable {
	t := &leaseTable{term: term, epoch: epoch, length: length, books: map[raft.ServerID]*booking{}}
	inherited := now.add(boundAfter(longest))
	if mutant.On(mutant.NoNewLeaderWait) {
		inherited = 0
	}
	for _, m := range members {
		t.books[m] = &booking{inherited: inherited, lastSeen: now}
	}
	return t
}

// addMember makes room for a server that came in during the term; it has held no lease.
func (t *leaseTable) addMember(id raft.ServerID, now instant) {
	if t.books[id] == nil {
		t.books[id] = &booking{lastSeen: now}
	}
}

// setLength changes the length of the grants to come.
func (t *leaseTable) setLength(l time.Duration) { t.length = l }

// admit decides on an ask and, if it is admitted, books the member before it returns, whether or not a
// grant will be sent.
func (t *leaseTable) admit(now instant, a leaseAsk) refusalReason {
	b := t.books[a.server]
	if b == nil {
		return refusedNotMember
	}
	t.adopt(a)
	t.report(now, a.server, a.boot, a.applied)
	b.dropped = max(b.dropped, a.dropped)
	if b.barred || a.nonce <= b.dropped { // its removal is under way, or it would not take the grant
		return refusedReturned
	}
	if low := t.floor(now); b.applied < low {
		t.reserve(now, b, a.nonce, low)
		return refusedBehind
	}
	if !t.steady(now, b) {
		return refusedLapsed
	}
	if !mutant.On(mutant.BookAtGrant) {
		t.book(now, b, a.nonce)
	}
	return admitted
}

// near is how many entries a member may be behind and have a place kept for it.
const near = 64

// reserve keeps a place for a member that is just behind: from now on what is acknowledged waits for
// it, as if it had been admitted. Without that a member far away would never be admitted while
// revocations follow each other closely: what it says it has applied is one way old, and what nearer members
// have had acknowledged meanwhile is newer. Whoever lapses, or has not moved since, gets no place.
func (t *leaseTable) reserve(now instant, b *booking, nonce, low uint64) {
	if b.bound > now || low-b.applied > near || b.applied <= b.reserved || !t.steady(now, b) {
		return
	}
	b.reserved = b.applied
	t.book(now, b, nonce)
}

// kept reports whether what is acknowledged waits for a member.
func (t *leaseTable) kept(id raft.ServerID, now instant) bool {
	b := t.books[id]
	return b != nil && b.bound > now
}

// book notes that a member may hold a lease that it asks for now.
func (t *leaseTable) book(now instant, b *booking, nonce uint64) {
	b.bound = max(b.bound, now.add(boundAfter(t.length)))
	b.booked = max(b.booked, nonce)
}

// floor is the lowest applied index with which a member is admitted.
func (t *leaseTable) floor(now instant) uint64 {
	low := max(t.epoch, t.acked)
	for _, w := range t.waiting {
		if now.sub(w.since) > t.length/4 {
			low = max(low, w.index)
		}
	}
	return low
}

// adopt clears what was inherited from earlier terms once the member says that it follows this one
// and has dropped older leases. It never clears a booking of this term.
func (t *leaseTable) adopt(a leaseAsk) {
	if b := t.books[a.server]; b != nil && a.adopted >= t.term {
		b.inherited = 0
		if mutant.On(mutant.ClearNewerBooking) {
			b.bound = 0
		}
	}
}

// report notes what a member has applied in the life named by boot.
func (t *leaseTable) report(now instant, id raft.ServerID, boot string, applied uint64) {
	b := t.books[id]
	if b == nil {
		return
	}
	if b.boot != boot {
		b.past = slices.DeleteFunc(b.past, func(o oldBoot) bool { return o.bound <= now })
		if b.bound > now {
			b.past = append(b.past, oldBoot{b.boot, b.bound})
		}
		b.boot, b.bound, b.applied, b.booked, b.dropped, b.reserved = boot, 0, 0, 0, 0, 0
	}
	if applied < b.applied { // a report that was overtaken
		return
	}
	b.applied, b.lastSeen = applied, now
	if b.keptUp != 0 {
		t.followUp(now, b)
	}
}

// giveBack ends a member's booking: it has said that it answers no more and refuses every grant up to
// the nonce dropped. Its word can be overtaken by a later ask on another stream: what was booked for a
// later nonce stays booked.
func (t *leaseTable) giveBack(id raft.ServerID, boot string, dropped uint64) {
	b := t.books[id]
	if b == nil || b.boot != boot {
		return
	}
	b.inherited, b.dropped = 0, max(b.dropped, dropped)
	if b.booked <= dropped {
		b.bound = 0
	}
}

// bar keeps a member from new leases: its removal is under way.
func (t *leaseTable) bar(id raft.ServerID, barred bool) {
	if b := t.books[id]; b != nil {
		b.barred = barred
	}
}

// free reports whether a member can hold no lease any more, and else until when it may.
func (t *leaseTable) free(id raft.ServerID, now instant) (bool, instant) {
	b := t.books[id]
	if b == nil {
		return true, 0
	}
	until := max(b.bound, b.inherited)
	for _, o := range b.past {
		until = max(until, o.bound)
	}
	return until <= now, until
}

// forget drops a server that is in the configuration no more. It must be free.
func (t *leaseTable) forget(id raft.ServerID) { delete(t.books, id) }

// holdsUp reports whether the booking forbids to acknowledge index at now.
func (b *booking) holdsUp(now instant, index uint64) bool {
	if mutant.On(mutant.NoAckWait) {
		return false
	}
	if b.inherited > now {
		return true
	}
	if slices.ContainsFunc(b.past, func(o oldBoot) bool { return o.bound > now }) {
		return true
	}
	return b.bound > now && b.applied < index
}

// settle acknowledges index if nobody holds it up, the leader itself having applied it: nobody can
// say anything older any more. acknowledged indexes raise the bar for admission.
func (t *leaseTable) settle(now instant, index uint64) bool {
	if index <= t.acked {
		return true
	}
	for _, b := range t.books {
		if b.holdsUp(now, index) {
			return false
		}
	}
	t.acked = index
	return true
}

// wait adds a waiter for index, which the leader has applied; done is closed when it is final.
func (t *leaseTable) wait(now instant, index uint64) *leaseWaiter {
	w := &leaseWaiter{index: index, since: now, done: make(chan struct{})}
	if t.settle(now, index) {
		close(w.done)
		return w
	}
	t.waiting = append(t.waiting, w)
	return w
}

// abandon takes a waiter out.
func (t *leaseTable) abandon(w *leaseWaiter) {
	t.waiting = slices.DeleteFunc(t.waiting, func(o *leaseWaiter) bool { return o == w })
}

// release closes the waiters whose index has become final.
func (t *leaseTable) release(now instant) {
	t.waiting = slices.DeleteFunc(t.waiting, func(w *leaseWaiter) bool {
		if t.settle(now, w.index) {
			close(w.done)
			return true
		}
		return false
	})
}

// holdingUp names the members that what waits for acknowledgement waits for: they may still answer from
// an older copy.
func (t *leaseTable) holdingUp(now instant) []raft.ServerID {
	var newest uint64
	for _, w := range t.waiting {
		newest = max(newest, w.index)
	}
	var ids []raft.ServerID
	for id, b := range t.books {
		if newest > t.acked && b.holdsUp(now, newest) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// nextBound is the first moment after now at which a booking runs out, if anything waits; else 0.
func (t *leaseTable) nextBound(now instant) instant {
	if len(t.waiting) == 0 {
		return 0
	}
	var next instant
	consider := func(at instant) {
		if at > now && (next == 0 || at < next) {
			next = at
		}
	}
	for _, b := range t.books {
		consider(b.bound)
		consider(b.inherited)
		for _, o := range b.past {
			consider(o.bound)
		}
	}
	return next
}

// left is how long a member may still answer from its own copy, as the leader must assume.
func (t *leaseTable) left(id raft.ServerID, now instant) time.Duration {
	if ok, until := t.free(id, now); !ok {
		return until.sub(now)
	}
	return 0
}
