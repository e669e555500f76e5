package transport_test

import (
	"net/http"
	"testing"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"revoked/internal/await"
	"revoked/transport"
)

func TestClose_LeavesNoGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	a := newCA(t)
	ended := make(chan error, 1)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) { c.Handler = echoFrames(ended) })
	s, err := n1.Stream(within(t), n2.addr, "node2", "/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// An unanswered Raft message keeps connections open on both sides.
	failed := make(chan error, 1)
	go func() {
		var resp raft.AppendEntriesResponse
		failed <- n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), heartbeat(n1), &resp)
	}()
	await.Receive(t, n2.Raft().Consumer(), "message")
	for _, n := range []*server{n1, n2} {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if got := n.metric(t, "revoked_peer_connections", nil); got != 0 {
			t.Errorf("%s: got %v connections after Close, want 0", n.name, got)
		}
	}
	if err := await.Receive(t, failed, "result of the message"); err == nil {
		t.Error("unanswered message: got nil, want an error")
	}
	goleak.VerifyNone(t, before)
}

// A follower that does not answer a notice delays neither the leader's own requests nor Close.
func TestAnnounceCommit_FollowerSilent_CloseReturns(t *testing.T) {
	before := goleak.IgnoreCurrent()
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	target := transport.RaftAddress("node2", n2.addr)
	entry := heartbeat(n1)
	entry.PrevLogEntry, entry.PrevLogTerm, entry.Entries = 6, 1, []*raft.Log{{Index: 7, Term: 1}}
	sent := make(chan error, 1)
	send := func() { sent <- n1.Raft().AppendEntries("node2", target, entry, &raft.AppendEntriesResponse{}) }
	answer := func(rpc raft.RPC) {
		t.Helper()
		rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
		if err := await.Receive(t, sent, "answer"); err != nil {
			t.Fatal(err)
		}
	}
	inbox := n2.Raft().Consumer()
	go send()
	answer(await.Receive(t, inbox, "message"))
	n1.AnnounceCommit(1, 7)
	notice := await.Receive(t, inbox, "notice").Command.(*raft.AppendEntriesRequest) // never answered
	if notice.PrevLogEntry != 7 || notice.PrevLogTerm != 1 || notice.LeaderCommitIndex != 7 || len(notice.Entries) > 0 ||
		string(notice.ID) != "node1" {
		t.Errorf("got %+v, want a notice of entry 7", notice)
	}
	if n1.Stalled("node2", 0) {
		t.Error("got a stalled replication, want a notice not to count as replication")
	}
	go send()
	answer(await.Receive(t, inbox, "message"))
	for _, n := range []*server{n1, n2} {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t, before)
}

func TestServer_HandlerPanics_IsLogged(t *testing.T) {
	a := newCA(t)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a defect") })
	})
	if _, err := n1.Call(within(t), n2.addr, "node2", "/x", nil); err == nil {
		t.Error("got nil, want an error")
	}
	n2.log.Wait(t, "handler of a peer call panicked", "a defect", "peer=node1")
}

func TestRaftClose_CallStillWorks(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	serveRaft(t, n2)
	target := transport.RaftAddress("node2", n2.addr)
	if err := n1.Raft().AppendEntries("node2", target, heartbeat(n1), &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	if err := n1.Raft().(raft.WithClose).Close(); err != nil {
		t.Fatal(err)
	}
	if err := n1.Raft().AppendEntries("node2", target, heartbeat(n1), &raft.AppendEntriesResponse{}); err == nil {
		t.Error("Raft after its Close: got nil, want an error")
	}
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); err != nil {
		t.Errorf("call after Raft's Close: got %v, want nil", err)
	}
}
