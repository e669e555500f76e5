package api

import (
	"context"
	"io"
	"time"

	"revoked"
)

// What the API needs of a node. *node.Node satisfies all of it. Every write returns only when it is
// final everywhere (registrations: when it is committed), or an error; see revoked/errors.go for the
// sentinels. All methods may be called at once.

// A Revoker ends grants.
type Revoker interface {
	// Revoke ends the grant of the token. An unknown token leaves a tombstone; a token that is dead
	// already is no error. ErrForeignToken, ErrQuota, ErrActorChanged.
	Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (index uint64, err error)
	// DeleteGrant ends the grant with that id. ErrNotFound.
	DeleteGrant(ctx context.Context, by revoked.Actor, id, reason string) (index uint64, err error)
	// RevokeMatching makes a cut-off. ErrExpectation; with DryRun nothing is changed.
	RevokeMatching(ctx context.Context, by revoked.Actor, req revoked.CutoffRequest) (revoked.CutoffResult, error)
}

// A StatusReader answers for one token.
type StatusReader interface {
	// Status returns what is true of the token at some moment after the call began. A verdict other
	// than Dead is proven current; ErrNotCurrent or ErrNoLeader when it cannot be.
	Status(ctx context.Context, d revoked.Digest) (revoked.Status, error)
	// Peek returns the node's own copy, proven by nothing: to decide whether proof is worth asking for.
	Peek(d revoked.Digest) (revoked.Record, error)
}

// A GrantStore registers and shows grants.
type GrantStore interface {
	// Register commits the registrations and returns one result each, in order. The error is that of
	// the whole call (no quorum, outcome unknown); errors of one registration are in its result.
	Register(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error)
	// Grant returns a grant with its tokens. ErrNotFound.
	Grant(ctx context.Context, id string) (revoked.GrantView, error)
}

// A Feed tells what was revoked, in log order.
type Feed interface {
	// Events returns at most limit events with an index above after, and the index up to which the
	// log is covered by them. ErrGone when after is no longer held.
	Events(ctx context.Context, after uint64, limit int) (events []revoked.Event, upTo uint64, err error)
	// Newest returns an index that this node has applied; no node had applied a higher one before the
	// call. ErrNotCurrent, ErrNoLeader. A read lease does not prove it: what was not acknowledged yet
	// another node may have applied, and told a reader.
	Newest(ctx context.Context) (index uint64, err error)
	// WaitApplied returns when this node has applied index, or with the context's error.
	WaitApplied(ctx context.Context, index uint64) error
}

// A ClientStore holds the clients.
type ClientStore interface {
	// Client returns this node's own copy, without proof: authentication works without quorum. The
	// caller must not change what is pointed to.
	Client(id string) (*revoked.Client, bool)
	// Current returns when this node's copy holds everything that was acknowledged before the call: at once
	// where it has a lease. ErrNotCurrent, ErrNoLeader.
	Current(ctx context.Context) error
	// ClientsCurrent is false from the start of a node until its copy has once been proven current: a
	// client that it does not know may exist.
	ClientsCurrent() bool
	// Clients lists all of them, by id.
	Clients(ctx context.Context) ([]*revoked.Client, error)
	// CreateClient stores a new client; it sets CreatedAt and Version. ErrConflict if the id is taken.
	CreateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// UpdateClient replaces the record with the same Version. ErrNotFound; ErrConflict if it was
	// changed meanwhile.
	UpdateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// DeleteClient ends the client and all of its tokens. Deleting one that is unknown is ErrNotFound,
	// one that was deleted before is no error.
	DeleteClient(ctx context.Context, by revoked.Actor, id string) (index uint64, err error)
}

// A SettingsStore holds the replicated settings.
type SettingsStore interface {
	Settings() revoked.Settings
	// UpdateSettings replaces the settings with the same Version. ErrConflict, ErrUnprocessable.
	UpdateSettings(ctx context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings, uint64, error)
}

// A Cluster is the membership and the health of the nodes.
type Cluster interface {
	Members(ctx context.Context) ([]revoked.Member, error)
	// NodeStatus never fails: a node that knows nothing says so.
	NodeStatus(ctx context.Context) revoked.NodeStatus
	Readiness(ctx context.Context) revoked.Readiness
	// Join makes this node, which is in no cluster, join the one that is found at one of the
	// addresses (cluster port). ErrMember, ErrUnprocessable (no cluster there, a foreign one).
	Join(ctx context.Context, addresses []string) (index uint64, err error)
	// Leave makes this node leave for good; the process ends after the answer. ErrQuorumRisk.
	Leave(ctx context.Context) (index uint64, err error)
	// Remove takes another node out. ErrNotFound, ErrQuorumRisk unless force (then reason is required).
	Remove(ctx context.Context, node string, force bool, reason string) (index uint64, err error)
	// TransferLeader hands leadership to node, or to whom the leader finds fittest when it is empty.
	TransferLeader(ctx context.Context, node string) (index uint64, err error)
	// Snapshot writes a verified backup. An error after the first byte aborts the response.
	Snapshot(ctx context.Context, w io.Writer) error
}

// A Joining node is in no cluster: its clients are those of its bootstrap files. Client answers from
// them then.
//
// A Backend is a node.
type Backend interface {
	Revoker
	StatusReader
	GrantStore
	Feed
	ClientStore
	SettingsStore
	Cluster
}

// A Clock gives the time; time.Now in production.
type Clock func() time.Time
