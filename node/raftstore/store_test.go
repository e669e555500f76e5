package raftstore

import (
	"errors"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
)

func TestStore_Reopen_KeepsEntries(t *testing.T) {
	dir := t.TempDir()
	s := openStack(t, dir, noSnapshot)
	if err := s.log.StoreLogs(entries(1, 1, 600)); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStack(t, dir, noSnapshot)
	last, err := s.log.LastIndex()
	if err != nil || last != 600 {
		t.Errorf("got last index %d, %v, want 600", last, err)
	}
	var entry raft.Log
	if err := s.log.GetLog(300, &entry); err != nil || entry.Term != 1 {
		t.Errorf("got %+v, %v, want entry 300 of term 1", entry, err)
	}
	if term, err := s.stable.GetUint64([]byte(keyTerm)); err != nil || term != 7 {
		t.Errorf("got term %d, %v, want 7", term, err)
	}
	if s.Size() == 0 {
		t.Error("got size 0, want that of the file")
	}
}

func TestStore_Log_AllowsGaps(t *testing.T) {
	s := openStack(t, t.TempDir(), noSnapshot)
	if m, ok := s.log.(raft.MonotonicLogStore); ok && m.IsMonotonic() {
		t.Error("got a monotonic log, want one with gaps: Raft would delete it before a restore")
	}
	if err := s.log.StoreLogs(append(entries(1, 1, 2), entries(1, 5, 6)...)); err != nil {
		t.Errorf("got %v, want nil for entries with a gap", err)
	}
}

func TestStore_CloseTwice_RefusesWrites(t *testing.T) {
	s := openStack(t, t.TempDir(), noSnapshot)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 2); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("got %v, want %v", err, revoked.ErrClosed)
	}
	if err := s.log.StoreLogs(entries(1, 1, 1)); err == nil {
		t.Error("got nil, want an error for the entry")
	}
}

// A node crashes after it has restored a snapshot over a divergent tail, and before the next
// append. Raft then starts with only the entries that lead to the snapshot.
func TestStore_CrashAfterInstall_RaftStarts(t *testing.T) {
	dir := t.TempDir()
	b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
	n := b.add("a", nil)
	alone := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	s := openStack(t, dir, noSnapshot)
	if err := s.log.StoreLogs(entries(2, 1, 20)); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 3); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sink, err := n.snapshots.Create(1, 10, 3, alone, 1, n.trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := (listSnapshot{"one", "two"}).Persist(sink); err != nil {
		t.Fatal(err)
	}
	s = openStack(t, dir, n.newest)
	b.startOn(n, s.log, s.stable, n.trans, 0)
	b.apply("three", 1, n)
	n.fsm.wait(t, "the entry", func(commands []string, _ int) bool { return len(commands) == 3 })
	if got, want := n.fsm.list(), []string{"one", "two", "three 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if first, err := s.bolt.FirstIndex(); err != nil || first != 11 {
		t.Errorf("got first entry %d, %v, want 11", first, err)
	}
}

// A received state is newer than its snapshot. Without a record of its index, a node that restarts
// before its log has reached it would look like a node with a rolled-back disk.
func TestStore_Installed_SurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	var follower *fsm.FSM
	var s *Store
	follower = openFSM(t, func(index uint64) error {
		if at := follower.Applied(); at >= index {
			t.Errorf("got state at %d, want it below %d when the index is recorded", at, index)
		}
		return s.SetInstalled(index)
	})
	for _, want := range []uint64{0, 608} {
		var err error
		s, err = Open(Config{Dir: dir, FSM: follower, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Installed(); got != want {
			t.Errorf("after open: got installed index %d, want %d", got, want)
		}
		if want == 0 {
			if err := follower.Restore(streamed(t, openFSM(t, nil), 608)); err != nil {
				t.Fatal(err)
			}
			if got := s.Installed(); got != 608 {
				t.Errorf("after restore: got installed index %d, want 608", got)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStore_InstalledNotRecorded_KeepsState(t *testing.T) {
	f := openFSM(t, func(uint64) error { return errDisk })
	if err := f.Restore(streamed(t, openFSM(t, nil), 5)); !errors.Is(err, errDisk) || f.Applied() != 0 {
		t.Errorf("got %v and a state at %d, want %v and the old state", err, f.Applied(), errDisk)
	}
}
