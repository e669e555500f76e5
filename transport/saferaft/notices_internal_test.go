package saferaft

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/hashilog"
)

// A noticeBook records the notices of one leader, in virtual time. Servers whose gate is set answer
// when the gate is closed.
type noticeBook struct {
	notices
	fail error

	lock  sync.Mutex
	sent  []string // server, term and index
	gates map[raft.ServerID]chan struct{}
	now   map[raft.ServerID]int // in flight
	most  int
}

func newNoticeBook() *noticeBook {
	b := &noticeBook{gates: map[raft.ServerID]chan struct{}{}, now: map[raft.ServerID]int{}}
	b.send = func(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest,
		_ *raft.AppendEntriesResponse) error {
		b.lock.Lock()
		if len(req.Entries) > 0 || req.PrevLogTerm != req.Term || req.LeaderCommitIndex != req.PrevLogEntry ||
			isHeartbeat(req) || target != raft.ServerAddress(id) || string(req.ID) != "leader" {
			b.sent = append(b.sent, fmt.Sprintf("bad request to %s: %+v", target, req))
		}
		b.sent = append(b.sent, fmt.Sprintf("%s %d:%d", id, req.Term, req.PrevLogEntry))
		b.now[id]++
		b.most = max(b.most, b.now[id])
		gate := b.gates[id]
		b.lock.Unlock()
		if gate != nil {
			<-gate
		}
		b.lock.Lock()
		defer b.lock.Unlock()
		b.now[id]--
		return b.fail
	}
	return b
}

// append records the answer of a server to Raft's own request. The request has that many entries
// after index prev, and the leader's commit index.
func (b *noticeBook) append(id raft.ServerID, term, prev, entries, commit uint64, success bool) {
	req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("leader")}, Term: term, PrevLogEntry: prev,
		LeaderCommitIndex: commit}
	for i := range entries {
		req.Entries = append(req.Entries, &raft.Log{Index: prev + i + 1, Term: term})
	}
	b.appended(id, raft.ServerAddress(id), req, &raft.AppendEntriesResponse{Term: term, Success: success})
}

// want compares the notices since the last call.
func (b *noticeBook) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	b.lock.Lock()
	defer b.lock.Unlock()
	slices.Sort(b.sent)
	if !slices.Equal(b.sent, want) {
		t.Errorf("got notices %v, want %v", b.sent, want)
	}
	b.sent = nil
}

func TestNotices_Followers_GetOneAfterTheEntry(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(b *noticeBook)
		want []string
	}{
		{"holds it", func(b *noticeBook) {
			b.append("a", 5, 6, 1, 6, true)
			b.append("b", 5, 6, 1, 6, true)
			b.announce(5, 7)
		}, []string{"a 5:7", "b 5:7"}},
		{"holds more", func(b *noticeBook) { b.append("a", 5, 6, 3, 6, true); b.announce(5, 7) }, []string{"a 5:7"}},
		{"holds it, not committed", func(b *noticeBook) { b.append("a", 5, 6, 1, 6, true) }, nil},
		{"lacks it", func(b *noticeBook) { b.append("a", 5, 5, 1, 5, true); b.announce(5, 7) }, nil},
		{"rejected it", func(b *noticeBook) { b.append("a", 5, 6, 1, 6, false); b.announce(5, 7) }, nil},
		{"never answered", func(b *noticeBook) { b.announce(5, 7) }, nil},
		{"gets it later", func(b *noticeBook) { b.announce(5, 7); b.append("a", 5, 6, 1, 6, true) }, []string{"a 5:7"}},
		{"shows it without entries", func(b *noticeBook) { b.append("a", 5, 7, 0, 6, true); b.announce(5, 7) },
			[]string{"a 5:7"}},
		{"Raft sent the commit", func(b *noticeBook) { b.append("a", 5, 7, 0, 7, true); b.announce(5, 7) }, nil},
		{"the next entry sent the commit", func(b *noticeBook) { b.append("a", 5, 7, 1, 7, true); b.announce(5, 7) }, nil},
		{"had a notice before", func(b *noticeBook) {
			b.append("a", 5, 6, 2, 6, true)
			b.announce(5, 8)
			b.announce(5, 7)
			b.announce(5, 8)
		}, []string{"a 5:8"}},
		{"commit beyond the last entry of the request", func(b *noticeBook) {
			b.append("a", 5, 6, 1, 9, true)
			b.announce(5, 8)
			b.append("a", 5, 7, 1, 7, true)
		}, []string{"a 5:8"}},
		{"entry of an earlier term", func(b *noticeBook) { b.append("a", 6, 6, 1, 6, true); b.announce(5, 7) }, nil},
		{"entry of a later term", func(b *noticeBook) { b.append("a", 5, 6, 1, 6, true); b.announce(6, 7) }, nil},
		{"term after the announced one", func(b *noticeBook) {
			b.append("a", 5, 6, 1, 6, true)
			b.append("a", 6, 6, 1, 6, true)
			b.append("a", 5, 8, 1, 6, true) // a late answer
			b.announce(6, 7)
			b.announce(5, 9)
		}, []string{"a 6:7"}},
		{"stopped", func(b *noticeBook) { b.append("a", 5, 6, 1, 6, true); b.stop(); b.announce(5, 7) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newNoticeBook()
				tt.do(b)
				b.want(t, tt.want...)
				b.wg.Wait()
			})
		})
	}
}

