package node

import (
	"context"
	"sync"
	"time"
)

// A rhythm lets the asks of all members rest on one proof. The leader renews its own lease at a steady
// pace, the others are told when to ask: a little before that. Their asks, booked by then, wait for the
// entry which the leader proposes for its own. Who comes at another time proves for itself.
//
// An idle cluster would otherwise write an entry for each member's ask, and a revocation meets one of
// them on the disk more often.
type rhythm struct {
	mu    sync.Mutex
	next  time.Time // the leader's next ask; zero: none is planned
	round *proofRound
}

// A proofRound is one proof and those that wait for it.
type proofRound struct {
	done  chan struct{}
	index uint64
	ok    bool
}

func newRhythm() *rhythm { return &rhythm{round: newProofRound()} }

func newProofRound() *proofRound { return &proofRound{done: make(chan struct{})} }

func (r *proofRound) finish(index uint64, ok bool) {
	r.index, r.ok = index, ok
	close(r.done)
}

// lull is how long before the leader's ask, or after it should have come, an ask waits for it; every is the
// interval between asks.
func lull(every time.Duration) time.Duration { return min(every/8, 50*time.Millisecond) }

// beat begins the leader's own ask, the next of which is planned at next, and returns the round that
// the entry to be proposed now proves: nobody joins it any more.
func (h *rhythm) beat(next time.Time) *proofRound {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.round
	h.next, h.round = next, newProofRound()
	return r
}

// stop ends the rhythm: who waits is told that nothing is proven.
func (h *rhythm) stop() {
	h.beat(time.Time{}).finish(0, false)
}

// join waits for the leader's next proof, if that is about to begin. What is booked before the call
// is proven by it.
func (h *rhythm) join(ctx context.Context, every time.Duration) (index uint64, ok bool) {
	h.mu.Lock()
	r, wait := h.round, time.Until(h.next)
	h.mu.Unlock()
	if wait > lull(every) || wait < -lull(every) {
		return 0, false
	}
	select {
	case <-r.done:
		return r.index, r.ok
	case <-ctx.Done():
		return 0, false
	}
}

// plan moves the leader's next ask.
func (h *rhythm) plan(next time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = next
}

// askIn is how long a member whose ask came at arrived, and is answered now, should wait until it asks
// again, so that it meets the first beat that is half an interval away from that or more. It is told by how
// much its asks are late. 0: no beat is planned, or the answer came too late for that.
func (h *rhythm) askIn(every, late time.Duration, arrived time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next.IsZero() {
		return 0
	}
	want := h.next.Add(-lull(every) / 2)
	if want.Sub(arrived) < every/2 {
		want = want.Add(every)
	}
	return max(0, time.Until(want)-late)
}
