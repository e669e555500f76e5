package node

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/transport"
)

// Config is all that a node needs. NodeID, DataDir, Listener, Certs and GossipKey are required.
type Config struct {
	NodeID  string
	Region  string
	DataDir string
	API     string // URL that others are told to reach this node's API at
	Version string

	Listener         net.Listener // of the cluster port, bound already; Open owns it
	ClusterAdvertise string       // host:port that peers dial
	Certs            *transport.Certs

	GossipBind      string // host:port; empty: no gossip (tests)
	GossipAdvertise string
	GossipKey       []byte // 32 bytes

	BootstrapExpect  int
	Join             []string // cluster addresses
	NonVoter         bool
	Rejoin           bool             // start again in a data directory that has left its cluster
	BootstrapClients []revoked.Client // proposed once by the first leader; answer for a node in no cluster
	Defaults         revoked.Settings // of a new cluster

	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	RequestTimeout   time.Duration // longest wait of one call
	StableTime       time.Duration // how long a new member must be healthy before it becomes a voter

	CacheSize      int64 // bytes of records in memory
	StoreCacheSize int64 // bytes of store blocks in memory

	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Crash ends the process at once; it does not return. It is called when something cannot even be
	// closed: the store (nil panics), a disk that hangs (nil is as any other fatal error), or a term that cannot
	// be written (Raft panics if it is nil).
	Crash     func(error)
	Now       func() time.Time
	BootClock func() instant // CLOCK_BOOTTIME; tests bring their own

	seams seams
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.NodeID == "":
		return c, fmt.Errorf("%w: node id is empty", revoked.ErrInvalid)
	case c.DataDir == "":
		return c, fmt.Errorf("%w: data directory is empty", revoked.ErrInvalid)
	case c.Listener == nil || c.Certs == nil:
		return c, fmt.Errorf("%w: the cluster port needs a listener and certificates", revoked.ErrInvalid)
	case c.Certs.NodeID() != c.NodeID:
		return c, fmt.Errorf("%w: the cluster certificate names node %q, but node_id is %q: issue one for this node",
			revoked.ErrInvalid, c.Certs.NodeID(), c.NodeID)
	case c.GossipBind != "" && len(c.GossipKey) != 32:
		return c, fmt.Errorf("%w: the gossip key must have 32 bytes, not %d", revoked.ErrInvalid, len(c.GossipKey))
	}
	if c.Region == "" {
		c.Region = "default"
	}
	if c.ClusterAdvertise == "" {
		c.ClusterAdvertise = c.Listener.Addr().String()
	}
	if c.Defaults == (revoked.Settings{}) {
		c.Defaults = revoked.DefaultSettings()
	}
	for _, d := range []struct {
		at *time.Duration
		to time.Duration
	}{
		{&c.HeartbeatTimeout, 500 * time.Millisecond},
		{&c.ElectionTimeout, 500 * time.Millisecond},
		{&c.RequestTimeout, 5 * time.Second},
		{&c.StableTime, 2 * time.Second},
	} {
		if *d.at <= 0 {
			*d.at = d.to
		}
	}
	if c.CacheSize <= 0 {
		c.CacheSize = 64 << 20
	}
	if c.StoreCacheSize <= 0 {
		c.StoreCacheSize = 64 << 20
	}
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
		c.BootClock = bootClock
	}
	c.seams = c.seams.withDefaults()
	return c, nil
}
