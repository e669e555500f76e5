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
	// Instance names this node's disk. Raft streams for another instance are refused. If it is empty,
	// streams for any instance are accepted.
	Instance string
	// AllowRaft is called before the first byte of an inbound Raft stream is passed on. An error
	// refuses the stream and is logged.
	AllowRaft func(nodeID string) error

	// Known returns the cluster addresses (host:port) of the members and of the nodes to join. Half of
	// the slots for inbound handshakes are reserved for the hosts of these addresses and of recently
	// authenticated peers. It may be nil.
	Known func() []string

	// Enroll serves a connection of a node that has no certificate, see package enroll. Its context
	// ends with the Transport. nil: the port does not offer enrollment.
	Enroll func(context.Context, *tls.Conn)

	RaftTimeout    time.Duration // limit for one Raft message and its answer; default 5 s
	MaxPool        int           // number of idle Raft connections to each peer; default 3
	DialTimeout    time.Duration // limit for the TCP and TLS handshakes together, in both directions; default 3 s
	Silence        time.Duration // time after which a silent peer is disconnected; default 4 s
	PollInterval   time.Duration // time between reads of the certificate files; default 2 s
	MaxBody        int64         // limit for the body of a call and of its answer, in bytes; default 64 MiB
	MaxConnections int           // limit for verified inbound connections; default 512; a quarter per node
	MaxHandshakes  int           // limit for concurrent inbound handshakes; default 256; a quarter per source address
	MaxCalls       int           // limit for concurrent inbound calls of one peer; default 512
	Log            *slog.Logger  // default: discard
	// Dial connects to a peer; default: plain TCP. Its context ends after DialTimeout.
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	Registerer prometheus.Registerer
}

// Limits that are not configurable.
const (
	maxHeader     = 16 << 10         // size of a call's header, in bytes
	maxStreams    = 256              // number of concurrent calls on one connection
	maxMessage    = 4 << 10          // size of an error's message, in bytes
	maxPeers      = 256              // number of peers whose connections are kept
	callTimeout   = 60 * time.Second // limit for one call on the serving side, from first to last byte
	sendTimeout   = 10 * time.Second // limit for sending one frame of a Stream over HTTP/2
	idleTimeout   = 2 * time.Minute  // time until a connection without calls is closed
	acceptBackoff = 50 * time.Millisecond
)

// withDefaults returns cfg with the defaults in place of zero values. Call check first:
// withDefaults keeps negative values.
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

// check returns an error for a setting that is missing or contradicts another. So the operator sees
// the error at startup, not at the first connection.
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

// serverConfig returns the TLS configuration for inbound handshakes.
func (cfg Config) serverConfig() *tls.Config {
	protocol := ""
	if cfg.Enroll != nil {
		protocol = enroll.Protocol
	}
	return cfg.Certs.ServerConfig(protocol, protoRaft, protoFrames, protoHTTP)
}

// keepAlive returns the settings of TCP keep-alives. Three unanswered probes close an idle
// connection after about silence.
func keepAlive(silence time.Duration) net.KeepAliveConfig {
	probe := max(silence/4, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: probe, Interval: probe, Count: 3}
}
