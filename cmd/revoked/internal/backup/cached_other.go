//go:build !linux

package backup

import "os"

// dropCached does nothing: it is implemented only for Linux.
func dropCached(*os.File) {}
