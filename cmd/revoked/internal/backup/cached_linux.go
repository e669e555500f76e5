package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached removes the synced pages of a file. So later reads of the file come
// from the disk, and a backup does not evict the pages of the store from memory. The system may
// ignore this advice.
func dropCached(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
