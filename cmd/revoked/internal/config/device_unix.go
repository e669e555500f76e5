//go:build unix

package config

import (
	"io/fs"
	"syscall"
)

func deviceOf(st fs.FileInfo) (id uint64, ok bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(s.Dev), true // the type of Dev differs between systems
}
