package raftstore

import (
	"errors"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
)

// replayed returns the indexes that Replay passes on.
func replayed(s *Store, index, term uint64) (got []uint64, err error) {
	err = s.Replay(index, term, func(entries []*raft.Log) error {
		for _, e := range entries {
			got = append(got, e.Index)
		}
		return nil
	})
	return got, err
}

// Replay passes on each command and configuration after the state's index once, committed or not.
// It omits entries that a later leader has replaced.
func TestReplay_Tail_PassesEachEntryOnce(t *testing.T) {
	s := openStack(t, t.TempDir(), noSnapshot)
	var all []*raft.Log
	for i := uint64(1); i <= 200; i++ {
		e := &raft.Log{Index: i, Term: 2 + i/100, Type: raft.LogCommand, Data: []byte("x")}
		if i%50 == 0 {
			e.Type = raft.LogNoop
		}
		all = append(all, e)
	}
	if err := s.log.StoreLogs(all); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		index, term uint64
		first, n    uint64
	}{
		{"an empty state", 0, 0, 1, 196},
		{"in the middle", 99, 2, 101, 98},
		{"at a no-op", 100, 3, 101, 98},
		{"at the end", 200, 4, 0, 0},
		{"beyond the end", 250, 9, 0, 0},
		{"of a later leader", 120, 4, 0, 0},
	} {
		got, err := replayed(s.Store, tt.index, tt.term)
		if err != nil || uint64(len(got)) != tt.n || tt.n > 0 && got[0] != tt.first || !slices.IsSorted(got) {
			t.Errorf("%s: got %d entries %v, %v, want %d from %d", tt.name, len(got), got, err, tt.n, tt.first)
		}
	}
	if _, err := replayed(s.Store, 120, 2); !errors.Is(err, revoked.ErrDamaged) {
		t.Errorf("a log that is newer at the index of the state: got %v, want %v", err, revoked.ErrDamaged)
	}
	if err := s.log.DeleteRange(1, 50); err != nil {
		t.Fatal(err)
	}
	if got, err := replayed(s.Store, 50, 2); err != nil || len(got) != 147 {
		t.Errorf("after a truncation: got %d entries, %v, want 147", len(got), err)
	}
	if _, err := replayed(s.Store, 40, 2); !errors.Is(err, revoked.ErrDamaged) {
		t.Errorf("missing entries: got %v, want %v", err, revoked.ErrDamaged)
	}
	failed := errors.New("apply failed")
	if err := s.Replay(60, 2, func([]*raft.Log) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want %v", err, failed)
	}
}
