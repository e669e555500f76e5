package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached asks the system to forget the synced pages of a file. Then reads come from the disk,
// and a backup does not displace the store from memory. The system may ignore this advice.
func dropCached(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
