//go:build !unix

package config

import "io/fs"

func deviceOf(fs.FileInfo) (id uint64, ok bool) { return 0, false }
