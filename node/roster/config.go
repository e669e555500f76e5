package roster

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/cluster"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/lease"
	"revoked/node/propose"
	"revoked/transport"
)

// Config contains this node's settings and its access to the other parts of the node. All fields
// are required unless their zero value is explained. The functions may be called concurrently.
type Config struct {
	NodeID, Region, API, Version string
	ClusterAdvertise             string   // host:port that peers dial
	BootstrapExpect              int      // number of initial members; 0: join only
	Join                         []string // cluster addresses of members to join
	JoinToken                    string   // admits this node; empty: an administrator must admit it by name
	NonVoter                     bool
	Commands                     uint32 // the command.Version that this node announces
	Gossip                       GossipConfig

	HeartbeatTimeout time.Duration
	RequestTimeout   time.Duration // maximum duration of one call
	StableTime       time.Duration // time that a new member must be healthy before it becomes a voter

	Log       *slog.Logger
	Now       func() time.Time
	BootClock func() lease.Instant
	Clock     *propose.Clock // cluster clock
	Raft      *raft.Raft
	Transport *transport.Transport
	FSM       *fsm.FSM
	Identity  Identity
	Holder    Holder
	Leader    Leader

	Context       context.Context // ends when the node begins to stop
	Fatal         func(error)     // stops the node because of an error
	End           func(error)     // stops the node after it left (nil) or was removed
	LeaderChanged func() <-chan struct{}
	NoLeader      func() error // ErrNoLeader if waiting for a leader is useless, else nil
	ReadBarrier   func(context.Context) error
	Commit        func(context.Context, *command.Op) error // proposes an operation and waits until it is applied here
	// Call makes one call to the node at host, whose certificate must contain name. An empty name
	// accepts every node of the cluster's CA.
	Call func(ctx context.Context, host, name, path string, req, resp proto.Message) error
	// CallBound is like Call, but opens a connection for this call. It passes the binding of that
	// connection to makeReq, which returns the request.
	CallBound func(ctx context.Context, host, name, path string, makeReq func(binding []byte) proto.Message,
		resp proto.Message) error
	// CallLeader makes one call to the leader. ErrNoLeader guarantees that the leader did not get the
	// request.
	CallLeader func(ctx context.Context, path string, req, resp proto.Message) error
	Store      Store
}

// Store is the part of *raftstore.Store that reports the ends of logs.
type Store interface {
	// End returns the last index of the log, or of a received state that the log has not reached yet.
	End() uint64
	// EndAtStart returns what End returned when the process started.
	EndAtStart() uint64
	// Mark returns the highest mark that leaders have recorded for a server in this log, or nil.
	Mark(raft.ServerID) *command.Mark
}

// GossipConfig configures gossip.
type GossipConfig struct {
	Bind      string // host:port; empty turns gossip off
	Advertise string
	Key       []byte           // 32 bytes
	Metrics   *cluster.Metrics // may be nil
}

// Identity is the identity of the data directory. Bind and MarkLeft are durable on return.
type Identity struct {
	Server   raft.ServerID
	Instance string
	Boot     []byte // random for each process start
	// Cluster returns the cluster that the directory belongs to, or "".
	Cluster func() string
	// Bind records the cluster and reports whether the directory was unbound before. It returns
	// ErrUnprocessable if the directory belongs to another cluster.
	Bind func(cluster string) (fresh bool, err error)
	// MarkLeft records that the node left. From then on, a node can start from the directory only
	// as a new instance.
	MarkLeft func() error
}

// Holder is the member's side of the read leases. Its functions do not block.
type Holder struct {
	// Adopt drops the leases of earlier terms.
	Adopt func(term uint64)
	// Adopted returns the highest adopted term and the nonce up to which replies are rejected.
	Adopted func() (term, dropped uint64)
	// Drop ends the lease and rejects the reply to an open request.
	Drop func()
	// Request starts a lease request. From then on, replies to earlier requests are rejected.
	Request func() lease.Request
	// Take accepts a reply unless it is stale.
	Take func(lease.Reply)
	// Refused records why the leader refused a request.
	Refused func(reason string)
	// Remaining returns how long this node may still serve reads from its own copy.
	Remaining func() time.Duration
	// RenewEvery returns the interval between requests.
	RenewEvery func() time.Duration
}

// Leader is the leader's side of the read leases.
type Leader struct {
	// Term returns the term in which this node accepts proposals, or 0 if it does not lead.
	Term func() uint64
	// ChangeInTerm hands a change of the configuration to Raft in the given term. It returns
	// ErrNoLeader if that term has ended, because a later leader may have granted a lease that Clear
	// did not wait for.
	ChangeInTerm func(
		ctx context.Context, term uint64, change func(wait time.Duration) raft.IndexFuture,
	) (raft.IndexFuture, error)
	// CommitInTerm commits an operation in the given term, or returns ErrNoLeader.
	CommitInTerm func(ctx context.Context, term uint64, op *command.Op) error
	// SetMembers passes a new configuration to the lease table.
	SetMembers func(raft.Configuration)
	// Report records the applied index and the adopted term of a member. It acknowledges the
	// revocations that waited only for this report.
	Report func(id raft.ServerID, boot string, applied, adopted uint64)
	// GiveBack ends a member's reservation. The member rejects every reply whose nonce is at most
	// dropped.
	GiveBack func(id raft.ServerID, boot string, dropped uint64)
	// Grant answers a request in the given term. It waits for a read barrier.
	Grant func(ctx context.Context, term uint64, r lease.Request) (lease.Reply, lease.Refusal)
	// NextRenewal returns the delay until a member should renew its lease, or 0 for the member's own
	// interval. The parameter late is the delay of the member's requests after their planned time, and
	// arrived is the arrival time of this request.
	NextRenewal  func(late time.Duration, arrived time.Time) time.Duration
	CountRefusal func(lease.Refusal)
	// Clear blocks new leases of a member and waits until its lease has expired. The member may be
	// removed only in the returned term.
	Clear func(ctx context.Context, id raft.ServerID) (term uint64, err error)
	// Unblock allows new leases of a member again.
	Unblock func(id raft.ServerID)
	// RemainingOf returns how long a member may still serve reads from its own copy.
	RemainingOf func(id raft.ServerID) time.Duration
	Settings    func() revoked.Settings
}
