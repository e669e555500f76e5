package node

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// A state that was streamed is newer than its snapshot: a node that has it and reports on a new stream
// before its log has come as far was taken for one with an old disk, and ended itself (found by TestSim).
func TestAnInstalledStateCountsAsTheEndOfTheLog(t *testing.T) {
	open := func() *fsm.FSM {
		f, err := fsm.Open(fsm.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	leader, follower := open(), &installs{FSM: open()}
	data, err := fsm.Encode(fsm.TypeBootstrap, &fsm.Bootstrap{Stamp: 1, ClusterId: "c"})
	if err != nil {
		t.Fatal(err)
	}
	leader.Apply(&raft.Log{Index: 608, Term: 7, Type: raft.LogCommand, Data: data})
	var snapshot bytes.Buffer
	if _, err := leader.WriteSnapshot(context.Background(), &snapshot); err != nil {
		t.Fatal(err)
	}
	if err := follower.Restore(io.NopCloser(&snapshot)); err != nil {
		t.Fatal(err)
	}
	if got := follower.index.Load(); got != 608 {
		t.Errorf("the state that was installed counts up to %d, want 608", got)
	}
	p := newPeers("a", 0)
	p.open("b", 1, &Hello{}, "boot")
	rep := &Report{Applied: follower.Applied(), LastIndex: max(596, follower.index.Load())}
	p.observe("b", 1, p.began, rep, "")
	if had, back := p.rolledBack("b", rep.LastIndex); back {
		t.Errorf("a node with a new state is taken for one with an old disk: had %d, got %d", had, rep.LastIndex)
	}
}
