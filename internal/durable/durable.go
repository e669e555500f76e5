// Package durable writes files that survive a crash: as a whole, or not at all.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Replace writes data to a temporary file in the directory of name, syncs it, and renames it to
// name. A reader sees the old or the new content, never with a wider mode than mode. The content is
// durable on return; the rename is durable only after SyncDir.
func Replace(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// SyncDir makes the directory entries of dir durable. The error wraps errors.ErrUnsupported or
// syscall.EINVAL on file systems that cannot sync a directory.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SyncDirIfSupported is SyncDir, but returns nil on file systems that cannot sync a directory.
func SyncDirIfSupported(dir string) error {
	err := SyncDir(dir)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}
