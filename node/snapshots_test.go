package node

import (
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// A snapshot that came counts when the state has been restored from it: Raft goes on where it was after a restore
// that fails, and a log that went by the snapshot would hide what Raft still has to apply.
func TestASnapshotCountsWhenItIsRestored(t *testing.T) {
	open := func() *fsm.FSM {
		f, err := fsm.Open(fsm.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	f := open()
	inner := raft.NewInmemSnapshotStore()
	snaps, err := indexSnapshots(fsm.NewSnapshotStore(inner, f))
	if err != nil {
		t.Fatal(err)
	}
	machine := countedFSM{f, snaps}
	want := func(when string, index, term uint64) {
		t.Helper()
		if i, tm := snaps.newest(); i != index || tm != term {
			t.Errorf("%s: got snapshot %d of term %d, want %d of term %d", when, i, tm, index, term)
		}
	}
	create := func(index, term uint64) raft.SnapshotSink {
		sink, err := snaps.Create(1, index, term, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		return sink
	}
	copied := func(index, term uint64) {
		sink := create(index, term)
		if _, err := io.WriteString(sink, "as it came"); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	copied(600, 7)
	want("copied", 0, 0)
	if err := machine.Restore(io.NopCloser(strings.NewReader("as it came"))); err == nil {
		t.Fatal("restored from what is no snapshot")
	}
	want("not restored", 0, 0)
	state := streamed(t, open(), 608)
	copied(600, 7)
	if err := machine.Restore(state); err != nil {
		t.Fatal(err)
	}
	want("restored", 600, 7)
	taken, err := machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Persist(create(608, 8)); err != nil {
		t.Fatal(err)
	}
	want("taken here", 608, 8)
}
