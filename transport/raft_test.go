package transport_test

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/await"
	"revoked/transport"
)

// heartbeat returns a message for which NetworkTransport uses the fast path if a handler is set.
func heartbeat(from *server) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(from.name), Addr: []byte(from.Raft().LocalAddr())},
		Term:      1,
	}
}

// serveRaft answers Raft's requests until the test ends, and sends them to served.
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
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: c.Term, Granted: true}, nil)
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

func TestRaft_HeartbeatsUseTheMainLoop(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	n2.Raft().SetHeartbeatHandler(func(rpc raft.RPC) {
		t.Error("got a heartbeat on the fast path, want it in the main loop")
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	served := serveRaft(t, n2)
	var resp raft.AppendEntriesResponse
	if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), heartbeat(n1),
		&resp); err != nil || !resp.Success {
		t.Fatalf("got %v, %v, want success", resp, err)
	}
	if _, ok := await.Receive(t, served, "message to Raft").(*raft.AppendEntriesRequest); !ok {
		t.Error("got no heartbeat from Consumer, want one")
	}
}

func TestRaft_DeclinesPipelining(t *testing.T) {
	n1 := start(t, newCA(t), "node1", nil)
	_, err := n1.Raft().AppendEntriesPipeline("node2", transport.RaftAddress("node2", n1.addr))
	if !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v, want ErrPipelineReplicationNotSupported", err)
	}
}

