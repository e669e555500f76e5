package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// filesystemOf names the file system that dir is on, and whether it is one in memory.
func filesystemOf(dir string) (name string, inMemory bool, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "", false, fmt.Errorf("statfs %s: %w", dir, err)
	}
	switch uint32(st.Type) {
	case 0x01021994:
		return "tmpfs", true, nil
	case 0x858458f6:
		return "ramfs", true, nil
	case 0xef53:
		return "ext4", false, nil // ext2 and ext3 share the number
	case 0x58465342:
		return "xfs", false, nil
	case 0x9123683e:
		return "btrfs", false, nil
	case 0x2fc12fc1:
		return "zfs", false, nil
	case 0x794c7630:
		return "overlayfs", false, nil
	case 0xf2f52010:
		return "f2fs", false, nil
	case 0x6969:
		return "nfs", false, nil
	}
	return fmt.Sprintf("0x%x", uint32(st.Type)), false, nil
}

// loadAverage returns that of the last minute.
func loadAverage() (float64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	one, _, _ := strings.Cut(string(b), " ")
	return strconv.ParseFloat(one, 64)
}

// residentBytes returns the resident memory of a process.
func residentBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no VmRSS", pid)
}

// processorTime returns the processor time that a process has used.
func processorTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: short stat", pid)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on every Linux
	return time.Duration(ticks) * time.Second / perSecond, nil
}

// diskBytes returns the blocks that the files below dir take, in all and by first name below dir. A
// file with several hard links counts once.
func diskBytes(dir string) (total int64, parts map[string]int64, err error) {
	parts = map[string]int64{}
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running node removes files
		}
		if err != nil || d.IsDir() {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(rel, string(filepath.Separator))
		parts[name] += st.Blocks * 512
		total += st.Blocks * 512
		return nil
	})
	return total, parts, err
}
