//go:build !linux

package host

// Filesystem returns no name: only the Linux version detects a file system in memory.
func Filesystem(string) (name string, inMemory bool, err error) { return "unknown", false, nil }
