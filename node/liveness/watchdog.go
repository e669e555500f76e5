package liveness

import (
	"context"
	"log/slog"
	"time"
)

// A Watchdog ends the leadership of a node that cannot commit entries. A leader whose disk hangs
// keeps sending heartbeats (hashicorp/raft#503), so no other node would start an election.
type Watchdog struct {
	Log        *slog.Logger
	RenewEvery func() time.Duration        // interval between the leader's own entries
	Lease      func() time.Duration        // length of a lease
	Transfer   func() error                // transfers leadership; may block forever
	Hung       func(stalled time.Duration) // must end the process

	fed chan struct{}
}

// NewWatchdog returns a copy of w that is ready to Feed and Run.
func NewWatchdog(w Watchdog) *Watchdog {
	w.fed = make(chan struct{}, 1)
	return &w
}

// Feed records that an entry was committed. It never blocks.
func (w *Watchdog) Feed() {
	select {
	case w.fed <- struct{}{}:
	default:
	}
}

// Run watches until ctx, which must end with the term, ends. If no entry commits for two lease
// lengths, Run transfers leadership. If Raft does not answer that request, it is blocked on the
// disk, and a clean shutdown would block as well. Then Run calls Hung, which ends the process.
func (w *Watchdog) Run(ctx context.Context) {
	const maxTicks = 16 // a tick is a quarter of a lease; a pause of the process counts as one tick
	last, next := time.Now(), time.Now()
	var transfer chan error // result of the attempt in progress
	ticks := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.fed:
			last, ticks = time.Now(), 0
			continue
		case err := <-transfer:
			transfer = nil
			next = time.Now().Add(w.maxStall())
			if err != nil {
				w.Log.Warn("leadership transfer failed", "error", err)
			}
			continue
		case <-time.After(w.RenewEvery()):
		}
		stalled := time.Since(last)
		if stalled <= w.maxStall() || transfer == nil && time.Now().Before(next) {
			continue
		}
		if transfer == nil {
			w.Log.Error("entries do not commit; transferring leadership", "stalled_seconds", stalled.Seconds())
			transfer, ticks = make(chan error, 1), 0
			go func(done chan<- error) { done <- w.Transfer() }(transfer) // Transfer may block forever
		}
		if ticks++; ticks > maxTicks {
			w.Hung(stalled)
			return
		}
	}
}

// maxStall returns the longest time without a committed entry that Run tolerates.
func (w *Watchdog) maxStall() time.Duration { return 2 * w.Lease() }
