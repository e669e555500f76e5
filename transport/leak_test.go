package transport_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"revoked/transport"
)

func TestCloseLeavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	a := newAuthority(t)
	ended := make(chan error, 1)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) { c.Handler = echoFrames(t, ended) })
	s, err := n1.Stream(within(t), n2.addr, "node2", "/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// A message of Raft that nobody serves yet: its connections are open on both sides.
	failed := make(chan error, 1)
	go func() {
		var resp raft.AppendEntriesResponse
		failed <- n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), heartbeat(n1), &resp)
	}()
	select {
	case <-n2.Raft().Consumer():
	case <-time.After(longStop):
		t.Fatal("no message")
	}
	for _, n := range []*server{n1, n2} {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if got := n.metric(t, "revoked_peer_connections", nil); got != 0 {
			t.Errorf("%s: got %v connections after Close, want none", n.name, got)
		}
	}
	if err := <-failed; err == nil {
		t.Error("the message that nobody answered: got no error")
	}
	goleak.VerifyNone(t, before)
}

func TestAPanicInAHandlerIsLoggedAndTheOutcomeUnknown(t *testing.T) {
	a := newAuthority(t)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a defect") })
	})
	if _, err := n1.Call(within(t), n2.addr, "node2", "/x", nil); err == nil {
		t.Error("got no error")
	}
	n2.log.wait(t, "made the handler panic", "a defect", "peer=node1")
}

func TestRaftsShareEndsAlone(t *testing.T) {
	a := newAuthority(t)
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
		t.Error("Raft after its Close: got no error")
	}
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); err != nil {
		t.Errorf("a call after Raft's Close: %v", err)
	}
}
