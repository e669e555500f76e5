package fsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked"
)

// SeedOptions say what becomes of a backup.
type SeedOptions struct {
	// ClusterID is the id of the new cluster. The members of the old one are strangers to it.
	ClusterID string
	// Before is the moment of the restore. What was revoked between the backup and it is not in the
	// backup, so everything issued at or before it ends, and every grant of the backup.
	Before revoked.Time
	// AcceptLoss keeps the tokens of the backup alive instead: those revoked since come back to life.
	// It needs a Reason.
	AcceptLoss bool
	Reason     string // in the cut-off and in the feed
	Log        *slog.Logger
}

// Seed makes a state directory for the first member of a new cluster from a backup. dir must not hold a
// state yet. It returns the header of the seeded state: one index above the backup's, at which Raft
// must be given a snapshot (Open, Snapshot and Persist into its snapshot store write the marker).
// After an error nothing is left in dir.
func Seed(dir string, snapshot io.Reader, opts SeedOptions) (SnapshotHeader, error) {
	switch {
	case opts.ClusterID == "":
		return SnapshotHeader{}, fmt.Errorf("%w: a seed needs a cluster id", revoked.ErrInvalid)
	case opts.AcceptLoss && opts.Reason == "":
		return SnapshotHeader{}, fmt.Errorf("%w: accepting the loss of revocations needs a reason", revoked.ErrInvalid)
	case !opts.AcceptLoss && opts.Before <= 0:
		return SnapshotHeader{}, fmt.Errorf("%w: a seed needs the moment before which everything ends", revoked.ErrInvalid)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(filepath.Join(dir, currentFile)); !errors.Is(err, os.ErrNotExist) {
		return SnapshotHeader{}, fmt.Errorf("%w: %s holds a state already", revoked.ErrConflict, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return SnapshotHeader{}, fmt.Errorf("make data directory: %w", err)
	}
	name := generationName(1)
	h, err := seed(dir, name, snapshot, opts)
	if err != nil {
		return h, errors.Join(err, os.RemoveAll(filepath.Join(dir, name)), os.RemoveAll(filepath.Join(dir, currentFile)))
	}
	return h, nil
}

func seed(dir, name string, snapshot io.Reader, opts SeedOptions) (SnapshotHeader, error) {
	if h, err := build(vfs.Default, filepath.Join(dir, name), bufio.NewReaderSize(snapshot, 1<<20), 0, opts.Log); err != nil {
		return h, err
	}
	if err := setCurrent(vfs.Default, dir, name); err != nil {
		return SnapshotHeader{}, err
	}
	var background onceError
	f, err := Open(Config{Dir: dir, Log: opts.Log, Fatal: background.set})
	if err != nil {
		return SnapshotHeader{}, err
	}
	h, err := f.seal(opts)
	return h, errors.Join(err, f.Close(), background.get())
}

// seal applies what makes a backup the state of a new cluster, as an entry that no log holds.
func (f *FSM) seal(opts SeedOptions) (SnapshotHeader, error) {
	s, err := f.acquire()
	if err != nil {
		return SnapshotHeader{}, err
	}
	defer s.release()
	t := f.newTx(s, &f.mem, false)
	t.Index++
	t.seq = 0
	t.LogHash = nextLogHash(t.LogHash, t.Index, t.Term, []byte("seed "+opts.ClusterID))
	t.putClusterID(opts.ClusterID)
	if !opts.AcceptLoss {
		t.advance(int64(min(opts.Before, maxTime)))
		reason := opts.Reason
		if reason == "" {
			reason = "restored from a backup"
		}
		t.endEverything(min(opts.Before, maxTime), reason)
	}
	t.points = append(t.points, hashPoint{index: t.Index, log: t.LogHash, state: t.State.bytes()})
	t.commit()
	if t.err != nil {
		return SnapshotHeader{}, t.err
	}
	if err := f.flush(s); err != nil {
		return SnapshotHeader{}, err
	}
	snap := s.db.NewSnapshot()
	h, err := readHead(snap)
	return h, errors.Join(err, snap.Close())
}
