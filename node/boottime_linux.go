package node

import "golang.org/x/sys/unix"

// bootClock reads CLOCK_BOOTTIME, which goes on while the machine is suspended; Go's own monotonic
// clock stands still then (golang/go#24595). A kernel without it cannot hold leases.
func bootClock() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return instant(ts.Nano())
}
