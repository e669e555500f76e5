package node

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// openTestStores opens the stores in dir and fails the test when a write does.
func openTestStores(t *testing.T, dir string) *stores {
	t.Helper()
	s, err := openStores(dir, func(err error) { t.Errorf("fatal: %v", err) }, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

var errDisk = errors.New("input/output error")

// A failingStore is a log and stable store in memory of which the write number failAt, from 1,
// fails, and all after it.
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

// fail makes all writes fail from now on.
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