func TestRaft_KeepsPreVote(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	voter, ok := n1.Raft().(raft.WithPreVote)
	if !ok {
		t.Fatal("got a transport without RequestPreVote, want one with it")
	}
	serveRaft(t, n2)
	var resp raft.RequestPreVoteResponse
	req := &raft.RequestPreVoteRequest{RPCHeader: heartbeat(n1).RPCHeader, Term: 2}
	if err := voter.RequestPreVote("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil ||
		!resp.Granted {
		t.Errorf("got %v, %v, want granted", resp, err)
	}
}

// A candidate's note reaches the voter, which refuses the vote in Raft's place. A candidate without
// a VoteGuard, as in version 0.3, sends no note.
func TestGuardVotes_Note_DecidesVote(t *testing.T) {
	a := newCA(t)
	old, n1, n2 := start(t, a, "node3", nil), start(t, a, "node1", nil), start(t, a, "node2", nil)
	note := []byte("fine")
	n1.GuardVotes(transport.VoteGuard{
		Note:    func(raft.ServerID) []byte { return note },
		MayVote: func([]byte) bool { return true },
	})
	n2.GuardVotes(transport.VoteGuard{
		Note:    func(raft.ServerID) []byte { return nil },
		MayVote: func(note []byte) bool { return string(note) == "fine" },
	})
	serveRaft(t, n2)
	for _, tt := range []struct {
		from *server
		note string
		want bool
	}{{n1, "fine", true}, {n1, "rolled back", false}, {old, "", true}} {
		note = []byte(tt.note)
		req := &raft.RequestVoteRequest{
			RPCHeader: heartbeat(tt.from).RPCHeader, Term: 2,
		}
		var resp raft.RequestVoteResponse
		err := tt.from.Raft().RequestVote("node2", transport.RaftAddress("node2", n2.addr), req, &resp)
		if err != nil || resp.Granted != tt.want {
			t.Errorf("%s with note %q: got %v, %v, want granted: %t", tt.from.name, tt.note, resp.Granted, err, tt.want)
		}
		if !reflect.DeepEqual(req, &raft.RequestVoteRequest{RPCHeader: heartbeat(tt.from).RPCHeader, Term: 2}) {
			t.Errorf("got request %+v, want it unchanged: all voters share it", req)
		}
	}
}

func TestRaft_LocalAddr_HasNodeAndAddress(t *testing.T) {
	n1 := start(t, newCA(t), "node1", nil)
	if got, want := n1.Raft().LocalAddr(), transport.RaftAddress("node1", n1.addr); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The cluster elects with pre-vote, replicates, transfers leadership, and survives the loss of a
// member.
func TestRaft_ThreeNodes_ElectAndReplicate(t *testing.T) {
	a := newCA(t)
	log := &await.Log{}
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
		t.Fatalf("transfer: got %v, want nil", err)
	}
	next.await(t, raft.Leader)
	if strings.Contains(log.String(), "pre-vote is disabled") {
		t.Error("got Raft without pre-vote, want it enabled")
	}
	// The leader's Raft shuts down and closes its connections. Calls still work.
	if err := next.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	var rest []*member
	var restPort, stoppedPort *server
	for i, m := range members {
		if m == next {
			stoppedPort = nodes[i]
			continue
		}
		rest = append(rest, m)
		restPort = nodes[i]
	}
	leader = awaitLeader(t, rest)
	if err := leader.raft.Apply([]byte("later"), longStop).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := restPort.Call(within(t), stoppedPort.addr, stoppedPort.name, "/", nil); err != nil {
		t.Errorf("call after Raft's end: got %v, want nil", err)
	}
}

func TestRaft_InstallSnapshot_PassesAllBytes(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	serveRaft(t, n2)
	const size = 3<<20 + 17
	var resp raft.InstallSnapshotResponse
	req := &raft.InstallSnapshotRequest{RPCHeader: heartbeat(n1).RPCHeader, Term: 1, Size: size}
	err := n1.Raft().InstallSnapshot("node2", transport.RaftAddress("node2", n2.addr), req, &resp,
		io.LimitReader(zeros{}, size))
	if err != nil || !resp.Success {
		t.Errorf("got %v, %v, want success", resp, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The commit index of a message may be higher than the last entry that the message covers. The
// receiver lowers it, and delivers the committed part in a message of its own before the entries.
func TestRaft_CommitIndex_BoundedAndDeliveredFirst(t *testing.T) {
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
		{"heartbeat", []message{{0, 0, 0}}, []message{{0, 0, 0}}},
		{"only the commit index", []message{{7, 0, 7}}, []message{{7, 0, 7}}},
		{"below the last covered entry", []message{{7, 0, 5}}, []message{{7, 0, 5}}},
		{"beyond the last covered entry, no entries", []message{{7, 0, 9}}, []message{{7, 0, 7}}},
		{"entries after a commit", []message{{7, 2, 7}}, []message{{7, 0, 7}, {7, 2, 7}}},
		{"beyond the last covered entry, entries", []message{{7, 2, 20}}, []message{{7, 0, 7}, {7, 2, 9}}},
		{"first entries of a log", []message{{0, 2, 2}}, []message{{0, 2, 2}}},
		{"no commit yet", []message{{7, 2, 0}}, []message{{7, 2, 0}}},
		{"sent without entries before", []message{{7, 0, 7}, {7, 1, 7}}, []message{{7, 0, 7}, {7, 1, 7}}},
		{"sent ahead once", []message{{7, 1, 7}, {7, 1, 7}}, []message{{7, 0, 7}, {7, 1, 7}, {7, 1, 7}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newCA(t)
			n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
			served := serveRaft(t, n2)
			for _, m := range tc.sent {
				req := heartbeat(n1)
				req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex, req.Entries = m.prev, 1, m.commit,
					entries(m.prev+1, m.entries)
				var resp raft.AppendEntriesResponse
				if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil ||
					!resp.Success {
					t.Fatalf("got %v, %v, want success", resp, err)
				}
			}
			for i, want := range tc.want {
				got := await.Receive(t, served, "message to Raft").(*raft.AppendEntriesRequest)
				if m := (message{got.PrevLogEntry, uint64(len(got.Entries)), got.LeaderCommitIndex}); m != want ||
					got.Term != 1 || string(got.ID) != n1.name {
					t.Errorf("message %d: got %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// The review function gets each message before Raft, including the inserted one, with its limited
// commit index.
func TestReviewAppends_ChangesRequests(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	n2.ReviewAppends(func(req *raft.AppendEntriesRequest) { req.PrevLogEntry = 0 })
	served := serveRaft(t, n2)
	req := heartbeat(n1)
	req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex, req.Entries = 7, 1, 9, []*raft.Log{{Index: 8, Term: 1}}
	var resp raft.AppendEntriesResponse
	if err := n1.Raft().AppendEntries("node2", transport.RaftAddress("node2", n2.addr), req, &resp); err != nil ||
		!resp.Success {
		t.Fatalf("got %v, %v, want success", resp, err)
	}
	for i, want := range []uint64{7, 8} {
		got := await.Receive(t, served, "message to Raft").(*raft.AppendEntriesRequest)
		if got.PrevLogEntry != 0 || got.LeaderCommitIndex != want {
			t.Errorf("message %d: got %+v, want no previous entry and commit index %d", i, got, want)
		}
	}
}
