package node

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// An indexedSnapshots is a snapshot store that knows its newest snapshot without a look at the disk:
// the log store asks at every read and write.
type indexedSnapshots struct {
	raft.SnapshotStore
	mark atomic.Pointer[snapshotMark]
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

// newest returns index and term of the newest complete snapshot; zeros when there is none.
func (s *indexedSnapshots) newest() (index, term uint64) {
	m := s.mark.Load()
	return m.index, m.term
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
}

// Close implements raft.SnapshotSink: the snapshot counts from here on.
func (s *indexedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	if old := s.store.mark.Load(); s.mark.index >= old.index {
		s.store.mark.Store(s.mark)
	}
	return nil
}

// installs is the state machine as Raft sees it. The state that a leader streams is its present one, newer
// than the snapshot that it is sent for: until the log has come as far, the node has applied more than
// its log holds, and that is no sign of an old disk (peers.rolledBack).
type installs struct {
	*fsm.FSM
	index atomic.Uint64 // of the state restored last in this life
}

var _ raft.BatchingFSM = (*installs)(nil)

// Restore implements raft.FSM.
func (f *installs) Restore(rc io.ReadCloser) error {
	if err := f.FSM.Restore(rc); err != nil {
		return err
	}
	f.index.Store(f.Applied())
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
