//go:build !linux

package config

// FreeBytes returns 0: only the Linux version knows the free space.
func FreeBytes(string) int64 { return 0 }
