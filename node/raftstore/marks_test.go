package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"

	"revoked/fsm/command"
)

// marked returns an entry at index that contains a mark for each server in marks.
func marked(t *testing.T, index uint64, marks map[string]uint64) *raft.Log {
	t.Helper()
	tick := &command.Tick{}
	for server, at := range marks {
		tick.Marks = append(tick.Marks, &command.Mark{Server: server, Boot: []byte("boot"), Index: at})
	}
	b, err := command.Encode(tick)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: b}
}

func wantMarks(t *testing.T, s testStore, when string, want map[raft.ServerID]uint64) {
	t.Helper()
	for server, at := range want {
		if got := s.Mark(server).GetIndex(); got != at {
			t.Errorf("%s: got mark %d of %s, want %d", when, got, server, at)
		}
	}
}

// The marks survive a restart, the deletion of their entries, and a leader with older marks. Marks
// that were kept when the end of the log was truncated are newer than the marks in the rest of the
// log. The mark of a server that has left is removed.
func TestStore_Marks_SurviveDeletion(t *testing.T) {
	for _, tt := range []struct {
		name        string
		first, last uint64 // range of entries that are deleted
		gone        uint64 // mark, after a restart, of the server that left
	}{
		{"nothing is deleted", 0, 0, 0},
		{"a compaction cuts the front", 1, 8, 0},
		{"a new leader truncates the end", 3, 9, 0},
		{"a new leader truncates the end up to older marks", 4, 9, 1},
		{"a snapshot replaces the log", 1, 9, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStack(t, dir, noSnapshot)
			wantMarks(t, s, "new log", map[raft.ServerID]uint64{"a": 0})
			logs := append(entries(1, 1, 2), marked(t, 3, map[string]uint64{"a": 2, "gone": 1}),
				marked(t, 4, map[string]uint64{"a": 3, "b": 2}))
			if err := s.log.StoreLogs(append(logs, entries(1, 5, 9)...)); err != nil {
				t.Fatal(err)
			}
			want := map[raft.ServerID]uint64{"a": 3, "b": 2, "gone": 0}
			wantMarks(t, s, "stored", want)
			if tt.last > 0 {
				if err := s.log.DeleteRange(tt.first, tt.last); err != nil {
					t.Fatal(err)
				}
			}
			wantMarks(t, s, "deleted", want)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStack(t, dir, noSnapshot)
			want["gone"] = tt.gone
			wantMarks(t, s, "reopened", want)
			if err := s.log.StoreLogs([]*raft.Log{marked(t, 10, map[string]uint64{"a": 1, "b": 9})}); err != nil {
				t.Fatal(err)
			}
			wantMarks(t, s, "a leader with an older mark of one", map[raft.ServerID]uint64{"a": 3, "b": 9})
		})
	}
}

// A log that does not lead to a received snapshot is discarded, when the next entry is stored or
// when the store is opened. The marks of the discarded log are kept.
func TestStore_MarksInDiscardedLog_Survive(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stored bool // whether an entry is stored before the process exits
	}{{"discarded at the next entry", true}, {"discarded when opened", false}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var newest uint64
			snapshot := func() (index, term uint64) { return newest, 2 * min(newest, 1) }
			s := openStack(t, dir, snapshot)
			logs := append(entries(1, 1, 2), marked(t, 3, map[string]uint64{"a": 3}))
			if err := s.log.StoreLogs(append(logs, entries(1, 4, 5)...)); err != nil {
				t.Fatal(err)
			}
			newest = 9
			if tt.stored {
				if err := s.log.StoreLogs(entries(2, 10, 11)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, when := range []string{"reopened", "reopened again"} {
				s = openStack(t, dir, snapshot)
				wantMarks(t, s, when, map[raft.ServerID]uint64{"a": 3})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
