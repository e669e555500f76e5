package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// A received snapshot counts once the state is restored from it. After a failed restore Raft
// continues at its old position, and the log would hide the entries that Raft still has to apply.
func TestSnapshotTracker_CountsRestoredSnapshots(t *testing.T) {
	f := openFSM(t, nil)
	var took [][2]uint64
	tracker, err := newSnapshotTracker(fsm.NewSnapshotStore(raft.NewInmemSnapshotStore(), f), f,
		func(low, high uint64) { took = append(took, [2]uint64{low, high}) })
	if err != nil {
		t.Fatal(err)
	}
	want := func(when string, index, term uint64) {
		t.Helper()
		if i, tm := tracker.newest(); i != index || tm != term {
			t.Errorf("%s: got snapshot %d of term %d, want %d of term %d", when, i, tm, index, term)
		}
	}
	create := func(index, term uint64) raft.SnapshotSink {
		sink, err := tracker.Create(1, index, term, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		return sink
	}
	receive := func(index, term uint64) {
		sink := create(index, term)
		if _, err := io.WriteString(sink, "received"); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	receive(600, 7)
	want("received", 0, 0)
	if err := tracker.Restore(io.NopCloser(strings.NewReader("received"))); err == nil {
		t.Fatal("got nil, want an error for an invalid snapshot")
	}
	want("restore failed", 0, 0)
	state := streamed(t, openFSM(t, nil), 608)
	receive(600, 7)
	if err := tracker.Restore(state); err != nil {
		t.Fatal(err)
	}
	want("restored", 600, 7)
	taken, err := tracker.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Persist(create(608, 8)); err != nil {
		t.Fatal(err)
	}
	want("taken here", 608, 8)
	if want := [][2]uint64{{0, 7}, {0, 7}}; !slices.Equal(took, want) {
		t.Errorf("got terms %v, want %v: two snapshots were received", took, want)
	}
}

func TestSnapshotTracker_FailedRestore_NamesCause(t *testing.T) {
	other := errors.New("failed to load any existing snapshots")
	full := fmt.Errorf("write state: %w", syscall.ENOSPC)
	broken := errors.New("a row is cut short")
	for name, tt := range map[string]struct {
		failed error
		newest bool
		err    error
		want   error
		text   string
	}{
		"nothing restored":          {nil, true, nil, nil, ""},
		"another error":             {nil, false, other, other, ""},
		"disk full, no older one":   {full, false, other, syscall.ENOSPC, "index 70"},
		"disk full, older one used": {full, false, nil, syscall.ENOSPC, "index 70"},
		"newest broken, older works": {broken, false, nil, revoked.ErrDamaged,
			"/data/snapshots (cannot restore the newest snapshot, at index 70"},
	} {
		s := &snapshotTracker{}
		s.position.Store(&position{70, 2})
		if tt.failed != nil {
			s.failed.Store(&tt.failed)
		}
		err := s.startError("/data", tt.newest, tt.err)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v and %q", name, err, tt.want, tt.text)
		}
	}
}

// streamed brings the state of f to an index, and returns the snapshot that a leader with this
// state sends.
func streamed(t *testing.T, f *fsm.FSM, index uint64) io.ReadCloser {
	t.Helper()
	data, err := command.Encode(&command.Bootstrap{Stamp: 1, ClusterId: "c"})
	if err != nil {
		t.Fatal(err)
	}
	f.Apply(&raft.Log{Index: index, Term: 7, Type: raft.LogCommand, Data: data})
	var snapshot bytes.Buffer
	if _, err := f.WriteSnapshot(context.Background(), &snapshot); err != nil {
		t.Fatal(err)
	}
	return io.NopCloser(&snapshot)
}
