package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"revoked"
	"revoked/internal/durable"
)

const lockTimeout = time.Second

// LogFile is the name of the log file in the store's directory.
const LogFile = "raft.db"

// Damaged returns an error that wraps revoked.ErrDamaged and cause, names the file, and describes
// how to recover the node.
func Damaged(path string, cause error) error {
	return fmt.Errorf("%w: %s (%w): do not restore an older copy, which may lack votes or entries "+
		"that this node has acknowledged; move the data directory away and let the node join "+
		"as a new instance", revoked.ErrDamaged, path, cause)
}

// openLogFile opens or creates the log in dir. The name of the file is durable on return.
func openLogFile(dir string, log *slog.Logger) (bolt *raftboltdb.BoltStore, err error) {
	path := filepath.Join(dir, LogFile)
	start := time.Now()
	if err = checkLogFile(path); err == nil {
		err = recovered(path, func() error {
			bolt, err = openBolt(path)
			return err
		})
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: in use by another process; a data directory belongs to one node: "+
			"stop the other process, or set another data_dir for this node: %w", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, Damaged(path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// bbolt syncs the new file but not its name. A node that lost the file would forget its votes.
	if err := durable.SyncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), bolt.Close())
	}
	attrs := []any{"path", path, "seconds", time.Since(start).Seconds()}
	if info, err := os.Stat(path); err == nil {
		attrs = append(attrs, "bytes", info.Size())
	}
	log.Info("opened raft log", attrs...)
	return bolt, nil
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// After a burst of writes, writing the free list would dominate the time of every commit.
			// bbolt rebuilds the list when it opens the file.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
}

// checkLogFile reads the whole log file before it is used. bbolt trusts the mapped file: a wrong
// page number faults in the caller's goroutine, which crashes the process. checkLogFile returns
// such a fault as an error.
func checkLogFile(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return recovered(path, func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(path, b) })
		})
	})
}

// walk reads every key, and one byte of every page of every value. It checks that the keys are in
// order.
func walk(path string, b *bbolt.Bucket) error {
	var last []byte
	var sum byte
	return b.ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return Damaged(path, errors.New("keys are out of order"))
		}
		last = append(last[:0], k...)
		for i := 0; i < len(v); i += 4096 {
			sum ^= v[i]
		}
		if len(v) > 0 {
			sum ^= v[len(v)-1]
		}
		return nil
	})
}

// recovered runs f, which reads a log file, and returns a panic as an error.
func recovered(path string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Damaged(path, fmt.Errorf("%v", p))
		}
	}()
	return f()
}
