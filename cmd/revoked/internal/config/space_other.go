//go:build !linux

package config

// freeBytes returns 0: only the Linux version knows the free space.
func freeBytes(string) int64 { return 0 }
