package lease

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// BootClock reads CLOCK_BOOTTIME. Unlike Go's monotonic clock it advances while the machine is
// suspended (golang/go#24595). It panics on a kernel without that clock.
//
// Every answer from the local copy reads this clock. The system call never blocks, so BootClock
// skips the scheduler's bookkeeping, which would double the cost.
func BootClock() Instant {
	var ts unix.Timespec
	_, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if err != 0 {
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return Instant(ts.Nano())
}
