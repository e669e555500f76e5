package lease

import "time"

// A Holder is a member's side of its read lease. The caller holds one lock around every method. A
// Holder is not stored: after a restart the boot id differs, and old replies contain the old id.
//
// The parameter skew of the methods is the wall clock minus the boot clock, at the time of the
// call.
//
// Invariants: a lease expires no later than its length after its request was recorded. During one
// run of leases, the member's copy contains every acknowledged change.
type Holder struct {
	server, boot string

	nonce       uint64  // nonce of the newest request; never reused in one incarnation
	requestedAt Instant // when that request was recorded, before it was sent
	skew        time.Duration
	open        bool   // whether that request has not been answered yet
	adopted     uint64 // highest term adopted
	dropped     uint64 // replies up to this nonce are rejected

	end      Instant       // 0: no lease
	wallSkew time.Duration // skew when the request for the lease was recorded
	run      uint64        // number of the unbroken run of leases; 0: none yet
	length   time.Duration // length of the newest lease; 0: none yet
}

// NewHolder returns a Holder without a lease, for one incarnation of a server.
func NewHolder(server, boot string) *Holder { return &Holder{server: server, boot: boot} }

// Adopted returns the highest term adopted and the nonce up to which replies are rejected.
func (h *Holder) Adopted() (term, dropped uint64) { return h.adopted, h.dropped }

// Run returns the number of the current or last run of leases. It is 0 before the first lease.
func (h *Holder) Run() uint64 { return h.run }

// Length returns the length of the newest lease, or 0 before the first.
func (h *Holder) Length() time.Duration { return h.length }

// Adopt sets the highest adopted term to term, unless term is lower. A newer term ends the lease
// and rejects the replies to all requests so far.
func (h *Holder) Adopt(term uint64) {
	if term > h.adopted {
		h.adopted = term
		h.Drop()
	}
}

// Drop ends the lease and rejects the replies to all requests so far.
func (h *Holder) Drop() {
	h.end, h.open, h.dropped = 0, false, h.nonce
}

// Request records a new request and returns it, without Applied. Send it after Request returned.
func (h *Holder) Request(now Instant, skew time.Duration) Request {
	h.nonce++
	h.requestedAt, h.skew, h.open = now, skew, true
	return Request{Server: h.server, Boot: h.boot, Nonce: h.nonce, Adopted: h.adopted, Dropped: h.dropped}
}

// Take handles a reply and reports whether it accepted the lease. The reply must answer the newest
// request of this incarnation and come from a term that is not below the adopted term. If no lease
// is in force at now, a new run begins.
func (h *Holder) Take(now Instant, skew time.Duration, r Reply) bool {
	if !h.open || r.Boot != h.boot || r.Nonce != h.nonce || r.Nonce <= h.dropped || r.Term < h.adopted || r.Length <= 0 {
		return false
	}
	if !h.Valid(now, skew) {
		h.run++
	}
	h.adopted, h.open = r.Term, false
	h.end, h.wallSkew, h.length = h.requestedAt.Add(r.Length), h.skew, r.Length
	return true
}

// Valid reports whether a lease is in force at now. The lease also counts as expired if the wall
// clock moved relative to the boot clock. One of the clocks may have stopped while the machine was
// suspended.
func (h *Holder) Valid(now Instant, skew time.Duration) bool {
	return h.end != 0 && now < h.end.Add(-Guard) && (skew-h.wallSkew).Abs() <= Guard
}

// Covers reports whether the lease covers an answer from state that was read during the given run.
// now and skew must be read after the state. A lease that began after the state was read does not
// cover it: the state may lack changes that were acknowledged before the lease.
func (h *Holder) Covers(now Instant, skew time.Duration, run uint64) bool {
	return run == h.run && h.Valid(now, skew)
}

// Remaining returns how long the lease still lasts.
func (h *Holder) Remaining(now Instant, skew time.Duration) time.Duration {
	if !h.Valid(now, skew) {
		return 0
	}
	return h.end.Add(-Guard).Sub(now)
}
