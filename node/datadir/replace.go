package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"revoked"
	"revoked/internal/durable"
)

const (
	stagedDir = "recovery.tmp" // directory of a new member that may be incomplete
	readyDir  = "recovery"     // directory of a complete new member, which replaces the current one
)

// RecordFile describes the recovery that created a data directory.
const RecordFile = "recovery.json"

// OpenMember locks dir and reads the identity of the member that it belongs to. It writes only the
// lock file, and only in the data directory of a node. If a replacement was interrupted, the result
// is nil, and the caller must call Complete. unlock is nil only if err is not.
//
// It returns ErrConflict if a process uses dir, and ErrUnprocessable if dir belongs to no member of
// a cluster.
func OpenMember(dir string) (id *Identity, unlock func() error, err error) {
	if !isNode(dir) {
		return nil, nil, fmt.Errorf("%w: %s is not a data directory of a node", revoked.ErrUnprocessable, dir)
	}
	lock, err := Lock(dir)
	if err != nil {
		return nil, nil, err
	}
	if !exists(filepath.Join(dir, readyDir)) {
		if id, err = readMember(dir); err != nil {
			return nil, nil, errors.Join(err, lock.Close())
		}
	}
	return id, lock.Close, nil
}

func isNode(dir string) bool {
	return exists(filepath.Join(dir, identityFile)) || exists(filepath.Join(dir, readyDir))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func readMember(dir string) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id, err := parseIdentity(dir, b)
	switch {
	case err != nil:
		return nil, err
	case id.Left:
		return nil, fmt.Errorf("%w: %s left its cluster (%s)", revoked.ErrUnprocessable, id.NodeID, id.ClusterID)
	case id.ClusterID == "":
		return nil, fmt.Errorf("%w: %s has not joined a cluster yet", revoked.ErrUnprocessable, id.NodeID)
	}
	return id, id.checkComplete()
}

// Stage returns an empty directory inside dir for a new member. Replace replaces the current member
// with it. The caller holds the lock of dir.
func Stage(dir string) (string, error) {
	staged := filepath.Join(dir, stagedDir)
	if err := errors.Join(os.RemoveAll(staged), os.Mkdir(staged, 0o700)); err != nil {
		return "", fmt.Errorf("create %s: %w", staged, err)
	}
	return staged, nil
}

// Replace replaces the current member with the staged member, which must be complete and durable.
// If the process crashes during Replace, the next Open or Complete leaves either the current member
// or the new one in dir. One rename decides which. The caller holds the lock of dir.
func Replace(dir string) error {
	staged := filepath.Join(dir, stagedDir)
	err := durable.SyncDir(staged)
	if err == nil {
		err = os.Rename(staged, filepath.Join(dir, readyDir))
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("replace member: %w", err)
	}
	_, err = Complete(dir)
	return err
}

// Complete finishes a Replace that a crash interrupted, and removes a staged member that was never
// complete. It reports whether it replaced the member. The caller holds the lock of dir.
func Complete(dir string) (replaced bool, err error) {
	if err := os.RemoveAll(filepath.Join(dir, stagedDir)); err != nil {
		return false, fmt.Errorf("remove staged member: %w", err)
	}
	if !exists(filepath.Join(dir, readyDir)) {
		return false, nil
	}
	for _, step := range replaceSteps(dir) {
		if err := step(); err != nil {
			return false, fmt.Errorf("replace member: %w", err)
		}
	}
	return true, nil
}

// replaceSteps returns the steps of Complete. Each step may be repeated, even if it was interrupted
// or if later steps have already run. While a directory contains files of two members, it has no
// identity file. So an older program, which does not support readyDir, refuses to start from it.
func replaceSteps(dir string) []func() error {
	ready := filepath.Join(dir, readyDir)
	steps := []func() error{func() error {
		if !exists(filepath.Join(ready, identityFile)) { // already in place
			return nil
		}
		return errors.Join(removeIfExists(filepath.Join(dir, identityFile)), durable.SyncDir(dir))
	}}
	for _, name := range append([]string{RecordFile}, dataFiles...) {
		steps = append(steps, func() error { return move(ready, dir, name) })
	}
	return append(steps,
		func() error { return move(ready, dir, identityFile) },
		func() error { return errors.Join(os.RemoveAll(ready), durable.SyncDir(dir)) })
}

func removeIfExists(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// move moves the named file or directory between two directories, and replaces one of the same
// name. If the source does not exist, an earlier call has moved it, and move does nothing.
func move(from, to, name string) error {
	source, target := filepath.Join(from, name), filepath.Join(to, name)
	if !exists(source) {
		return nil
	}
	err := os.RemoveAll(target)
	if err == nil {
		err = os.Rename(source, target)
	}
	return errors.Join(err, durable.SyncDir(from), durable.SyncDir(to))
}
