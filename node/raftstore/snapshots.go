package raftstore

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/raft"
)

// SnapshotDir is the name of the snapshots' directory in the store's directory.
const SnapshotDir = "snapshots"

// snapshotTracker is both the snapshot store and the state machine that Raft uses. It keeps the
// position of the newest snapshot in memory, because the log needs the position at every read and
// write.
//
// A snapshot that this node has taken counts once it is stored. A snapshot that a leader has sent
// counts once the state machine has been restored from it. After a failed restore Raft continues at
// its old position, and the log would hide the entries that Raft still has to apply. Snapshots
// found at startup count immediately: see startError.
type snapshotTracker struct {
	raft.SnapshotStore
	raft.BatchingFSM
	took func(low, high uint64)

	position atomic.Pointer[position] // position of the newest snapshot
	received atomic.Pointer[position] // position of a received snapshot from which the state is not restored yet
	failed   atomic.Pointer[error]    // error of the last restore that failed
}

var (
	_ raft.SnapshotStore = (*snapshotTracker)(nil)
	_ raft.BatchingFSM   = (*snapshotTracker)(nil)
)

type position struct{ index, term uint64 }

func newSnapshotTracker(store raft.SnapshotStore, f raft.BatchingFSM, took func(low, high uint64)) (
	*snapshotTracker, error) {
	list, err := store.List()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	t := &snapshotTracker{SnapshotStore: store, BatchingFSM: f, took: took}
	t.position.Store(&position{})
	if len(list) > 0 {
		t.position.Store(&position{list[0].Index, list[0].Term})
	}
	return t, nil
}

// newest returns index and term of the newest snapshot that counts, or zeros without a snapshot.
func (t *snapshotTracker) newest() (index, term uint64) {
	p := t.position.Load()
	return p.index, p.term
}

func (t *snapshotTracker) count(p *position) {
	for old := t.position.Load(); p != nil && p.index >= old.index && !t.position.CompareAndSwap(old, p); {
		old = t.position.Load()
	}
}

// startError returns the reason why a start has not restored the newest snapshot, or err. Raft
// falls back to an older snapshot, but the log is truncated at the newest.
func (t *snapshotTracker) startError(dir string, newest bool, err error) error {
	index, _ := t.newest()
	failed := t.failed.Load()
	switch {
	case failed == nil || newest:
		return err
	case errors.Is(*failed, syscall.ENOSPC):
		return fmt.Errorf("restore snapshot at index %d: %w", index, *failed)
	}
	return Damaged(filepath.Join(dir, SnapshotDir),
		fmt.Errorf("cannot restore the newest snapshot, at index %d: %w", index, *failed))
}

// Create implements raft.SnapshotStore.
func (t *snapshotTracker) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := t.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &trackedSink{SnapshotSink: sink, tracker: t, position: &position{index, term}}, nil
}

// Restore implements raft.FSM.
func (t *snapshotTracker) Restore(rc io.ReadCloser) error {
	received := t.received.Swap(nil)
	if received != nil {
		t.took(0, received.term)
	}
	err := t.BatchingFSM.Restore(rc)
	if err != nil {
		t.failed.Store(&err)
		return err
	}
	t.count(received)
	return nil
}

// Snapshot implements raft.FSM.
func (t *snapshotTracker) Snapshot() (raft.FSMSnapshot, error) {
	s, err := t.BatchingFSM.Snapshot()
	if err != nil {
		return nil, err
	}
	return localSnapshot{s}, nil
}

// trackedSink reports its snapshot to the tracker when it is closed.
type trackedSink struct {
	raft.SnapshotSink
	tracker  *snapshotTracker
	position *position
	local    bool // whether this node took the snapshot, instead of receiving it
}

// Close implements raft.SnapshotSink.
func (s *trackedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	if s.local {
		s.tracker.count(s.position)
	} else {
		s.tracker.received.Store(s.position)
	}
	return nil
}

// localSnapshot is a snapshot that this node takes. It marks the sink to which it is written as
// local.
type localSnapshot struct{ raft.FSMSnapshot }

// Persist implements raft.FSMSnapshot.
func (s localSnapshot) Persist(sink raft.SnapshotSink) error {
	if sink, ok := sink.(*trackedSink); ok {
		sink.local = true
	}
	return s.FSMSnapshot.Persist(sink)
}
