//go:build !linux

package lease

import "time"

var started = time.Now()

// BootClock reads Go's monotonic clock, for development only: it may stop while the machine is
// suspended. Then only the comparison with the wall clock ends the lease.
func BootClock() Instant { return Instant(time.Since(started)) }
