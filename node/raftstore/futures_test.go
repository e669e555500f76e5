package raftstore

import (
	"errors"
	"runtime"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// stalledFSM applies nothing before resume is closed.
type stalledFSM struct {
	raft.MockFSM
	resume chan struct{}
}

func (f *stalledFSM) Apply(l *raft.Log) any {
	<-f.resume
	return f.MockFSM.Apply(l)
}

// Raft picks at random whether its state machine applies the next queued entry or stops. So the
// chance that it answers all of these entries is 1 : 2^queued.
func TestFutures_RaftStopsBeforeApplying_End(t *testing.T) {
	const queued = 32
	state := &stalledFSM{resume: make(chan struct{})}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "self", hclog.NewNullLogger()
	addr, trans := raft.NewInmemTransport("")
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(conf, state, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	servers := raft.Configuration{Servers: []raft.Server{{ID: "self", Address: addr}}}
	if err := r.BootstrapCluster(servers).Error(); err != nil {
		t.Fatal(err)
	}
	for !<-r.LeaderCh() {
	}
	futures := NewFutures()
	log := futures.Log(r)
	var entries []raft.Future
	// One at a time, because Raft queues the entries that it commits together as one.
	commit := func(propose func() raft.Future) {
		before := r.CommitIndex()
		entries = append(entries, propose())
		for r.CommitIndex() == before && r.State() == raft.Leader {
			runtime.Gosched()
		}
	}
	for range queued {
		commit(func() raft.Future { return log.Apply([]byte{1}, 0) })
	}
	commit(func() raft.Future { return futures.Index(r.AddNonvoter("other", "other", 0, 0)) })
	answers := make(chan error)
	for _, f := range entries {
		go func() { answers <- f.Error() }()
	}
	stopped := r.Shutdown()
	close(state.resume)
	if err := stopped.Error(); err != nil {
		t.Fatal(err)
	}
	futures.End()
	unanswered := 0
	for range entries {
		switch err := <-answers; {
		case errors.Is(err, raft.ErrRaftShutdown):
			unanswered++
		case err != nil:
			t.Errorf("got error %v, want none or %v", err, raft.ErrRaftShutdown)
		}
	}
	if unanswered == 0 {
		t.Error("Raft answered every entry, want entries in its queue when it stops")
	}
}
