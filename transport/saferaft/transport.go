package saferaft

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Transport is Raft's own network transport with its unsafe parts replaced:
//
//   - It ignores SetHeartbeatHandler, so that heartbeats go through Raft's main loop like all
//     messages (hashicorp/raft#695). The fast path of a heartbeat handler adopts a newer term while
//     the main loop of the deposed leader still leads. The next entry that this loop writes then
//     gets the newer term.
//   - It declines pipelining (hashicorp/raft#612): a follower whose disk stalls can block a
//     pipeline forever.
//   - It limits the commit index of a received message to the last entry that the message covers:
//     see boundCommit.
//   - It lets the node change received messages: see ReviewAppends.
//   - It defers the errors of replication calls: see DeferReplicationErrors.
//   - It attaches a note to each vote request. It also passes on the vote requests of members whose
//     promotion this node has not stored: see GuardVotes.
//   - It notifies followers of a commit: see AnnounceCommit.
//
// It embeds the concrete type. Embedding the interface would hide RequestPreVote, which silently
// disables pre-vote.
type Transport struct {
	*raft.NetworkTransport
	stream   Stream
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

// A Stream is the stream layer below Raft's network transport, with the means to end it.
type Stream interface {
	raft.StreamLayer
	// Done returns a channel that is closed once the layer neither accepts nor dials connections.
	Done() <-chan struct{}
	// CloseConns closes Raft's connections in both directions. Closing only the layer leaves the
	// connections open that peers opened.
	CloseConns()
}

// New returns a transport over stream. cfg must use the same stream and allow at most one RPC in
// flight. The transport passes on messages of peers as soon as New has returned, until Close.
func New(cfg *raft.NetworkTransportConfig, stream Stream) *Transport {
	s := &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(cfg), stream: stream,
		incoming: make(chan raft.RPC), closed: make(chan struct{}),
	}
	s.notices.send = s.NetworkTransport.AppendEntries
	go s.pass()
	return s
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// SetHeartbeatHandler does nothing.
func (s *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// TimeoutNow implements raft.Transport.
func (s *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress,
	args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	s.timeouts.add(id)
	return s.NetworkTransport.TimeoutNow(id, target, args, resp)
}

// RequestVote implements raft.Transport.
func (s *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	args = s.guard.Load().addNote(id, args)
	return s.contacts.sent(id, s.NetworkTransport.RequestVote(id, target, args, resp))
}

// RequestPreVote implements raft.WithPreVote.
func (s *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return s.contacts.sent(id, s.NetworkTransport.RequestPreVote(id, target, args, resp))
}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported.
func (*Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (s *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
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
		s.failures.wait(id, args.Term, s.stream.Done())
		return err
	}
	s.notices.appended(id, target, args, resp)
	return nil
}

// InstallSnapshot implements raft.Transport.
func (s *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress,
	args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	defer s.failures.begin(id)()
	err := s.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		s.failures.wait(id, args.Term, s.stream.Done())
	}
	return err
}

// Consumer implements raft.Transport.
func (s *Transport) Consumer() <-chan raft.RPC { return s.incoming }

// pass passes the requests of peers to Raft, until Close.
//
// A leader sends the commit index with the next entry, and Raft stores that entry before it reads
// the commit index. So each apply would wait for the disk. A leader may also send the commit index
// first, in a message without entries; pass inserts that message.
func (s *Transport) pass() {
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
		guard := s.guard.Load()
		switch req := rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			if !guard.mayVote(req) {
				rpc.Respond(&raft.RequestVoteResponse{Term: req.Term}, nil)
				continue
			}
			guard.standIn(&req.RPCHeader)
		case *raft.RequestPreVoteRequest:
			guard.standIn(&req.RPCHeader)
		}
		s.hand(rpc)
	}
}

func (s *Transport) reviewed(req *raft.AppendEntriesRequest) {
	if review := s.review.Load(); review != nil {
		(*review)(req)
	}
}

func (s *Transport) hand(rpc raft.RPC) {
	select {
	case s.incoming <- rpc:
	case <-s.closed:
	}
}

// boundCommit limits the commit index of a message to the last entry that it covers (Raft, figure
// 2: "min(leaderCommit, index of last new entry)"). The library uses the follower's own last index
// instead, which may be the end of a divergent tail.
func boundCommit(req *raft.AppendEntriesRequest) {
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, matched(req))
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

// Close closes Raft's connections in both directions, and starts no further notice. Raft calls it
// when it shuts down. It may be called more than once. Calls between nodes work until
// transport.Transport.Close.
func (s *Transport) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.notices.stop()
	err := s.NetworkTransport.Close()
	s.CloseStreams()
	s.stream.CloseConns()
	return err
}

// Wait blocks until the notices in flight have ended. Call it after Close.
func (s *Transport) Wait() { s.notices.wg.Wait() }

// ReviewAppends sets a function that may change each received AppendEntries request before Raft
// receives it. The commit index of the request is already limited to the last entry that it covers.
// review is not called concurrently.
func (s *Transport) ReviewAppends(review func(*raft.AppendEntriesRequest)) {
	s.review.Store(&review)
}

// AnnounceCommit notifies the followers that the entry at index has committed, without waiting for
// the next entry. This node must have appended the entry as the leader of term. A follower that
// lacks the entry gets a notice once it has stored it. AnnounceCommit does not block. Followers of
// any version accept notices: see transport/DESIGN.md.
func (s *Transport) AnnounceCommit(term, index uint64) { s.notices.announce(term, index) }

// DeferReplicationErrors makes a failed replication call return its error only after the outage of
// its peer, see replicationErrors. Until it is called, errors are returned immediately. replicates
// reports whether this node still replicates to server in term; it may be called concurrently.
func (s *Transport) DeferReplicationErrors(replicates func(server raft.ServerID, term uint64) bool) {
	s.failures.replicates.Store(&replicates)
}

// Stalled reports whether a replication call to the server has been in progress or deferred for
// longer than d.
func (s *Transport) Stalled(server raft.ServerID, d time.Duration) bool {
	return s.failures.stalled(server, d)
}
