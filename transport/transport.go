package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"revoked"
	"revoked/internal/mutant"
)

// A Transport is the cluster port of one node. All methods may be called at once.
type Transport struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	conns   *connSet
	peers   *peers
	raft    *safeTransport
	calls   *listener
	server  *http.Server
	noisy   *rate.Limiter // of what strangers can make this node log
	slots   chan struct{} // one for each handshake under way

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex // guards started, closed and the first Add of wg
	started bool
	closed  bool
	wg      sync.WaitGroup // everything that Serve started, and the handlers
}

// New checks cfg and takes its Listener over. Nothing is accepted before Serve.
func New(cfg Config) (*Transport, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(cfg.Registerer, cfg.Certs)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, log: cfg.Log, metrics: m,
		conns: newConnSet(m, cfg.MaxConnections),
		calls: newListener(cfg.Listener.Addr()),
		noisy: rate.NewLimiter(refusalsALog, refusalsALog),
		slots: make(chan struct{}, cfg.MaxHandshakes),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers = &peers{t: t, kept: make(map[peerKey]*peer)}
	t.server = t.newServer()
	stream := &streamLayer{
		listener: newListener(addr(RaftAddress(cfg.NodeID, cfg.Advertise))),
		dial:     t.dial,
		conns:    t.conns,
	}
	t.raft = newSafeTransport(&raft.NetworkTransportConfig{
		Stream:          stream,
		MaxPool:         cfg.MaxPool,
		MaxRPCsInFlight: 1, // no pipelining, and said to the library too
		Timeout:         cfg.RaftTimeout,
		Logger:          RaftLog(t.log, "raft"),
	}, stream)
	return t, nil
}

// Raft returns the transport for raft.NewRaft: without the heartbeat fast path and without
// pipelining, with pre-vote.
func (t *Transport) Raft() raft.Transport { return t.raft }

// LocalAddr returns the address that the listener is bound to.
func (t *Transport) LocalAddr() string { return t.cfg.Listener.Addr().String() }

// Serve starts accepting and returns. A second call, and one after Close, does nothing.
func (t *Transport) Serve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started || t.closed {
		return
	}
	t.started = true
	t.wg.Go(t.accept)
	t.wg.Go(func() { _ = t.server.Serve(t.calls) }) // ends with Close only
	t.wg.Go(func() { t.cfg.Certs.Watch(t.ctx, t.cfg.PollInterval, t.recheck) })
}

// Close ends the port and everything on it, and returns when all that the transport started has
// ended, handlers included: their contexts are cancelled. Safe twice and in any state.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	var err error
	if first {
		t.cancel()
		err = t.cfg.Listener.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		_ = t.raft.Close()
		_ = t.calls.Close()
		_ = t.server.Close()
		t.conns.close()
		t.peers.close()
	}
	t.wg.Wait()
	return err
}

func (t *Transport) accept() {
	for {
		raw, err := t.cfg.Listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or the like: it may pass.
			t.log.Error("cannot accept on the cluster port", "err", err)
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(acceptBackoff):
				continue
			}
		}
		c := t.conns.add(raw, x509.ExtKeyUsageClientAuth)
		if c == nil {
			t.refuse(raw, "full", errors.New("too many connections"))
			continue
		}
		select {
		case t.slots <- struct{}{}:
			t.wg.Go(func() { t.admit(c) })
		default:
			t.refuse(c, "full", errors.New("too many handshakes"))
		}
	}
}

// admit makes the handshake and hands the connection to its protocol. It holds a slot until then.
func (t *Transport) admit(c *conn) {
	bound(c.Conn, t.cfg.Silence)
	tc := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: t.cfg.Certs.GetConfigForClient})
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.DialTimeout)
	err := tc.HandshakeContext(ctx)
	cancel()
	<-t.slots
	if err != nil {
		t.refuse(c, "handshake", err)
		return
	}
	cs := tc.ConnectionState()
	node, err := nodeOf(cs.PeerCertificates[0])
	if err != nil {
		t.refuse(c, "handshake", err)
		return
	}
	t.conns.adopt(c, cs)
	switch cs.NegotiatedProtocol {
	case protoHTTP:
		if !t.calls.give(tc) {
			_ = c.Close()
		}
	case protoRaft:
		if to := cs.ServerName; to != "" && t.cfg.Instance != "" && to != t.cfg.Instance && !mutant.On(mutant.AnyInstance) {
			t.refuse(c, "another_instance", fmt.Errorf("node %s wants instance %s of this node, which is %s: its disk was replaced", node, to, t.cfg.Instance))
			return
		}
		if err := t.cfg.AllowRaft(node); err != nil {
			t.refuse(c, "not_allowed", fmt.Errorf("node %s may not speak Raft here: %w", node, err))
			return
		}
		if !t.raft.stream.give(&raftConn{Conn: tc, below: c}) {
			_ = c.Close()
		}
	default:
		t.refuse(c, "handshake", fmt.Errorf("node %s offers neither %s nor %s", node, protoRaft, protoHTTP))
	}
}

func (t *Transport) refuse(c net.Conn, reason string, err error) {
	_ = c.Close()
	if t.ctx.Err() != nil {
		return
	}
	t.metrics.refused.WithLabelValues(reason).Inc()
	if t.noisy.Allow() {
		t.log.Warn("refused a connection on the cluster port", "from", c.RemoteAddr().String(), "reason", reason, "err", err)
	}
}

// recheck closes the connections whose peers the CA in use now does not vouch for.
func (t *Transport) recheck() {
	id := t.cfg.Certs.cur.Load()
	n := t.conns.closeWhere(func(c *conn) bool {
		if c.chain == nil {
			return false // in its handshake
		}
		_, err := id.verify(c.chain, c.usage)
		return err != nil
	})
	if n > 0 {
		t.log.Warn("closed connections of peers that the new CA does not vouch for", "connections", n)
	}
}

// dial connects to wantNode at hostport, or to any node of the cluster when wantNode is empty.
func (t *Transport) dial(ctx context.Context, hostport, wantNode, instance, proto string) (*tls.Conn, *conn, error) {
	if err := checkHostPort(hostport); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DialTimeout)
	defer cancel()
	stop := context.AfterFunc(t.ctx, cancel)
	defer stop()
	raw, err := t.cfg.Dial(ctx, "tcp", hostport)
	if err != nil {
		return nil, nil, err
	}
	bound(raw, t.cfg.Silence)
	c := t.conns.add(raw, x509.ExtKeyUsageServerAuth)
	if c == nil {
		return nil, nil, fmt.Errorf("%w: transport", revoked.ErrClosed)
	}
	tc := tls.Client(c, t.cfg.Certs.cur.Load().clientConfig(wantNode, instance, proto))
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("handshake with %s: %w", hostport, err)
	}
	t.conns.adopt(c, tc.ConnectionState())
	return tc, c, nil
}

// Probe makes a TLS handshake with whoever is at hostport and returns the node that its certificate
// names. Whether that node would talk to this one it does not tell.
func (t *Transport) Probe(ctx context.Context, hostport string) (nodeID string, err error) {
	tc, c, err := t.dial(ctx, hostport, "", "", protoHTTP)
	if err != nil {
		return "", fmt.Errorf("probe %s: %w", hostport, err)
	}
	defer func() { _ = c.Close() }()
	return nodeOf(tc.ConnectionState().PeerCertificates[0])
}
