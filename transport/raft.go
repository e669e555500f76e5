package transport

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// safeTransport is Raft's own network transport with its unsafe parts replaced:
//
//   - It ignores SetHeartbeatHandler, so that heartbeats go through Raft's main loop like all
//     messages (hashicorp/raft#695). The fast path adopts a term while a deposed leader's main loop
//     still leads, and the next write of one of its clients gets that term.
//   - It declines pipelining (hashicorp/raft#612): a follower whose disk stalls can block it
//     forever.
//   - It limits the commit index of a received message to what the message proves: see boundCommit.
//   - It lets the node change received messages: see Transport.ReviewAppends.
//   - It defers errors of replication: see Transport.DeferReplicationErrors.
//   - It sends a note with each vote request: see Transport.GuardVotes.
//   - It notifies followers of a commit: see Transport.AnnounceCommit.
//
// It embeds the concrete type. Embedding the interface would hide RequestPreVote, which silently
// disables pre-vote.
type safeTransport struct {
	*raft.NetworkTransport
	stream   *streamLayer
	failures replicationErrors
	timeouts timeoutCounts
	contacts contacts
	notices  notices
	review   atomic.Pointer[func(*raft.AppendEntriesRequest)] // see ReviewAppends; may be nil
	guard    atomic.Pointer[VoteGuard]                        // see GuardVotes; may be nil

	incoming chan raft.RPC
	closed   chan struct{}
	once     sync.Once
}

func newSafeTransport(cfg *raft.NetworkTransportConfig, stream *streamLayer) *safeTransport {
	s := &safeTransport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(cfg), stream: stream,
		incoming: make(chan raft.RPC), closed: make(chan struct{}),
	}
	s.notices.send = s.NetworkTransport.AppendEntries
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
func (s *safeTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// TimeoutNow implements raft.Transport.
func (s *safeTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress,
	args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	s.timeouts.add(id)
	return s.NetworkTransport.TimeoutNow(id, target, args, resp)
}

// timeoutCounts counts TimeoutNow messages by server.
type timeoutCounts struct {
	mu     sync.Mutex
	counts map[raft.ServerID]int
}

func (t *timeoutCounts) add(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[raft.ServerID]int{}
	}
	t.counts[id]++
}

func (t *timeoutCounts) of(id raft.ServerID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[id]
}

// RequestVote implements raft.Transport.
func (s *safeTransport) RequestVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	args = s.guard.Load().addNote(id, args)
	return s.contacts.sent(id, s.NetworkTransport.RequestVote(id, target, args, resp))
}

// RequestPreVote implements raft.WithPreVote.
func (s *safeTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return s.contacts.sent(id, s.NetworkTransport.RequestPreVote(id, target, args, resp))
}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported.
func (*safeTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (s *safeTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		err := s.contacts.sent(id, s.NetworkTransport.AppendEntries(id, target, args, resp))
		if err == nil {
			s.failures.reached(id)
		}
		return err
	}
	defer s.failures.begin(id)()
	err := s.NetworkTransport.AppendEntries(id, target, args, resp)
	if err != nil {
		s.failures.wait(id, args.Term, s.stream.done)
		return err
	}
	s.notices.appended(id, target, args, resp)
	return nil
}

// InstallSnapshot implements raft.Transport.
func (s *safeTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress,
	args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	defer s.failures.begin(id)()
	err := s.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		s.failures.wait(id, args.Term, s.stream.done)
	}
	return err
}

// Consumer implements raft.Transport.
func (s *safeTransport) Consumer() <-chan raft.RPC { return s.incoming }

// pass passes the requests of peers to Raft, until Close.
//
// A leader sends the commit index with the next entry, and Raft stores that entry before it reads
// the commit index. So each apply would wait for the disk. A leader may also send the commit index
// first, in a message without entries; pass inserts that message.
func (s *safeTransport) pass() {
	var ahead uint64 // the highest commit index in a message without entries; a hint
	for {
		var rpc raft.RPC
		select {
		case rpc = <-s.NetworkTransport.Consumer():
		case <-s.closed:
			return
		}
		s.contacts.received(rpc.Command)
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			boundCommit(req)
			if first := commitAhead(req); first != nil && first.LeaderCommitIndex > ahead {
				ahead = first.LeaderCommitIndex
				s.reviewed(first)
				s.hand(raft.RPC{Command: first, RespChan: make(chan raft.RPCResponse, 1)})
			}
			if len(req.Entries) == 0 {
				ahead = max(ahead, req.LeaderCommitIndex)
			}
			s.reviewed(req)
		}
		if req, ok := rpc.Command.(*raft.RequestVoteRequest); ok && !s.guard.Load().mayVote(req) {
			rpc.Respond(&raft.RequestVoteResponse{Term: req.Term}, nil)
			continue
		}
		s.hand(rpc)
	}
}

func (s *safeTransport) reviewed(req *raft.AppendEntriesRequest) {
	if review := s.review.Load(); review != nil {
		(*review)(req)
	}
}

func (s *safeTransport) hand(rpc raft.RPC) {
	select {
	case s.incoming <- rpc:
	case <-s.closed:
	}
}

// A VoteGuard exchanges notes between a candidate and the voters that it asks. Its functions are
// called from many goroutines.
type VoteGuard struct {
	// Note returns the note for a voter, or nil.
	Note func(voter raft.ServerID) []byte
	// MayVote reports whether this node may vote for the candidate that sent note.
	MayVote func(note []byte) bool
}

// voteNote precedes a note in RequestVoteRequest.Candidate. Raft reads that field only if the
// candidate's address is missing from the header, which no version of this program leaves out.
// Version 0.3 ignores a note, and sends its address, which has a node's name at its front.
const voteNote = "\x00note\x01"

// addNote returns a copy of req with the note for a voter. Raft sends one request to all voters.
func (g *VoteGuard) addNote(voter raft.ServerID, req *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	if g == nil {
		return req
	}
	note := g.Note(voter)
	if note == nil {
		return req
	}
	noted := *req
	//lint:ignore SA1019 the library ignores the field, see voteNote
	noted.Candidate = append([]byte(voteNote), note...)
	return &noted
}

// mayVote reports whether a received request may be passed to Raft.
func (g *VoteGuard) mayVote(req *raft.RequestVoteRequest) bool {
	//lint:ignore SA1019 the library ignores the field, see voteNote
	note, ok := bytes.CutPrefix(req.Candidate, []byte(voteNote))
	return g == nil || !ok || len(req.RPCHeader.Addr) == 0 || g.MayVote(note)
}

// boundCommit limits the commit index of a message to what the message proves (Raft, figure 2:
// "min(leaderCommit, index of last new entry)"). The library uses the follower's own last index
// instead, which may be the end of a divergent tail.
func boundCommit(req *raft.AppendEntriesRequest) {
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, proven(req))
}

// commitAhead returns req without its entries, with the part of the commit index that its previous
// entry proves. It returns nil if that part is 0 or req has no entries.
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

// Close closes Raft's connections in both directions. Raft calls it when it shuts down. Calls
// between nodes work until Transport.Close.
func (s *safeTransport) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.notices.stop()
	err := s.NetworkTransport.Close()
	s.CloseStreams()
	s.stream.conns.closeWhere(func(c *conn) bool { return c.raft })
	return err
}

// streamLayer accepts and dials Raft's connections on the port.
type streamLayer struct {
	*listener
	dial  dialFunc
	conns *connSet // connections of the whole port
}

// Dial connects to the node and the instance in address. It returns an error if another one
// answers.
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
	return &abruptConn{Conn: tc, below: below}, nil
}
