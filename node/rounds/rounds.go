package rounds

import (
	"context"
	"sync"
	"time"
)

// Rounds lets the requests of all members share one barrier. The leader renews its own lease at a
// steady interval and makes the members send their requests shortly before. Their leases are
// reserved by the time of the renewal. So the entry that the leader proposes for itself is the
// barrier for all of them. A request outside the window around the renewal runs its own barrier.
//
// Without rounds, an idle cluster would write one entry for each member's request, and revocations
// would wait for these writes to disk.
type Rounds struct {
	mu     sync.Mutex
	nextAt time.Time // time of the leader's next renewal; zero: not planned
	round  *Round
}

// A Round is one barrier and the requests that wait for it.
type Round struct {
	done chan struct{}
	ok   bool // set before done is closed
}

// New returns Rounds without a planned renewal. No request joins before the first call of Plan or
// Begin.
func New() *Rounds { return &Rounds{round: newRound()} }

func newRound() *Round { return &Round{done: make(chan struct{})} }

// Finish passes the result of the barrier to the requests that joined. Call it once.
func (r *Round) Finish(ok bool) {
	r.ok = ok
	close(r.done)
}

// window returns how long before the planned renewal requests can join its round. If the renewal is
// late, requests can join for equally long after the planned time.
func window(every time.Duration) time.Duration { return min(every/8, 50*time.Millisecond) }

// Begin closes the current round to further requests and returns it. The barrier of the returned
// round must be proposed after Begin has returned. next is the time of the next renewal.
func (r *Rounds) Begin(next time.Time) *Round {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.round
	r.nextAt, r.round = next, newRound()
	return current
}

// Stop fails the current round and plans no further one.
func (r *Rounds) Stop() { r.Begin(time.Time{}).Finish(false) }

// If a round is about to begin, Join waits for its barrier and reports whether the barrier
// succeeded. The lease must be reserved before the call.
func (r *Rounds) Join(ctx context.Context, every time.Duration) bool {
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

// Plan changes the time of the leader's next renewal.
func (r *Rounds) Plan(next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nextAt = next
}

// Next returns how long a member should wait before its next request. arrived is the time at which
// its last request arrived. The wait ends at the first window at least half an interval after
// arrived. late is how late the member's requests usually arrive. It returns 0 if no round is
// planned or it is too late for that window.
func (r *Rounds) Next(every, late time.Duration, arrived time.Time) time.Duration {
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
