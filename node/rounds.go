package node

import (
	"context"
	"sync"
	"time"
)

// rounds lets the requests of all members share one barrier. The leader renews its own lease at a
// steady interval and asks the members to send their requests shortly before. Their leases are
// reserved by then, so the entry that the leader proposes for itself is the barrier for all of
// them. A request outside the window runs its own barrier.
//
// Without rounds an idle cluster writes one entry for each member's request, and revocations wait
// behind them on the disk.
type rounds struct {
	mu     sync.Mutex
	nextAt time.Time // time of the leader's next renewal; zero: not planned
	round  *round
}

// A round is one barrier and the requests that wait for it.
type round struct {
	done chan struct{}
	ok   bool // set before done is closed
}

func newRounds() *rounds { return &rounds{round: newRound()} }

func newRound() *round { return &round{done: make(chan struct{})} }

func (r *round) finish(ok bool) {
	r.ok = ok
	close(r.done)
}

// window returns how long before the planned renewal a request joins it. If the renewal is late,
// requests join for as long after that time.
func window(every time.Duration) time.Duration { return min(every/8, 50*time.Millisecond) }

// begin closes the current round to further requests and returns it: its barrier must be proposed
// after begin returned. next is the time of the next renewal.
func (r *rounds) begin(next time.Time) *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.round
	r.nextAt, r.round = next, newRound()
	return current
}

// stop fails the current round and plans no further one.
func (r *rounds) stop() { r.begin(time.Time{}).finish(false) }

// join waits for the next round if it is about to begin, and reports whether its barrier passed.
// The lease must be reserved before the call.
func (r *rounds) join(ctx context.Context, every time.Duration) bool {
	r.mu.Lock()
	current, wait := r.round, time.Until(r.nextAt)
	r.mu.Unlock()
	if wait.Abs() > window(every) {
		return false
	}
	select {
	case <-current.done:
		return current.ok
	case <-ctx.Done():
		return false
	}
}

// plan moves the leader's next renewal.
func (r *rounds) plan(next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nextAt = next
}

// next returns how long a member whose request came at arrived should wait before its next request.
// The wait ends at the first window at least half an interval after arrived. late is how late the
// member's requests usually arrive. It returns 0 if no round is planned or the answer came too late
// for that window.
func (r *rounds) next(every, late time.Duration, arrived time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nextAt.IsZero() {
		return 0
	}
	want := r.nextAt.Add(-window(every) / 2)
	if want.Sub(arrived) < every/2 {
		want = want.Add(every)
	}
	return max(0, time.Until(want)-late)
}
