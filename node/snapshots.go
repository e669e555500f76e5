package node

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked/fsm"
)

// An indexedSnapshots is a snapshot store that knows its newest snapshot without a look at the disk:
// the log store asks at every read and write.
type indexedSnapshots struct {
	raft.SnapshotStore
	mark   atomic.Pointer[snapshotMark]
	copied atomic.Pointer[snapshotMark] // whole in the store, and not restored from yet
	failed atomic.Pointer[error]        // of the last restore that failed
}

type snapshotMark struct{ index, term uint64 }

func indexSnapshots(inner raft.SnapshotStore) (*indexedSnapshots, error) {
	list, err := inner.List()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	s := &indexedSnapshots{SnapshotStore: inner}
	s.mark.Store(&snapshotMark{})
	if len(list) > 0 {
		s.mark.Store(&snapshotMark{list[0].Index, list[0].Term})
	}
	return s, nil
}

// newest returns index and term of the newest snapshot that Raft goes by; zeros when there is none. One that a
// leader has sent counts when the state machine has been restored from it: after a restore that fails Raft goes on
// where it was. Those that a start finds count at once: see startError.
func (s *indexedSnapshots) newest() (index, term uint64) {
	m := s.mark.Load()
	return m.index, m.term
}

func (s *indexedSnapshots) count(m *snapshotMark) {
	for old := s.mark.Load(); m != nil && m.index >= old.index && !s.mark.CompareAndSwap(old, m); {
		old = s.mark.Load()
	}
}

// startError is why a start did not come to the newest snapshot: the log is cut by that one, so Raft must not go by an
// older one. Other errors of a start it returns as they are.
func (s *indexedSnapshots) startError(dir string, newest bool, err error) error {
	index, _ := s.newest()
	failed := s.failed.Load()
	switch {
	case failed == nil || newest:
		return err
	case errors.Is(*failed, syscall.ENOSPC):
		return fmt.Errorf("restore the snapshot at index %d: %w", index, *failed)
	}
	return damaged(filepath.Join(dir, "snapshots"), fmt.Errorf("the newest, at index %d, cannot be restored: %w", index, *failed))
}

// Create implements raft.SnapshotStore.
func (s *indexedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &indexedSink{SnapshotSink: sink, store: s, mark: &snapshotMark{index, term}}, nil
}

type indexedSink struct {
	raft.SnapshotSink
	store *indexedSnapshots
	mark  *snapshotMark
	own   bool // of a snapshot that is taken here
}

// Close implements raft.SnapshotSink.
func (s *indexedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	if s.own {
		s.store.count(s.mark)
	} else {
		s.store.copied.Store(s.mark)
	}
	return nil
}

// A countedFSM is the state machine as Raft has it: it tells the store which snapshots are taken here, and
// which have been restored from.
type countedFSM struct {
	*fsm.FSM
	snaps *indexedSnapshots
}

var _ raft.BatchingFSM = countedFSM{}

// Restore implements raft.FSM.
func (f countedFSM) Restore(rc io.ReadCloser) error {
	err := f.FSM.Restore(rc)
	copied := f.snaps.copied.Swap(nil)
	if err != nil {
		f.snaps.failed.Store(&err)
		return err
	}
	f.snaps.count(copied)
	return nil
}

// Snapshot implements raft.FSM.
func (f countedFSM) Snapshot() (raft.FSMSnapshot, error) {
	s, err := f.FSM.Snapshot()
	if err != nil {
		return nil, err
	}
	return ownSnapshot{s}, nil
}

type ownSnapshot struct{ raft.FSMSnapshot }

// Persist implements raft.FSMSnapshot.
func (s ownSnapshot) Persist(sink raft.SnapshotSink) error {
	if sink, ok := sink.(*indexedSink); ok {
		sink.own = true
	}
	return s.FSMSnapshot.Persist(sink)
}

// installs notes how far a state reaches that a leader has streamed. It is the leader's present one, newer
// than the snapshot that it is sent for: until the log has come as far, the node has applied more than its
// log holds, and that is no sign of an old disk (peers.rolledBack), nor after a restart. The note lies with
// the log, so an older image of the log has an older note. It is written before the state is replaced: it counts
// as far as the state has come.
type installs struct {
	stable raft.StableStore
	index  atomic.Uint64
}

const keyInstalled = "Installed"

func openInstalls(stable raft.StableStore) (*installs, error) {
	f := &installs{stable: stable}
	index, err := stable.GetUint64([]byte(keyInstalled))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, fmt.Errorf("read %s: %w", keyInstalled, err)
	}
	f.index.Store(index)
	return f, nil
}

// note is called before the state takes the old one's place.
func (f *installs) note(index uint64) error {
	if err := f.stable.SetUint64([]byte(keyInstalled), index); err != nil {
		return fmt.Errorf("note the installed state: %w", err)
	}
	f.index.Store(index)
	return nil
}

// A meteredLog counts what is written to the log, for the decision when to cut it.
type meteredLog struct {
	raft.LogStore
	bytes, entries atomic.Int64
}

// StoreLog implements raft.LogStore.
func (l *meteredLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *meteredLog) StoreLogs(entries []*raft.Log) error {
	if err := l.LogStore.StoreLogs(entries); err != nil {
		return err
	}
	for _, e := range entries {
		l.bytes.Add(int64(len(e.Data)) + 64)
	}
	l.entries.Add(int64(len(entries)))
	return nil
}

// written returns what came in since the last forget.
func (l *meteredLog) written() (bytes, entries int64) { return l.bytes.Load(), l.entries.Load() }

// forget takes off what a snapshot has covered.
func (l *meteredLog) forget(bytes, entries int64) {
	l.bytes.Add(-bytes)
	l.entries.Add(-entries)
}
