//go:build !linux

package node

import "time"

var started = time.Now()

// bootClock is the monotonic clock where there is no better one: for development only, since it may
// stand still while the machine is suspended. The check against the wall clock is what is left then.
func bootClock() instant { return instant(time.Since(started)) }
