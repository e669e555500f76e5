package node

import (
	"time"

	"revoked/node/lease"
)

// steadyClock returns the clock for the intake: Go's monotonic clock. The boot clock is not used:
// after a suspension the kernel adds the time slept to it, on some machines in whole seconds. If
// the intake's clock gained a second, it would break the promise of the leases. A lost second only
// makes revocations wait longer.
func steadyClock() func() lease.Instant {
	began := time.Now()
	return func() lease.Instant { return lease.Instant(time.Since(began)) }
}

// took records that Raft's log receives entries of the terms from low to high. For a snapshot, low
// is 0. Raft does not become a candidate before took has returned.
func (l *leases) took(low, high uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.intake.Took(low, high, l.steady())
}

// lastIntake returns an instant of the boot clock after which the log received no entry of a term
// below the given one. The caller holds the lock.
func (l *leases) lastIntake(term uint64) lease.Instant {
	elapsed := l.steady().Sub(l.intake.Before(term))
	return l.now().Add(-elapsed)
}
