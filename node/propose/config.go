package propose

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/tracing"
	"revoked/node/nodepb"
)

// Config contains the functions and limits that this package needs from the node. All fields except
// Tracer are required, and their functions may be called concurrently.
type Config struct {
	NodeID  string // recorded in the audit log
	Log     Log
	State   State
	Stamps  *Clock
	Metrics *Metrics
	Timeout time.Duration   // longest wait of one call
	Tracer  *tracing.Tracer // nil: no tracing

	// HasLeader reports whether Raft knows a leader.
	HasLeader func() bool
	// LeaderChanged returns a channel that is closed when the leader, or the proposer of this node,
	// changes next.
	LeaderChanged func() <-chan struct{}
	// NoLeader returns an error that wraps ErrNoLeader if waiting for a leader is useless, else nil.
	NoLeader func() error
	// Forward calls the leader. ErrNoLeader guarantees that the leader did not receive the request.
	Forward func(ctx context.Context, req *nodepb.SubmitRequest, resp *nodepb.SubmitResponse) error
	// LeaderKnows returns ErrUnprocessable if the leader is too old for operations of a version, and
	// ErrNoLeader if no leader answers. It may call the leader.
	LeaderKnows func(ctx context.Context, version uint32) error
	// Admit returns an error if op must not be proposed, and ErrNoLeader if this new leader cannot
	// decide yet.
	Admit func(op *command.Op) error
	// Rules returns the newest command.Rules that every member supports.
	Rules func() uint32
	// Audits reports whether every member supports audited entries.
	Audits func() bool
	// Forwarded logs the outcome of an administrative operation that the member via forwarded.
	Forwarded func(via string, op *command.Op, outcome fsm.Result)
	// Marks returns the progress marks of the members for an entry without operations, or nil.
	Marks func() []*command.Mark
	// Acknowledge blocks until no lease still allows answers from a state before index. It fails if
	// the term has ended.
	Acknowledge func(ctx context.Context, term, index uint64) (Wait, error)
	// Final records that an entry with changes became final. The proposer calls it after it has
	// answered the callers. Final must not block.
	Final func(revoked.Acknowledgement)
	// KeepUp blocks until every member with a lease of the term has applied index and can take more
	// bulk work. It gives up after a bounded time, and when the term or ctx ends.
	KeepUp func(ctx context.Context, term, index uint64)
	// Announce notifies the members that the entry at index, which this node proposed in term, has
	// committed. It does not block.
	Announce func(term, index uint64)
	// Stopping is closed when the node starts to stop.
	Stopping <-chan struct{}
}

// A Wait describes how the acknowledgement of an applied entry waited for leases.
type Wait struct {
	Began time.Time
	For   []string // nodes that blocked the acknowledgement at that time
}

// Log is the part of *raft.Raft that appends entries.
type Log interface {
	Apply(command []byte, timeout time.Duration) raft.ApplyFuture
	CurrentTerm() uint64
}

// State is the part of *fsm.FSM that proposals are checked against.
type State interface {
	// DryRun returns the result of op if op would change nothing.
	DryRun(op *command.Op) (fsm.Result, bool)
	// Review returns the error with which the newest rules refuse a registration, or nil.
	Review(op *command.Op) error
	// Client returns a client, and whether it exists.
	Client(id string) (*revoked.Client, bool)
	// Version returns the highest version of a command in the log, which every member supports.
	Version() uint32
	// Wait blocks until index is applied or ctx ends.
	Wait(ctx context.Context, index uint64) error
}

// RetryPause is the pause between attempts of an operation that needs a leader. Raft may report a
// leader before that leader accepts proposals.
const RetryPause = 50 * time.Millisecond
