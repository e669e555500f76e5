package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached asks the system to forget the synced pages of a file. So reads come from the disk, and
// a backup does not displace the store from the memory. It is advice, which may be ignored.
func dropCached(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
