package transport_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport"
)

// heartbeat is a message that takes NetworkTransport's fast path when a handler is set.
func heartbeat(from *server) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(from.name), Addr: []byte(from.Raft().LocalAddr())},
		Term:      1,
	}
}

// serveRaft answers what comes on the Consumer channel until the test ends, and counts it.
func serveRaft(t testing.TB, s *server) (served <-chan any) {
	t.Helper()
	out := make(chan any, 64)
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case rpc := <-s.Raft().Consumer():
				switch c := rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: c.Term, Success: true}, nil)
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: c.Term, Granted: true}, nil)
				case *raft.InstallSnapshotRequest:
					n, _ := io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Term: c.Term, Success: n == c.Size}, nil)
				default:
					rpc.Respond(nil, errors.New("unexpected"))
				}
				select {
				case out <- rpc.Command:
				default:
				}
			}
		}
	}()
	return out
}

func TestHeartbeatsGoThroughTheMainLoop(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	n2.Raft().SetHeartbeatHandler(func(rpc raft.RPC) {
		t.Error("the fast path took a heartbeat")
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	served := serveRaft(t, n2)
	var resp raft.AppendEntriesResponse
	if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), heartbeat(n1), &resp); err != nil || !resp.Success {
		t.Fatalf("got %v, %v, want success", resp, err)
	}
	if _, ok := (<-served).(*raft.AppendEntriesRequest); !ok {
		t.Error("the heartbeat did not come through Consumer")
	}
}

func TestPipeliningIsDeclined(t *testing.T) {
	n1 := start(t, newAuthority(t), "node1", nil)
	_, err := n1.Raft().AppendEntriesPipeline("node2", transport.RaftAddress("node2", n1.addr))
	if !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v, want ErrPipelineReplicationNotSupported", err)
	}
}

func TestPreVoteIsKept(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	voter, ok := n1.Raft().(raft.WithPreVote)
	if !ok {
		t.Fatal("the transport has no RequestPreVote")
	}
	serveRaft(t, n2)
	var resp raft.RequestPreVoteResponse
	req := &raft.RequestPreVoteRequest{RPCHeader: heartbeat(n1).RPCHeader, Term: 2}
	if err := voter.RequestPreVote("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil || !resp.Granted {
		t.Errorf("got %v, %v, want granted", resp, err)
	}
}

func TestRaftKnowsTheNodeByNameAndAddress(t *testing.T) {
	n1 := start(t, newAuthority(t), "node1", nil)
	if got, want := n1.Raft().LocalAddr(), transport.RaftAddress("node1", n1.addr); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := n1.LocalAddr(); got != n1.addr {
		t.Errorf("got %s, want %s", got, n1.addr)
	}
}

