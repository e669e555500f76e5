package raftstore

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// The time of an entry must be recorded before the entry is in the log, because that entry may get
// a node elected.
func TestIntakeLog_ReportsTermsBeforeTheWrite(t *testing.T) {
	s := newStack(func(err error) { t.Errorf("fatal: %v", err) })
	store := boltErrors{raft.NewInmemStore()}
	log := raft.NewInmemStore()
	var took [][2]uint64
	s.cfg.Took = func(low, high uint64) {
		took = append(took, [2]uint64{low, high})
		if last, _ := log.LastIndex(); last >= uint64(3*len(took)) {
			t.Errorf("call %d: got entry %d in the log already", len(took), last)
		}
	}
	if err := s.stack(log, store, noSnapshot); err != nil {
		t.Fatal(err)
	}
	for _, terms := range [][]uint64{{4, 4, 5}, {5, 6, 6}, {}} {
		var entries []*raft.Log
		for _, term := range terms {
			last, err := log.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, &raft.Log{Index: last + 1 + uint64(len(entries)), Term: term})
		}
		if err := s.log.StoreLogs(entries); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.log.StoreLog(&raft.Log{Index: 7, Term: 8}); err != nil {
		t.Fatal(err)
	}
	if want := [][2]uint64{{4, 5}, {5, 6}, {8, 8}}; !slices.Equal(took, want) {
		t.Errorf("got terms %v, want %v", took, want)
	}
}
