//go:build !linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// filesystemOf names no file system here: only Linux is asked whether it is one in memory.
func filesystemOf(string) (name string, inMemory bool, err error) { return "unknown", false, nil }

func loadAverage() (float64, error) { return 0, errors.ErrUnsupported }

func residentBytes(int) (int64, error) {
	return 0, fmt.Errorf("resident memory on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func processorTime(int) (time.Duration, error) {
	return 0, fmt.Errorf("processor time on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// diskBytes returns the sizes of the files below dir, in all and by first name below dir.
func diskBytes(dir string) (total int64, parts map[string]int64, err error) {
	parts = map[string]int64{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running node removes files
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(rel, string(filepath.Separator))
		parts[name] += info.Size()
		total += info.Size()
		return nil
	})
	return total, parts, err
}
