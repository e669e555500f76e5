package node

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// A state that was streamed is newer than its snapshot: a node that has it and reports on a new stream, or
// after a restart, before its log has come as far was taken for one with an old disk, and ended itself
// (found by TestSim).
func TestAnInstalledStateCountsAsTheEndOfTheLog(t *testing.T) {
	stable := raft.NewInmemStore()
	in, err := openInstalls(stable)
	if err != nil || in.index.Load() != 0 {
		t.Fatalf("with an empty store: got %d, %v", in.index.Load(), err)
	}
	open := func(installing func(uint64) error) *fsm.FSM {
		f, err := fsm.Open(fsm.Config{Dir: t.TempDir(), Installing: installing})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	var follower *fsm.FSM
	leader := open(nil)
	follower = open(func(index uint64) error {
		if at := follower.Applied(); at >= index {
			t.Errorf("noted when the state was at %d already", at)
		}
		return in.note(index)
	})
	if err := follower.Restore(streamed(t, leader, 608)); err != nil {
		t.Fatal(err)
	}
	again, err := openInstalls(stable)
	if err != nil {
		t.Fatal(err)
	}
	for when, in := range map[string]*installs{"in this life": in, "after a restart": again} {
		if got := in.index.Load(); got != 608 {
			t.Errorf("%s: the state that was installed counts up to %d, want 608", when, got)
		}
		p := newPeers("a", 0)
		p.open("b", 1, &Hello{}, "boot")
		rep := &Report{Applied: follower.Applied(), LastIndex: max(596, min(in.index.Load(), follower.Applied()))}
		p.observe("b", 1, p.began, rep, "")
		if had, back := p.rolledBack("b", rep.LastIndex); back {
			t.Errorf("%s: a node with a new state is taken for one with an old disk: had %d, got %d", when, had, rep.LastIndex)
		}
	}
}

// A state that cannot be noted does not replace the one before it.
func TestAStateThatCannotBeNotedIsNotInstalled(t *testing.T) {
	f, err := fsm.Open(fsm.Config{Dir: t.TempDir(), Installing: func(uint64) error { return io.ErrShortWrite }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := fsm.Open(fsm.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := f.Restore(streamed(t, other, 5)); err == nil || f.Applied() != 0 {
		t.Errorf("got %v and a state at %d, want an error and the old state", err, f.Applied())
	}
}

// streamed brings a state to an index and returns what a leader with that state sends.
func streamed(t *testing.T, f *fsm.FSM, index uint64) io.ReadCloser {
	t.Helper()
	data, err := fsm.Encode(fsm.TypeBootstrap, &fsm.Bootstrap{Stamp: 1, ClusterId: "c"})
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
