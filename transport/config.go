package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Config is what a Transport needs. The first block is required; zero elsewhere takes the default.
type Config struct {
	NodeID    string       // must be the one that Certs names
	Listener  net.Listener // plain TCP, bound already; New takes it over
	Advertise string       // host:port at which peers reach this node
	Certs     *Certs
	Handler   http.Handler // answers the calls of other nodes; see PeerNode, ServeStream, WriteError
	// Instance is who this node is while it has this disk; a stream of Raft's that names another is refused.
	// Empty, it takes all.
	Instance string
	// AllowRaft is asked before the first byte of an inbound Raft stream is passed on. An error
	// refuses the stream and is logged.
	AllowRaft func(nodeID string) error

	RaftTimeout    time.Duration // one message of Raft and its answer; default 5 s
	MaxPool        int           // idle Raft connections kept for each peer; default 3
	DialTimeout    time.Duration // TCP and TLS together, both directions; default 3 s
	Silence        time.Duration // a peer that is silent for so long is cut off; default 4 s
	PollInterval   time.Duration // between looks at the certificate files; default 10 s
	MaxBody        int64         // of a call and of its answer, bytes; default 64 MiB
	MaxConnections int           // inbound; default 512
	MaxHandshakes  int           // inbound, under way at the same time; default 64
	Log            *slog.Logger  // default: none
	// Dial connects to a peer; default: plain TCP. What it returns is bounded by the context, which ends
	// after DialTimeout.
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	Registerer prometheus.Registerer
}

// Limits that are not worth a setting.
const (
	maxHeader     = 16 << 10         // bytes of a call's header
	maxStreams    = 256              // concurrent calls of one connection
	maxMessage    = 4 << 10          // bytes of an error's message
	maxPeers      = 256              // peers whose connections are kept
	callTimeout   = 60 * time.Second // one call on the answering side, first to last byte
	sendTimeout   = 10 * time.Second // one frame of a Stream
	idleTimeout   = 2 * time.Minute  // a connection without calls
	refusalsALog  = 5                // refusals logged a second; all are counted
	acceptBackoff = 50 * time.Millisecond
)

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
		cfg.PollInterval = 10 * time.Second
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 20
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 512
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = 64
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) check() error {
	switch {
	case cfg.Listener == nil:
		return errors.New("transport: no Listener")
	case cfg.Certs == nil:
		return errors.New("transport: no Certs")
	case cfg.Handler == nil:
		return errors.New("transport: no Handler")
	case cfg.AllowRaft == nil:
		return errors.New("transport: no AllowRaft: who may speak Raft is not left open")
	case cfg.RaftTimeout < 0 || cfg.MaxPool < 0 || cfg.DialTimeout < 0 || cfg.Silence < 0 ||
		cfg.PollInterval < 0 || cfg.MaxBody < 0 || cfg.MaxConnections < 0 || cfg.MaxHandshakes < 0:
		return errors.New("transport: negative setting")
	}
	if err := CheckNodeID(cfg.NodeID); err != nil {
		return fmt.Errorf("transport: node id: %w", err)
	}
	if got := cfg.Certs.NodeID(); got != cfg.NodeID {
		return fmt.Errorf("transport: the certificate names node %s, but node_id is %s: correct one of them", got, cfg.NodeID)
	}
	if err := checkHostPort(cfg.Advertise); err != nil {
		return fmt.Errorf("transport: advertised address: %w", err)
	}
	if host, _, _ := net.SplitHostPort(cfg.Advertise); net.ParseIP(host).IsUnspecified() {
		return fmt.Errorf("transport: peers cannot dial the advertised address %s: name a host", cfg.Advertise)
	}
	return nil
}

// keepAlive is for connections on which nothing is under way.
func keepAlive(silence time.Duration) net.KeepAliveConfig {
	probe := max(silence/4, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: probe, Interval: probe, Count: 3}
}
