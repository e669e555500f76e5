package raftstore

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

func TestCheckedLog_Read_HidesDivergentEntries(t *testing.T) {
	tests := []struct {
		name         string
		log          []*raft.Log
		index, term  uint64
		shown        []uint64 // indexes that GetLog finds
		atSnapshot   uint64   // term that GetLog returns for the snapshot's index
		afterStoring []uint64 // indexes in the store after entry 21 has been stored
	}{
		{"the snapshot's own entry",
			entries(3, 1, 20), 10, 3, span(1, 20), 3, span(1, 21)},
		{"no snapshot",
			entries(3, 1, 20), 0, 0, span(1, 20), 0, span(1, 21)},
		{"an entry of another term at the snapshot's index",
			entries(2, 1, 20), 10, 3, span(10, 20), 3, span(11, 21)},
		{"log ends below the snapshot",
			entries(2, 1, 5), 10, 3, span(10, 10), 3, span(21, 21)},
		{"empty log",
			nil, 10, 3, span(10, 10), 3, span(21, 21)},
		{"log compacted up to the snapshot",
			entries(3, 11, 20), 10, 3, span(10, 20), 3, span(11, 21)},
		{"gap at the snapshot's index",
			append(entries(2, 1, 9), entries(3, 11, 20)...), 10, 3, span(10, 20), 3, span(11, 21)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := raft.NewInmemStore()
			cached, err := raft.NewLogCache(cachedEntries, disk)
			if err != nil {
				t.Fatal(err)
			}
			log := &snapshotCheckedLog{LogStore: cached, newest: noSnapshot}
			// The entries are stored through the cache, so that the cache contains the entries that must be
			// hidden.
			if err := log.StoreLogs(test.log); err != nil {
				t.Fatal(err)
			}
			log.newest = func() (uint64, uint64) { return test.index, test.term }
			for round := range 2 { // the second round uses the stored result of the check
				if got := indexes(t, log); !slices.Equal(got, test.shown) {
					t.Errorf("round %d: got entries %v, want %v", round, got, test.shown)
				}
			}
			var entry raft.Log
			if err := log.GetLog(test.index, &entry); test.index > 0 &&
				(err != nil || entry.Term != test.atSnapshot || entry.Index != test.index) {
				t.Errorf("got %+v, %v at the snapshot's index, want term %d", entry, err, test.atSnapshot)
			}
			if err := log.StoreLogs(entries(4, 21, 21)); err != nil {
				t.Fatal(err)
			}
			if got := indexes(t, disk); !slices.Equal(got, test.afterStoring) {
				t.Errorf("after storing: got entries %v in the store, want %v", got, test.afterStoring)
			}
		})
	}
}

func TestCheckedLog_Open_DeletesDivergentEntries(t *testing.T) {
	tests := []struct {
		name string
		log  []*raft.Log
		want []uint64
	}{
		{"an entry of another term at the snapshot's index", entries(2, 1, 20), nil},
		{"log ends below the snapshot", entries(2, 1, 9), nil},
		{"log compacted up to the snapshot", entries(3, 11, 20), span(11, 20)},
		{"the snapshot's own entry", entries(3, 1, 20), span(1, 20)},
		{"gap at the snapshot's index", append(entries(2, 1, 8), entries(3, 11, 20)...), span(11, 20)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := raft.NewInmemStore()
			if err := disk.StoreLogs(test.log); err != nil {
				t.Fatal(err)
			}
			if _, err := newSnapshotCheckedLog(disk, func() (uint64, uint64) { return 10, 3 }); err != nil {
				t.Fatal(err)
			}
			if got := indexes(t, disk); !slices.Equal(got, test.want) {
				t.Errorf("got entries %v, want %v", got, test.want)
			}
		})
	}
}

func TestReviewAppend_SnapshotEntries_AreRemoved(t *testing.T) {
	for name, tt := range map[string]struct {
		index, term         uint64
		entries             []*raft.Log
		wantIndex, wantTerm uint64
		want                []*raft.Log
	}{
		"after the snapshot":                    {10, 3, entries(4, 11, 12), 0, 0, entries(4, 11, 12)},
		"after the snapshot, nothing":           {10, 3, nil, 0, 0, nil},
		"of another term at its index":          {10, 2, entries(4, 11, 12), 10, 2, entries(4, 11, 12)},
		"from below it, beyond it":              {8, 2, entries(3, 9, 12), 0, 0, entries(3, 11, 12)},
		"from below it, up to it":               {8, 2, entries(3, 9, 10), 0, 0, nil},
		"below it":                              {4, 1, entries(2, 5, 8), 0, 0, nil},
		"from below it, of another term at it":  {8, 2, entries(2, 9, 12), 8, 2, entries(2, 9, 12)},
		"after an entry above it":               {11, 3, entries(4, 12, 13), 11, 3, entries(4, 12, 13)},
		"a heartbeat, after no entry":           {0, 0, nil, 0, 0, nil},
		"the first entries of a log, beyond it": {0, 0, entries(3, 1, 12), 0, 0, entries(3, 11, 12)},
	} {
		req := &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: tt.index, PrevLogTerm: tt.term, LeaderCommitIndex: 10,
			Entries: tt.entries}
		reviewAppend(req, 10, 3)
		if req.PrevLogEntry != tt.wantIndex || req.PrevLogTerm != tt.wantTerm {
			t.Errorf("%s: got previous entry %d of term %d, want %d of term %d", name, req.PrevLogEntry, req.PrevLogTerm,
				tt.wantIndex, tt.wantTerm)
		}
		if len(req.Entries) != len(tt.want) || len(tt.want) > 0 &&
			(req.Entries[0].Index != tt.want[0].Index || req.Entries[0].Term != tt.want[0].Term) {
			t.Errorf("%s: got entries %+v, want %+v", name, req.Entries, tt.want)
		}
		if req.LeaderCommitIndex != 10 || req.Term != 4 {
			t.Errorf("%s: got %+v, want term and commit index unchanged", name, req)
		}
	}
	req := &raft.AppendEntriesRequest{Entries: entries(1, 1, 2)}
	if reviewAppend(req, 0, 0); len(req.Entries) != 2 {
		t.Errorf("without a snapshot: got %+v, want 2 entries", req)
	}
}
