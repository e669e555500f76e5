package simkit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A memLog is a log and stable store in memory. Its writes are atomic and durable when they return,
// as in bbolt. It may be used concurrently. Copies share the entries, which never change.
type memLog struct {
	mu          sync.Mutex
	entries     map[uint64]*raft.Log
	first, last uint64
	kv          map[string][]byte
	frozen      bool // whether deletions fail
}

// newMemLog returns an empty store.
func newMemLog() *memLog { return &memLog{entries: map[uint64]*raft.Log{}, kv: map[string][]byte{}} }

// copy returns a store with the same content. Later writes to either store do not change the other.
func (l *memLog) copy() *memLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &memLog{entries: maps.Clone(l.entries), first: l.first, last: l.last, kv: maps.Clone(l.kv)}
}

// FirstIndex implements raft.LogStore. It is 0 for an empty log, as hashicorp/raft requires.
func (l *memLog) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, nil
}

// LastIndex implements raft.LogStore.
func (l *memLog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, nil
}

// GetLog implements raft.LogStore.
func (l *memLog) GetLog(index uint64, out *raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*out = *e
	return nil
}

// StoreLog implements raft.LogStore.
func (l *memLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore. An entry replaces the stored entry with the same index.
func (l *memLog) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		l.entries[e.Index] = e
		if l.first == 0 || e.Index < l.first {
			l.first = e.Index
		}
		l.last = max(l.last, e.Index)
	}
	return nil
}

// freeze makes deletions fail. The copy for the next process is made a moment later, and must
// contain everything that the old process would delete until then.
func (l *memLog) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = true
}

// DeleteRange implements raft.LogStore.
func (l *memLog) DeleteRange(first, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frozen {
		return errCrashed
	}
	for i := first; i <= last; i++ {
		delete(l.entries, i)
	}
	switch { // Raft deletes only at the ends
	case len(l.entries) == 0:
		l.first, l.last = 0, 0
	case first <= l.first:
		l.first = max(l.first, last+1)
	default:
		l.last = first - 1
	}
	return nil
}

// Set implements raft.StableStore.
func (l *memLog) Set(key, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv[string(key)] = bytes.Clone(value)
	return nil
}

// Get implements raft.StableStore. The error for a missing key is that of raft-boltdb, because Raft
// and the node distinguish it from other errors.
func (l *memLog) Get(key []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.kv[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return bytes.Clone(v), nil
}

// SetUint64 implements raft.StableStore.
func (l *memLog) SetUint64(key []byte, v uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 implements raft.StableStore.
func (l *memLog) GetUint64(key []byte) (uint64, error) {
	b, err := l.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// errCrashed is the error of a store whose process has crashed.
var errCrashed = errors.New("simulated: crashed")