// A follower that does not answer has one notice in flight. Once it answers, it gets the newest
// commit index. It delays no other follower.
func TestNotices_SilentFollower_HasOneInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNoticeBook()
		gate := make(chan struct{})
		b.gates["slow"] = gate
		for index := uint64(1); index <= 9; index++ {
			b.append("slow", 5, index-1, 1, index-1, true)
			b.append("fast", 5, index-1, 1, index-1, true)
			b.announce(5, index)
			synctest.Wait()
		}
		b.append("slow", 6, 9, 1, 9, true) // a new term changes nothing
		b.append("fast", 6, 9, 1, 9, true)
		b.announce(6, 10)
		b.want(t, "fast 5:1", "fast 5:2", "fast 5:3", "fast 5:4", "fast 5:5", "fast 5:6", "fast 5:7", "fast 5:8", "fast 5:9",
			"fast 6:10", "slow 5:1")
		close(gate)
		b.want(t, "slow 6:10")
		if b.most != 1 {
			t.Errorf("got %d notices in flight to one follower, want 1", b.most)
		}
		b.wg.Wait()
	})
}

// Raft's own message follows a lost notice, so a notice is not retried.
func TestNotices_Failed_IsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNoticeBook()
		b.fail = errors.New("lost")
		b.append("a", 5, 6, 1, 6, true)
		b.announce(5, 7)
		b.want(t, "a 5:7")
		b.append("a", 5, 7, 0, 6, true)
		b.want(t)
		b.append("a", 5, 7, 1, 6, true)
		b.announce(5, 8)
		b.want(t, "a 5:8")
		b.wg.Wait()
	})
}

// A plainFollower is a Raft node on the library's own transport, without the protections of this
// package. A member of any version accepts at least the messages that a plainFollower accepts.
type plainFollower struct {
	raft    *raft.Raft
	trans   *raft.InmemTransport
	applied chan uint64
}

func (f plainFollower) Apply(l *raft.Log) any             { f.applied <- l.Index; return nil }
func (plainFollower) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("not needed") }
func (plainFollower) Restore(rc io.ReadCloser) error      { return rc.Close() }

func startPlainFollower(t *testing.T) plainFollower {
	f := plainFollower{applied: make(chan uint64, 16)}
	_, f.trans = raft.NewInmemTransport("follower")
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.Logger = "follower", hashilog.New(slog.New(slog.DiscardHandler), "")
	store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	servers := []raft.Server{{ID: "leader", Address: "leader"}, // the follower has no vote: it starts no election
		{ID: "follower", Address: "follower", Suffrage: raft.Nonvoter}}
	if err := raft.BootstrapCluster(cfg, store, store, snaps, f.trans, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.raft, err = raft.NewRaft(cfg, f, store, store, snaps, f.trans); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.raft.Shutdown().Error() })
	return f
}

// The library checks a notice like any other request. It applies the entry if its log has an entry
// with this index and term, and otherwise rejects the notice.
func TestNotices_LibraryAsFollower_ChecksAndApplies(t *testing.T) {
	f := startPlainFollower(t)
	_, leader := raft.NewInmemTransport("leader")
	leader.Connect("follower", f.trans)
	answers := make(chan raft.AppendEntriesResponse, 16)
	n := notices{send: func(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest,
		resp *raft.AppendEntriesResponse) error {
		err := leader.AppendEntries(id, target, req, resp)
		if err != nil {
			t.Error(err)
		}
		answers <- *resp
		return err
	}}
	await := func(what string, success bool) {
		t.Helper()
		select {
		case resp := <-answers:
			if resp.Success != success {
				t.Errorf("%s: got success %v, want %v", what, resp.Success, success)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: got no answer, want one", what)
		}
	}
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("leader"), Addr: []byte("leader")},
		Term:      2, PrevLogEntry: 1, PrevLogTerm: 1, // index 1 is the configuration
		Entries: []*raft.Log{
			{Index: 2, Term: 1, Type: raft.LogCommand}, {Index: 3, Term: 2, Type: raft.LogCommand},
			{Index: 4, Term: 2, Type: raft.LogCommand},
		},
	}
	var resp raft.AppendEntriesResponse
	if err := leader.AppendEntries("follower", "follower", req, &resp); err != nil || !resp.Success {
		t.Fatalf("entries: got %+v, %v, want success", resp, err)
	}
	n.appended("follower", "follower", req, &resp)

	n.announce(2, 2) // a mistake: the entry has term 1
	await("another term", false)
	n.announce(2, 3)
	await("an entry of the term", true)
	for want := uint64(2); want <= 3; want++ {
		select {
		case got := <-f.applied:
			if got != want {
				t.Errorf("got entry %d applied, want %d", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("got entry %d not applied, want it applied", want)
		}
	}
	// The leader of term 3 sends the follower another entry at index 4.
	req.Term, req.PrevLogEntry, req.PrevLogTerm = 3, 3, 2
	req.Entries = []*raft.Log{{Index: 4, Term: 3, Type: raft.LogCommand}}
	if err := leader.AppendEntries("follower", "follower", req, &resp); err != nil || !resp.Success {
		t.Fatalf("entries of term 3: got %+v, %v, want success", resp, err)
	}
	n.announce(2, 4)
	await("an earlier term", false)
	n.wg.Wait()
	if got := f.raft.CommitIndex(); got != 3 {
		t.Errorf("got commit index %d, want 3", got)
	}
}
