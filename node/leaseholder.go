package node

import "time"

// A leaseHolder is a member's side of its read lease. It is a pure state machine: the caller holds a
// lock around every method, and brings the time. Nothing of it is ever stored: after a restart the
// boot id is another, and old grants name the old one.
//
// Invariants: a lease in force ends no later than length after the moment its ask was noted; while one
// run of leases lasts, the member's copy holds everything that has been acknowledged.
type leaseHolder struct {
	boot string

	nonce   uint64  // of the newest ask; never used twice within a boot
	asked   instant // when it was noted, before it was sent
	skew    time.Duration
	open    bool   // the newest ask has not been answered yet
	adopted uint64 // highest term that was followed
	dropped uint64 // grants up to this nonce are refused

	term     uint64
	end      instant       // 0: no lease
	wallSkew time.Duration // wall clock minus boot clock when the lease's ask was noted
	run      uint64        // numbers the unbroken runs of leases; 0: none yet
	length   time.Duration // of the newest lease; 0: none yet
}

// adopt follows a term: leases of older terms end here and now, and grants that are still under way
// are refused.
func (h *leaseHolder) adopt(term uint64) {
	if term <= h.adopted {
		return
	}
	h.adopted = term
	h.drop()
}

// drop ends the lease and refuses every grant that was asked for so far.
func (h *leaseHolder) drop() {
	h.end, h.open, h.dropped = 0, false, h.nonce
}

// ask notes a new ask. skew is the wall clock minus the boot clock.
func (h *leaseHolder) ask(now instant, skew time.Duration) (nonce uint64) {
	h.nonce++
	h.asked, h.skew, h.open = now, skew, true
	return h.nonce
}

// grant takes a grant, or refuses it: it must answer the newest ask of this life, from a leader that
// is not older than the one last followed. Where no lease is in force at now, a new run begins.
func (h *leaseHolder) grant(now instant, skew time.Duration, g leaseGrant) bool {
	if !h.open || g.boot != h.boot || g.nonce != h.nonce || g.nonce <= h.dropped || g.term < h.adopted || g.length <= 0 {
		return false
	}
	if !h.valid(now, skew) {
		h.run++
	}
	h.adopted, h.term, h.open = g.term, g.term, false
	h.end, h.wallSkew, h.length = h.asked.add(g.length), h.skew, g.length
	return true
}

// valid reports whether the lease covers now. Call it after the state was read, never before, with a
// clock that was read after the state. A wall clock that moved against the boot clock ends the lease:
// the machine may have been stopped without either of them noticing alone.
func (h *leaseHolder) valid(now instant, skew time.Duration) bool {
	return h.end != 0 && now < h.end.add(-leaseGuard) && (skew-h.wallSkew).Abs() <= leaseGuard
}

// covers reports whether the lease covers an answer whose state was read during the given run. A
// lease that began after the state was read says nothing of that state: it may be older than what was
// acknowledged while this member had no lease.
func (h *leaseHolder) covers(now instant, skew time.Duration, run uint64) bool {
	return run == h.run && h.valid(now, skew)
}

// left is how long the lease still lasts.
func (h *leaseHolder) left(now instant, skew time.Duration) time.Duration {
	if !h.valid(now, skew) {
		return 0
	}
	return h.end.add(-leaseGuard).sub(now)
}
