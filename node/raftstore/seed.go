package raftstore

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Seed creates the store of a new cluster in cfg.Dir, which must not contain a store. It writes
// term as the current term, and a snapshot of cfg.FSM at index whose configuration is conf. The log
// begins after the snapshot. The first failed write is returned instead of being passed to
// cfg.Fatal.
func Seed(cfg Config, index, term uint64, conf raft.Configuration) (err error) {
	var failed error
	cfg.Fatal = func(err error) { failed = errors.Join(failed, err) }
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, failed, s.Close()) }()
	if err := s.stable.SetUint64([]byte(keyTerm), term); err != nil {
		return fmt.Errorf("seed term: %w", err)
	}
	_, trans := raft.NewInmemTransport("")
	sink, err := s.snapshots.Create(raft.SnapshotVersionMax, index, term, conf, 1, trans)
	if err != nil {
		return fmt.Errorf("create first snapshot: %w", err)
	}
	snap, err := s.snapshots.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	defer snap.Release()
	if err := snap.Persist(sink); err != nil {
		return errors.Join(fmt.Errorf("write first snapshot: %w", err), sink.Cancel())
	}
	return nil
}
