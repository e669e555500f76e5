package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/tracing"
	"revoked/node/certify"
	"revoked/node/jwks"
	"revoked/node/lease"
	"revoked/node/raftstore"
	"revoked/transport/pki"
)

// Config configures a node. NodeID, DataDir, Listener, Certs and, with gossip, GossipKey are
// required. withDefaults sets the other fields that have a default.
type Config struct {
	NodeID  string
	Region  string
	DataDir string
	API     string // URL of this node's API, announced to the other members
	Version string

	Listener         net.Listener // listener of the cluster port; Open takes ownership of it
	ClusterAdvertise string       // host:port that the other members dial
	Certs            *pki.Certs
	CAKey            *pki.CA        // signs certificates of nodes; nil: this node cannot sign
	Renew            *certify.Files // files of Certs if a join token was used to get them; nil: an operator renews Certs

	GossipBind      string // host:port; empty turns gossip off
	GossipAdvertise string
	GossipKey       []byte // 32 bytes

	BootstrapExpect  int
	Join             []string // cluster addresses of nodes in the cluster to join
	JoinToken        string   // admits this node; empty: an administrator must admit it by name
	NonVoter         bool
	Rejoin           bool             // accept the data directory of a node that has left its cluster
	BootstrapClients []revoked.Client // clients of a new cluster; also used until this node is in a cluster
	Defaults         revoked.Settings // settings of a new cluster

	// KeyFetch configures how this node, while it leads, fetches the key sets of trusted issuers.
	KeyFetch KeyFetchConfig

	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	RequestTimeout   time.Duration // longest wait of one call
	StableTime       time.Duration // a new member must be healthy for this long to become a voter

	CacheSize      int64 // size of the record cache in bytes
	StoreCacheSize int64 // size of the store's block cache in bytes

	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Crash ends the process immediately and does not return. The node calls it when it cannot close
	// cleanly: the store fails, a term cannot be written, or the disk hangs. If Crash is nil, the
	// first two cases panic, and a disk that hangs is a fatal error.
	Crash  func(error)
	Tracer *tracing.Tracer // nil: no tracing
	// LocalAudit receives the entries of refused calls while the node is not in a cluster and has no
	// audit log. It must not block for long. If it is nil, only the log of the node contains these
	// calls.
	LocalAudit func(revoked.AuditEntry)
	Now        func() time.Time
	BootClock  func() lease.Instant // CLOCK_BOOTTIME, except in tests

	hooks hooks
}

// A KeyFetchConfig configures the fetches of key sets. The zero value verifies certificates with
// the system's roots, connects directly and allows public addresses only.
type KeyFetchConfig struct {
	CAFile string         // PEM file of root certificates that replace those of the system
	Allow  []netip.Prefix // allowed networks in addition to the public ones
	Proxy  *url.URL       // HTTP proxy, or nil
}

// withDefaults returns c with defaults for its optional fields that are empty. It returns
// ErrInvalid if a required field is empty, or if the certificate belongs to another node. It reads
// no file and opens nothing.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.NodeID == "":
		return c, fmt.Errorf("%w: node id is empty", revoked.ErrInvalid)
	case c.DataDir == "":
		return c, fmt.Errorf("%w: data directory is empty", revoked.ErrInvalid)
	case c.Listener == nil || c.Certs == nil:
		return c, fmt.Errorf("%w: cluster port has no listener or no certificates", revoked.ErrInvalid)
	case c.Certs.NodeID() != c.NodeID:
		return c, fmt.Errorf("%w: cluster certificate: wrong node (got %q, want node_id %q)",
			revoked.ErrInvalid, c.Certs.NodeID(), c.NodeID)
	case c.GossipBind != "" && len(c.GossipKey) != 32:
		return c, fmt.Errorf("%w: gossip key: wrong length (got %d bytes, want 32)", revoked.ErrInvalid, len(c.GossipKey))
	}
	c.Region = cmp.Or(c.Region, "default")
	c.ClusterAdvertise = cmp.Or(c.ClusterAdvertise, c.Listener.Addr().String())
	c.Defaults = cmp.Or(c.Defaults, revoked.DefaultSettings())
	orDefault(&c.HeartbeatTimeout, defaultTimeout)
	orDefault(&c.ElectionTimeout, defaultTimeout)
	orDefault(&c.RequestTimeout, 5*time.Second)
	orDefault(&c.StableTime, 2*time.Second)
	orDefault(&c.CacheSize, 64<<20)
	orDefault(&c.StoreCacheSize, 64<<20)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.BootClock == nil {
		c.BootClock = lease.BootClock
	}
	c.hooks = c.hooks.withDefaults()
	if c.hooks.fetchKeys == nil {
		c.hooks.fetchKeys = jwks.NewFetcher(jwks.Config(c.KeyFetch)).Fetch
	}
	return c, nil
}

// defaultTimeout is Raft's heartbeat and election timeout on a LAN.
const defaultTimeout = 500 * time.Millisecond

// commitTimeout is the time after which Raft sends the commit index to a follower. It matters only
// if no entry and no announcement has carried that index. Such a message costs CPU time at every
// idle follower.
const commitTimeout = 150 * time.Millisecond

// orDefault sets v to value unless v is positive.
func orDefault[T cmp.Ordered](v *T, value T) {
	var zero T
	if *v <= zero {
		*v = value
	}
}

// hooks replace the network, the key servers, the disk, the timing of the machine and the version.
// Only tests set them, mostly the simulation (virtualcluster_test.go). The zero value replaces
// nothing.
type hooks struct {
	observation // observes the leases; empty without the build tag sim
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	fs          fsm.FS
	store       raftstore.Hooks
	transport   func(raft.Transport) raft.Transport
	versionOf   func(*command.Op) uint32
	commands    uint32 // command version that the node announces
	fetchKeys   func(ctx context.Context, uri string) (jwks.Set, error)
}

// withDefaults fills in the values that a node outside of tests uses.
func (h hooks) withDefaults() hooks {
	if h.transport == nil {
		h.transport = func(t raft.Transport) raft.Transport { return t }
	}
	if h.commands == 0 {
		h.commands = command.Version
	}
	if h.versionOf == nil {
		h.versionOf = command.VersionOf
	}
	return h
}
