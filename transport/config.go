package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// Config configures a Transport. The fields from NodeID to Handler and AllowRaft are required. Zero
// values of the others select the defaults.
type Config struct {
	NodeID    string       // must be the node that Certs names
	Listener  net.Listener // plain TCP, bound; owned by the Transport
	Advertise string       // host:port at which peers reach this node
	Certs     *pki.Certs
	Handler   http.Handler // serves the calls from other nodes; see PeerNode, ServeStream, WriteError
	// Instance names this node's disk. Raft streams for another instance are refused. Empty accepts
	// all.
	Instance string
	// AllowRaft is called before the first byte of an inbound Raft stream is passed on. An error
	// refuses the stream and is logged.
	AllowRaft func(nodeID string) error

	// Known returns the cluster addresses (host:port) of the members and of the nodes to join. Half of
	// the slots for inbound handshakes are reserved for their hosts and for those of recently
	// authenticated peers. It may be nil.
	Known func() []string

	// Enroll serves a connection of a node that has no certificate, see package enroll. Its context
	// ends with the Transport. nil: the port does not offer it.
	Enroll func(context.Context, *tls.Conn)

	RaftTimeout    time.Duration // one Raft message and its answer; default 5 s
	MaxPool        int           // idle Raft connections for each peer; default 3
	DialTimeout    time.Duration // TCP and TLS together, both directions; default 3 s
	Silence        time.Duration // after which a peer is disconnected; default 4 s
	PollInterval   time.Duration // between reads of the certificate files; default 2 s
	MaxBody        int64         // limit for a call and for its answer, in bytes; default 64 MiB
	MaxConnections int           // inbound, verified; default 512; a quarter of it for each node
	MaxHandshakes  int           // inbound, concurrent; default 256; a quarter of it for each source address
	MaxCalls       int           // inbound, concurrent, of one peer; default 512
	Log            *slog.Logger  // default: discard
	// Dial connects to a peer; default: plain TCP. Its context ends after DialTimeout.
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	Registerer prometheus.Registerer
}

// Limits without a setting.
const (
	maxHeader     = 16 << 10         // bytes of a call's header
	maxStreams    = 256              // concurrent calls from one connection
	maxMessage    = 4 << 10          // bytes of an error's message
	maxPeers      = 256              // peers whose connections are kept
	callTimeout   = 60 * time.Second // one call on the serving side, first to last byte
	sendTimeout   = 10 * time.Second // one frame of a Stream over HTTP/2
	idleTimeout   = 2 * time.Minute  // a connection without calls
	acceptBackoff = 50 * time.Millisecond
)

// withDefaults returns cfg with the defaults in place of zero values. Call check first: a negative
// value stays.
func (cfg Config) withDefaults() Config {
	if cfg.RaftTimeout == 0 {
		cfg.RaftTimeout = 5 * time.Second
	}
	if cfg.MaxPool == 0 {
		cfg.MaxPool = 3
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 3 * time.Second
	}
	if cfg.Silence == 0 {
		cfg.Silence = 4 * time.Second
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = 2 * time.Second
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 20
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 512
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = 256
	}
	if cfg.MaxCalls == 0 {
		cfg.MaxCalls = 512
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// check returns an error for a setting that is missing or contradicts another. An operator sees it
// at the start, not at the first connection.
func (cfg Config) check() error {
	switch {
	case cfg.Listener == nil:
		return errors.New("transport: Listener is missing")
	case cfg.Certs == nil:
		return errors.New("transport: Certs is missing")
	case cfg.Handler == nil:
		return errors.New("transport: Handler is missing")
	case cfg.AllowRaft == nil:
		return errors.New("transport: AllowRaft is missing")
	case cfg.RaftTimeout < 0 || cfg.MaxPool < 0 || cfg.DialTimeout < 0 || cfg.Silence < 0 ||
		cfg.PollInterval < 0 || cfg.MaxBody < 0 || cfg.MaxConnections < 0 || cfg.MaxHandshakes < 0 ||
		cfg.MaxCalls < 0:
		return errors.New("transport: negative setting")
	}
	if err := pki.CheckNodeID(cfg.NodeID); err != nil {
		return fmt.Errorf("transport: node id: %w", err)
	}
	if got := cfg.Certs.NodeID(); got != cfg.NodeID {
		return fmt.Errorf("transport: certificate names another node (got %s, want %s)", got, cfg.NodeID)
	}
	if err := checkHostPort(cfg.Advertise); err != nil {
		return fmt.Errorf("transport: advertised address: %w", err)
	}
	if host, _, _ := net.SplitHostPort(cfg.Advertise); net.ParseIP(host).IsUnspecified() {
		return fmt.Errorf("transport: advertised address has no host (got %s)", cfg.Advertise)
	}
	return nil
}

// serverConfig returns the configuration of inbound handshakes.
func (cfg Config) serverConfig() *tls.Config {
	protocol := ""
	if cfg.Enroll != nil {
		protocol = enroll.Protocol
	}
	return cfg.Certs.ServerConfig(protocol, protoRaft, protoFrames, protoHTTP)
}

// keepAlive returns the probes for idle connections. Three of them without an answer end the
// connection after about silence.
func keepAlive(silence time.Duration) net.KeepAliveConfig {
	probe := max(silence/4, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: probe, Interval: probe, Count: 3}
}
