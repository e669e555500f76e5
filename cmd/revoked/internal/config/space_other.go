//go:build !linux

package config

// FreeBytes returns 0: it is implemented only for Linux.
func FreeBytes(string) int64 { return 0 }
