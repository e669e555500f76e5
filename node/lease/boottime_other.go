//go:build !linux

package lease

import "time"

var started = time.Now()

// BootClock reads Go's monotonic clock, for development only: it may stop while the machine is
// suspended. In that case only the comparison with the wall clock ends a lease.
func BootClock() Instant { return Instant(time.Since(started)) }
