package raftstore

import (
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked/fsm"
)

func noSnapshot() (index, term uint64) { return 0, 0 }

// testStore is the log and the votes of a Store, without snapshots and a state machine.
type testStore struct {
	*Store
	bolt *raftboltdb.BoltStore
}

// openStack opens the log in dir. The function newest returns the position of the newest snapshot.
// A failed write fails the test.
func openStack(t *testing.T, dir string, newest func() (index, term uint64)) testStore {
	t.Helper()
	s := newStack(func(err error) { t.Errorf("fatal: %v", err) })
	s.cfg.Dir = dir
	bolt, err := openLogFile(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.disk = bolt.Close
	if err := s.stack(bolt, bolt, newest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return testStore{s, bolt}
}

func newStack(fatal func(error)) *Store {
	return &Store{cfg: Config{Took: func(uint64, uint64) {}}, failStop: &failStop{fatal: fatal},
		disk: func() error { return nil }}
}

func openFSM(t *testing.T, installing func(uint64) error) *fsm.FSM {
	t.Helper()
	f, err := fsm.Open(fsm.Config{Dir: t.TempDir(), Installing: installing})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// boltErrors reports missing keys with the error of raftboltdb, which raft.InmemStore does not use.
type boltErrors struct{ raft.StableStore }

func (s boltErrors) Get(key []byte) ([]byte, error) {
	v, err := s.StableStore.Get(key)
	if err != nil || v == nil {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return v, nil
}

func (s boltErrors) GetUint64(key []byte) (uint64, error) {
	v, err := s.StableStore.GetUint64(key)
	if err != nil || v == 0 {
		return 0, raftboltdb.ErrKeyNotFound
	}
	return v, nil
}

var errDisk = errors.New("input/output error")

// failingStore is a log and stable store in memory. Its writes fail from the write with the number
// failAt on, counted from 1. If failAt is 0, no write fails.
type failingStore struct {
	*raft.InmemStore
	failAt int

	mu     sync.Mutex
	writes int
}

func (f *failingStore) try() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.failAt > 0 && f.writes >= f.failAt {
		return errDisk
	}
	return nil
}

// fail makes all later writes fail.
func (f *failingStore) fail() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt = 1
}

func (f *failingStore) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *failingStore) StoreLogs(l []*raft.Log) error {
	if err := f.try(); err != nil {
		return err
	}
	return f.InmemStore.StoreLogs(l)
}

func (f *failingStore) DeleteRange(first, last uint64) error {
	if err := f.try(); err != nil {
		return err
	}
	return f.InmemStore.DeleteRange(first, last)
}

func (f *failingStore) Set(k, v []byte) error {
	if err := f.try(); err != nil {
		return err
	}
	return f.InmemStore.Set(k, v)
}

func (f *failingStore) SetUint64(k []byte, v uint64) error {
	if err := f.try(); err != nil {
		return err
	}
	return f.InmemStore.SetUint64(k, v)
}

// entries returns the log entries from first to last, of one term.
func entries(term, first, last uint64) []*raft.Log {
	var out []*raft.Log
	for i := first; i <= last; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte{byte(term), byte(i)}})
	}
	return out
}

func span(first, last uint64) []uint64 {
	var out []uint64
	for i := first; i <= last; i++ {
		out = append(out, i)
	}
	return out
}

// indexes returns which of the entries 1 to 30 GetLog finds.
func indexes(t *testing.T, log raft.LogStore) []uint64 {
	t.Helper()
	var out []uint64
	for i := uint64(1); i <= 30; i++ {
		switch err := log.GetLog(i, new(raft.Log)); {
		case err == nil:
			out = append(out, i)
		case !errors.Is(err, raft.ErrLogNotFound):
			t.Fatal(err)
		}
	}
	return out
}