// A cluster on the shipped transport: elects with pre-vote, replicates, moves leadership, installs a
// snapshot, survives the loss of a member's port.
func TestRaftRunsOnTheShippedTransport(t *testing.T) {
	a := newAuthority(t)
	log := newLogBook()
	var nodes []*server
	var servers []raft.Server
	for _, name := range []string{"node1", "node2", "node3"} {
		s := start(t, a, name, nil)
		nodes = append(nodes, s)
		servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: s.Raft().LocalAddr()})
	}
	members := make([]*member, 0, len(nodes))
	for _, s := range nodes {
		members = append(members, newMember(t, memberConfig{
			id: s.name, trans: s.Raft(), servers: servers, timeout: time.Second, preVote: true, log: log,
		}))
	}
	leader := awaitLeader(t, members)
	for range 3 {
		if err := leader.raft.Apply([]byte("write"), longStop).Error(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members {
		m.fsm.await(t, "write")
	}
	var next *member
	for _, m := range members {
		if m != leader {
			next = m
		}
	}
	if err := leader.raft.LeadershipTransferToServer(raft.ServerID(next.id), next.trans.LocalAddr()).Error(); err != nil {
		t.Fatalf("transfer: %v", err)
	}
	next.await(t, raft.Leader)
	if strings.Contains(log.String(), "pre-vote is disabled") {
		t.Error("Raft runs without pre-vote")
	}
	// The leader's Raft shuts down and closes its share of the port; the calls go on.
	if err := next.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	var rest []*member
	var restPort, deadPort *server
	for i, m := range members {
		if m == next {
			deadPort = nodes[i]
			continue
		}
		rest = append(rest, m)
		restPort = nodes[i]
	}
	leader = awaitLeader(t, rest)
	if err := leader.raft.Apply([]byte("later"), longStop).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := restPort.Call(within(t), deadPort.addr, deadPort.name, "/", nil); err != nil {
		t.Errorf("call after Raft's end: %v", err)
	}
}

func TestASnapshotPassesWhole(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	serveRaft(t, n2)
	const size = 3<<20 + 17
	var resp raft.InstallSnapshotResponse
	req := &raft.InstallSnapshotRequest{RPCHeader: heartbeat(n1).RPCHeader, Term: 1, Size: size}
	err := n1.Raft().InstallSnapshot("node2", transport.RaftAddress("node2", n2.addr), req, &resp, io.LimitReader(zeros{}, size))
	if err != nil || !resp.Success {
		t.Errorf("got %v, %v, want success", resp, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A message may prove less of a follower's log than the commit index it carries, and what it does
// prove to be committed is applied before its entries are stored.
func TestCommitIndexComesBoundedAndAhead(t *testing.T) {
	entries := func(from, n uint64) (out []*raft.Log) {
		for i := range n {
			out = append(out, &raft.Log{Index: from + i, Term: 1})
		}
		return out
	}
	type message struct{ prev, entries, commit uint64 }
	for _, tc := range []struct {
		name string
		sent []message
		want []message
	}{
		{"a heartbeat", []message{{0, 0, 0}}, []message{{0, 0, 0}}},
		{"the commit index alone", []message{{7, 0, 7}}, []message{{7, 0, 7}}},
		{"behind what is proven", []message{{7, 0, 5}}, []message{{7, 0, 5}}},
		{"beyond what is proven, no entries", []message{{7, 0, 9}}, []message{{7, 0, 7}}},
		{"entries after a commit", []message{{7, 2, 7}}, []message{{7, 0, 7}, {7, 2, 7}}},
		{"beyond what is proven, with entries", []message{{7, 2, 20}}, []message{{7, 0, 7}, {7, 2, 9}}},
		{"the first entries of a log", []message{{0, 2, 2}}, []message{{0, 2, 2}}},
		{"nothing committed yet", []message{{7, 2, 0}}, []message{{7, 2, 0}}},
		{"brought forward once", []message{{7, 1, 7}, {7, 1, 7}}, []message{{7, 0, 7}, {7, 1, 7}, {7, 1, 7}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAuthority(t)
			n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
			served := serveRaft(t, n2)
			for _, m := range tc.sent {
				req := heartbeat(n1)
				req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex, req.Entries = m.prev, 1, m.commit, entries(m.prev+1, m.entries)
				var resp raft.AppendEntriesResponse
				if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil || !resp.Success {
					t.Fatalf("got %v, %v, want success", resp, err)
				}
			}
			for i, want := range tc.want {
				got := (<-served).(*raft.AppendEntriesRequest)
				if m := (message{got.PrevLogEntry, uint64(len(got.Entries)), got.LeaderCommitIndex}); m != want || got.Term != 1 || string(got.ID) != n1.name {
					t.Errorf("message %d: got %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// A node sees each message before Raft does, the one that comes ahead too, and with the commit index that
// it proves as it came.
func TestANodeReviewsAppends(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	n2.ReviewAppends(func(req *raft.AppendEntriesRequest) { req.PrevLogEntry = 0 })
	served := serveRaft(t, n2)
	req := heartbeat(n1)
	req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex, req.Entries = 7, 1, 9, []*raft.Log{{Index: 8, Term: 1}}
	var resp raft.AppendEntriesResponse
	if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil || !resp.Success {
		t.Fatalf("got %v, %v, want success", resp, err)
	}
	for i, want := range []uint64{7, 8} {
		if got := (<-served).(*raft.AppendEntriesRequest); got.PrevLogEntry != 0 || got.LeaderCommitIndex != want {
			t.Errorf("message %d: got %+v, want no previous entry and commit index %d", i, got, want)
		}
	}
}
