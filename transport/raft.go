package transport

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/mutant"
)

// A safeTransport is Raft's own network transport without the parts of it that are not safe:
//
//   - It ignores SetHeartbeatHandler, so that heartbeats go through Raft's main loop like everything
//     else (hashicorp/raft#695). With the fast path a term is adopted behind the back of a leader that
//     was just deposed, and the next write of one of its clients is stamped with that term.
//   - It declines pipelining (hashicorp/raft#612): a follower whose disk stalls can wedge it for good.
//   - It bounds the commit index of what a leader sends by what the message proves, see boundCommit.
//   - It lets the node change what a leader sends, see Transport.ReviewAppends.
//
// It embeds the concrete type: embedding the interface would lose RequestPreVote, and with it
// pre-vote, without a word.
type safeTransport struct {
	*raft.NetworkTransport
	stream  *streamLayer
	outages outages
	told    told
	// appends is what the node does to a request that comes; nil for nothing.
	appends atomic.Pointer[func(*raft.AppendEntriesRequest)]

	incoming chan raft.RPC
	closed   chan struct{}
	once     sync.Once
}

func newSafeTransport(cfg *raft.NetworkTransportConfig, stream *streamLayer) *safeTransport {
	s := &safeTransport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(cfg), stream: stream,
		incoming: make(chan raft.RPC), closed: make(chan struct{}),
	}
	go s.pass()
	return s
}

var (
	_ raft.Transport   = (*safeTransport)(nil)
	_ raft.WithPreVote = (*safeTransport)(nil)
	_ raft.WithClose   = (*safeTransport)(nil)
	_ raft.StreamLayer = (*streamLayer)(nil)
)

// SetHeartbeatHandler does nothing.
func (s *safeTransport) SetHeartbeatHandler(handler func(raft.RPC)) {
	if mutant.On(mutant.HeartbeatHandler) {
		s.NetworkTransport.SetHeartbeatHandler(handler)
	}
}

// TimeoutNow implements raft.Transport.
func (s *safeTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	s.told.add(id)
	return s.NetworkTransport.TimeoutNow(id, target, args, resp)
}

// TimeoutsSent is how many times the server has been told to stand for election at once: Raft tells it
// last in a transfer of leadership.
func (t *Transport) TimeoutsSent(server raft.ServerID) int { return t.raft.told.of(server) }

// told counts, by server.
type told struct {
	mu     sync.Mutex
	counts map[raft.ServerID]int
}

func (t *told) add(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[raft.ServerID]int{}
	}
	t.counts[id]++
}

func (t *told) of(id raft.ServerID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[id]
}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported.
func (*safeTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// Consumer implements raft.Transport.
func (s *safeTransport) Consumer() <-chan raft.RPC { return s.incoming }

// pass hands what peers ask over to Raft, until Close.
//
// A leader tells that an entry is committed with the next entry, and Raft stores that one before it
// looks at the commit index, so the apply would wait for a disk. A leader may as well send the commit
// index in a message of its own first; that is what Raft is given here.
func (s *safeTransport) pass() {
	var told uint64 // the highest commit index that was brought forward; a hint
	for {
		var rpc raft.RPC
		select {
		case rpc = <-s.NetworkTransport.Consumer():
		case <-s.closed:
			return
		}
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			boundCommit(req)
			if first := commitAhead(req); first != nil && first.LeaderCommitIndex > told {
				told = first.LeaderCommitIndex
				s.reviewed(first)
				s.hand(raft.RPC{Command: first, RespChan: make(chan raft.RPCResponse, 1)})
			}
			s.reviewed(req)
		}
		s.hand(rpc)
	}
}

func (s *safeTransport) reviewed(req *raft.AppendEntriesRequest) {
	if review := s.appends.Load(); review != nil {
		(*review)(req)
	}
}

// ReviewAppends lets the node change each AppendEntries request that comes before Raft sees it, when what of
// its commit index it proves has been found out. review is called for one request after the other.
func (t *Transport) ReviewAppends(review func(*raft.AppendEntriesRequest)) {
	t.raft.appends.Store(&review)
}

func (s *safeTransport) hand(rpc raft.RPC) {
	select {
	case s.incoming <- rpc:
	case <-s.closed:
	}
}

// boundCommit keeps the commit index of a message within what the message proves to be in the
// follower's log: up to its last entry, or to the one before its first (Raft, figure 2: "min(leaderCommit,
// index of last new entry)"). The library bounds it by the follower's own last index instead, which may
// be the end of a tail that nobody has compared.
func boundCommit(req *raft.AppendEntriesRequest) {
	proven := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		proven = req.Entries[n-1].Index
	}
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, proven)
}

// commitAhead returns a message without entries that carries what of the commit index the one before
// the first entry of req proves; nil when there is nothing to bring forward.
func commitAhead(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	if len(req.Entries) == 0 {
		return nil
	}
	first := *req
	first.Entries = nil
	boundCommit(&first)
	if first.LeaderCommitIndex == 0 {
		return nil
	}
	return &first
}

// Close ends Raft's part of the port, and its connections in both directions. Raft calls it when it
// shuts down. The calls between nodes go on until Transport.Close.
func (s *safeTransport) Close() error {
	s.once.Do(func() { close(s.closed) })
	err := s.NetworkTransport.Close()
	s.CloseStreams()
	s.stream.conns.closeWhere(func(c *conn) bool { return c.raft })
	return err
}

// A streamLayer is Raft's share of the port.
type streamLayer struct {
	*listener
	dial func(ctx context.Context, hostport, wantNode, instance, proto string) (*tls.Conn, *conn, error)
	// conns holds the connections of the whole port.
	conns *connSet
}

// Dial connects to the node and the instance that address names, and to no other.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, hostport, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.done:
		return nil, raft.ErrTransportShutdown
	default:
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	tc, below, err := s.dial(ctx, hostport, node, instanceOf(address), protoRaft)
	if err != nil {
		return nil, err
	}
	return &raftConn{Conn: tc, below: below}, nil
}

// A raftConn closes its TCP connection without the TLS farewell, which on a connection that was cut
// silently waits 5 s for room in the send buffer. Raft's messages say themselves where they end.
type raftConn struct {
	*tls.Conn
	below *conn
}

func (c *raftConn) Close() error { return c.below.Close() }
