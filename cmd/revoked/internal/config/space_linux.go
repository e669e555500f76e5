package config

import "syscall"

// FreeBytes returns the free space of the file system that holds path, or 0 if it is unknown.
func FreeBytes(path string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
