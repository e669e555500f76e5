package node

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// bootClock reads CLOCK_BOOTTIME, which goes on while the machine is suspended; Go's own monotonic
// clock stands still then (golang/go#24595). A kernel without it cannot hold leases.
//
// Every answer reads it. The call never waits, so the scheduler is not told of it, which would take as
// long again.
func bootClock() instant {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return instant(ts.Nano())
}
