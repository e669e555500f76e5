package fsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/snapshot"
	"revoked/fsm/store"
)

// SeedOptions configure Seed.
type SeedOptions struct {
	// ClusterID is the id of the new cluster. Members of the old cluster cannot join it.
	ClusterID string
	// Before is the time of the seed. The backup lacks the revocations since it was made, so Seed
	// revokes every grant of the backup and everything issued at or before this time. It must not be
	// earlier than the stamp of the backup by more than max_clock_skew. The history has a gap from
	// that stamp to Before.
	Before revoked.Time
	// AcceptLoss keeps the tokens of the backup active instead, even those that were revoked after the
	// backup. It requires a Reason.
	AcceptLoss bool
	Reason     string // reason recorded in the cut-off, the feed and the audit log
	// Recovered reports that the backup was read from the disk of a surviving member. The audit entry
	// of the seed then has another kind and actor.
	Recovered bool
	// Replay, if set, applies the entries that follow the backup before the new cluster begins. Replay
	// gets the index and the term of the last entry in the backup. The function apply accepts commands
	// and configurations, in log order.
	Replay func(index, term uint64, apply func([]*raft.Log) error) error
	Log    *slog.Logger
}

// Seed creates the state of the first member of a new cluster from a backup. dir must not hold a
// state. Seed returns the header of the state, one index above the backup. The header's stamp is
// the time of the cut-off. Raft needs a snapshot at that index: Open, Snapshot and Persist write
// its marker. After an error dir holds no state.
func Seed(dir string, backup io.Reader, opts SeedOptions) (snapshot.Header, error) {
	switch {
	case opts.ClusterID == "":
		return snapshot.Header{}, fmt.Errorf("%w: seed: ClusterID is empty", revoked.ErrInvalid)
	case opts.AcceptLoss && opts.Reason == "":
		return snapshot.Header{}, fmt.Errorf("%w: seed: AcceptLoss requires a Reason", revoked.ErrInvalid)
	case !opts.AcceptLoss && opts.Before <= 0:
		return snapshot.Header{}, fmt.Errorf("%w: seed: Before is not set", revoked.ErrInvalid)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if !store.IsEmpty(dir) {
		return snapshot.Header{}, fmt.Errorf("%w: %s already has a state", revoked.ErrConflict, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return snapshot.Header{}, fmt.Errorf("create data directory: %w", err)
	}
	h, err := seed(dir, backup, opts)
	if err != nil {
		return h, errors.Join(err, store.Remove(dir, 1))
	}
	return h, nil
}

// seed builds the state in dir and applies the entry that makes it a new cluster. After an error
// the caller removes the remaining files.
func seed(dir string, backup io.Reader, opts SeedOptions) (snapshot.Header, error) {
	h, err := build(vfs.Default, store.GenerationDir(dir, 1), bufio.NewReaderSize(backup, 1<<20), 0, opts.Log)
	if err != nil {
		return h, err
	}
	if err := store.SetCurrent(vfs.Default, dir, 1); err != nil {
		return snapshot.Header{}, err
	}
	fatal := newFirstError()
	f, err := Open(Config{Dir: dir, Log: opts.Log, Fatal: fatal.set})
	if err != nil {
		return snapshot.Header{}, err
	}
	if opts.Replay != nil {
		index, term := f.Position()
		err = opts.Replay(index, term, f.replay)
	}
	if err == nil {
		h, err = f.startCluster(opts)
	}
	return h, errors.Join(err, f.Close(), fatal.get())
}

// replay applies entries as Raft would.
func (f *FSM) replay(entries []*raft.Log) error {
	for _, r := range f.ApplyBatch(entries) {
		if err, failed := r.(error); failed {
			return err
		}
	}
	return nil
}

// startCluster turns the state of a backup into that of a new cluster, by applying an entry that is
// not in any log.
func (f *FSM) startCluster(opts SeedOptions) (snapshot.Header, error) {
	s, err := f.acquire()
	if err != nil {
		return snapshot.Header{}, err
	}
	defer s.Release()
	a := f.begin(s)
	defer a.Close()
	before := opts.Before
	if opts.AcceptLoss {
		before = 0
	}
	actor := revoked.ActorRestore
	if opts.Recovered {
		actor = revoked.ActorRecover
	}
	if err := a.Seed(opts.ClusterID, actor, before, opts.Before, opts.Reason); err != nil {
		return snapshot.Header{}, err
	}
	f.commit(a, s)
	if err := a.Err(); err != nil {
		return snapshot.Header{}, err
	}
	if err := f.flush(s); err != nil {
		return snapshot.Header{}, err
	}
	return snapshot.ReadHeader(s)
}
