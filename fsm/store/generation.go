package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked"
)

const (
	currentFile      = "CURRENT" // names the generation in use
	generationPrefix = "state-"
	checkpointDir    = "checkpoints"
)

func generationName(n int) string { return fmt.Sprintf("%s%06d", generationPrefix, n) }

// GenerationDir returns the directory of the n-th generation of the state in dir.
func GenerationDir(dir string, n int) string { return filepath.Join(dir, generationName(n)) }

// CheckpointDir returns the directory for the n-th checkpoint of the process.
func CheckpointDir(dir string, n uint64) string {
	return filepath.Join(dir, checkpointDir, fmt.Sprintf("cp-%d", n))
}

// IsEmpty reports whether dir contains no state.
func IsEmpty(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, currentFile))
	return errors.Is(err, os.ErrNotExist)
}

// Remove removes the n-th generation of the state in dir, and CURRENT.
func Remove(dir string, n int) error {
	return errors.Join(os.RemoveAll(GenerationDir(dir, n)), os.RemoveAll(filepath.Join(dir, currentFile)))
}

// Current returns the generation in use. In a directory without a state it creates the first one.
// It removes leftovers of an interrupted restore or snapshot. The error wraps revoked.ErrDamaged if
// CURRENT is malformed or its generation is missing.
func Current(fs FS, dir string) (int, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("create data directory: %w", err)
	}
	b, err := readFile(fs, filepath.Join(dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return 1, errors.Join(removeLeftovers(fs, dir, ""), first(fs, dir))
	}
	if err != nil {
		return 0, fmt.Errorf("read current generation: %w", err)
	}
	name, n := strings.TrimSpace(string(b)), 0
	if _, err := fmt.Sscanf(name, generationPrefix+"%d", &n); err != nil || name != generationName(n) {
		return 0, fmt.Errorf("%w: %s does not name a generation", revoked.ErrDamaged, filepath.Join(dir, currentFile))
	}
	if _, err := fs.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: generation %s is missing in %s", revoked.ErrDamaged, name, dir)
	}
	return n, removeLeftovers(fs, dir, name)
}

// first creates an empty generation and makes it the one in use.
func first(fs FS, dir string) error {
	if err := fs.MkdirAll(GenerationDir(dir, 1), 0o700); err != nil {
		return fmt.Errorf("create generation: %w", err)
	}
	return SetCurrent(fs, dir, 1)
}

// removeLeftovers removes every generation but current, all checkpoints, and a half-written
// CURRENT.
func removeLeftovers(fs FS, dir, current string) error {
	entries, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("list data directory: %w", err)
	}
	for _, e := range entries {
		if e != current && (strings.HasPrefix(e, generationPrefix) || e == checkpointDir || e == currentFile+".tmp") {
			if err := fs.RemoveAll(filepath.Join(dir, e)); err != nil {
				return fmt.Errorf("remove leftover: %w", err)
			}
		}
	}
	return nil
}

// SetCurrent makes the n-th generation the one in use by one rename. The change is durable on
// return. After an error either generation may be the one on disk.
func SetCurrent(fs FS, dir string, n int) error {
	tmp := filepath.Join(dir, currentFile+".tmp")
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write current generation: %w", err)
	}
	_, err = f.Write([]byte(generationName(n) + "\n"))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write current generation: %w", err)
	}
	if err := fs.Rename(tmp, filepath.Join(dir, currentFile)); err != nil {
		return fmt.Errorf("swap generation: %w", err)
	}
	return SyncDir(fs, dir)
}

func readFile(fs FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// SyncDir makes the directory entries of dir durable.
func SyncDir(fs FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
