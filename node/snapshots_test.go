package node

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
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

// What a start tells of a restore that failed goes before what Raft says of it.
func TestAStartTellsWhyASnapshotWasNotRestored(t *testing.T) {
	other := errors.New("failed to load any existing snapshots")
	full := fmt.Errorf("write state: %w", syscall.ENOSPC)
	broken := errors.New("a row is cut short")
	for name, tt := range map[string]struct {
		failed error
		newest bool
		err    error
		want   error
		says   string
	}{
		"nothing was restored":               {nil, true, nil, nil, ""},
		"another error":                      {nil, false, other, other, ""},
		"the disk is full, no older one":     {full, false, other, syscall.ENOSPC, "index 70"},
		"the disk is full, an older one":     {full, false, nil, syscall.ENOSPC, "index 70"},
		"it is broken, and an older one was": {broken, false, nil, revoked.ErrDamaged, "/data/snapshots (the newest, at index 70"},
	} {
		s := &indexedSnapshots{}
		s.mark.Store(&snapshotMark{70, 2})
		if tt.failed != nil {
			s.failed.Store(&tt.failed)
		}
		err := s.startError("/data", tt.newest, tt.err)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %v and %q", name, err, tt.want, tt.says)
		}
	}
}
