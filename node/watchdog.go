package node

import (
	"context"
	"log/slog"
	"time"
)

// A watchdog ends the leadership of a node whose entries do not commit. A leader whose disk hangs
// keeps sending heartbeats (hashicorp/raft#503), so no other node would start an election.
type watchdog struct {
	log      *slog.Logger
	leases   *leases
	transfer func() error
	hung     func(stalled time.Duration)
	fed      chan struct{}
}

// feed records that an entry was committed. It never blocks.
func (w *watchdog) feed() {
	select {
	case w.fed <- struct{}{}:
	default:
	}
}

// run watches until ctx ends with the term. If no entry commits for two leases, it transfers
// leadership. If Raft does not answer that request, it is blocked on the disk, and a clean shutdown
// would block as well. Then run ends the process.
func (w *watchdog) run(ctx context.Context) {
	const maxTicks = 16 // each a quarter of a lease; a pause of the process counts as one tick
	last, next := time.Now(), time.Now()
	var transfer chan error // result of the attempt under way
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
				w.log.Warn("transferring leadership failed", "error", err)
			}
			continue
		case <-time.After(w.leases.renewEvery()):
		}
		stalled := time.Since(last)
		if stalled <= w.maxStall() || transfer == nil && time.Now().Before(next) {
			continue
		}
		if transfer == nil {
			w.log.Error("entries do not commit, transferring leadership", "stalled_seconds", stalled.Seconds())
			transfer, ticks = make(chan error, 1), 0
			go func(done chan<- error) { done <- w.transfer() }(transfer) // Raft may never answer
		}
		if ticks++; ticks > maxTicks {
			w.hung(stalled)
			return
		}
	}
}

// maxStall returns how long entries may take to commit.
func (w *watchdog) maxStall() time.Duration { return 2 * w.leases.settings().LeaseDuration }
