package roster

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/hashilog"
)

func TestTransferRequest_AfterClose_DoesNotReachRaft(t *testing.T) {
	transfers := &transfers{local: &local{}} // without a Raft: a request would panic
	transfers.pending.close()
	if err := transfers.transferRequest(raft.Server{ID: "b"}); !errors.Is(err, raft.ErrRaftShutdown) {
		t.Errorf("got %v, want %v", err, raft.ErrRaftShutdown)
	}
}

// After its shutdown, Raft accepts about half of the transfer requests and never answers them.
func TestTransferRequest_RaftShutDown_ReturnsOnStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	transfers := &transfers{local: &local{Config: Config{Context: ctx, Raft: closedRaft(t)}}}
	target := raft.Server{ID: "other", Address: "other"}
	results := make(chan error)
	for range 32 { // Raft accepts at least one of them, almost certainly
		go func() { results <- transfers.transferRequest(target) }()
	}
	stop()
	for range 32 {
		select {
		case err := <-results:
			if err == nil {
				t.Error("got a leadership transfer, want an error")
			}
		case <-time.After(30 * time.Second):
			t.Fatal("got no result after the node stopped, want an error")
		}
	}
	if err := transfers.transferTo(target); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("after the shutdown: got %v, want %v", err, revoked.ErrClosed)
	}
}

func closedRaft(t *testing.T) *raft.Raft {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "self", hashilog.New(slog.New(slog.DiscardHandler), "raft")
	_, trans := raft.NewInmemTransport("")
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	return r
}
