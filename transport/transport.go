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

	"revoked"
	"revoked/internal/hashilog"
	"revoked/transport/saferaft"
)

// Transport is the cluster port of one node. All methods may be called concurrently.
type Transport struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	conns   *connSet
	peers   *peers
	raft    *saferaft.Transport
	streams *streamLayer // stream layer below raft
	calls   *listener
	server  *http.Server
	frames  *listener
	known   *known
	loads   *loads

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex // protects started, closed and the first Add of wg
	started bool
	closed  bool
	wg      sync.WaitGroup // all goroutines of Serve, and the handlers
}

// New returns a transport that owns cfg.Listener. It accepts no connection before Serve.
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
		calls: newListener(cfg.Listener.Addr()), frames: newListener(cfg.Listener.Addr()),
		known: newKnown(cfg),
		loads: newLoads(cfg.MaxCalls, cfg.MaxBody),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers = &peers{
		dial: t.dial, dialTimeout: cfg.DialTimeout, limits: cfg.frameLimits(), kept: make(map[peerKey]*peer),
	}
	t.server = newServer(cfg, t.handle)
	t.streams = &streamLayer{
		listener: newListener(addr(RaftAddress(cfg.NodeID, cfg.Advertise))),
		dial:     t.dial,
		conns:    t.conns,
	}
	t.raft = saferaft.New(&raft.NetworkTransportConfig{
		Stream:          t.streams,
		MaxPool:         cfg.MaxPool,
		MaxRPCsInFlight: 1, // disables pipelining in the library too
		Timeout:         cfg.RaftTimeout,
		Logger:          hashilog.New(t.log, "raft"),
	}, t.streams)
	return t, nil
}

// Raft returns the transport for raft.NewRaft. It supports pre-vote, but neither the heartbeat fast
// path nor pipelining.
func (t *Transport) Raft() raft.Transport { return t.raft }

// TimeoutsSent returns how many TimeoutNow messages were sent to the server. TimeoutNow is the last
// message that Raft sends in a leadership transfer.
func (t *Transport) TimeoutsSent(server raft.ServerID) int { return t.raft.TimeoutsSent(server) }

// ContactOf returns when the last Raft message from the server arrived, and since when messages to
// it have failed.
func (t *Transport) ContactOf(server raft.ServerID) Contact { return t.raft.ContactOf(server) }

// ReviewAppends sets a function that may change each received AppendEntries request. See saferaft.
func (t *Transport) ReviewAppends(review func(*raft.AppendEntriesRequest)) {
	t.raft.ReviewAppends(review)
}

// AnnounceCommit notifies the followers that the entry at index, which this node appended as the
// leader of term, has committed. It does not block. See saferaft.
func (t *Transport) AnnounceCommit(term, index uint64) { t.raft.AnnounceCommit(term, index) }

// DeferReplicationErrors makes a failed replication call return its error to Raft not immediately,
// but after the outage of the peer. replicates reports whether this node leads the term and
// replicates to the server. replicates is called repeatedly and concurrently.
func (t *Transport) DeferReplicationErrors(replicates func(server raft.ServerID, term uint64) bool) {
	t.raft.DeferReplicationErrors(replicates)
}

// GuardVotes attaches the notes of g to this node's vote requests, and refuses a vote if g.MayVote
// returns false. A peer of version 0.3 neither sends nor reads notes.
func (t *Transport) GuardVotes(g VoteGuard) { t.raft.GuardVotes(g) }

// Stalled reports whether a replication call to the server has been in progress or deferred for
// longer than d. Until the call returns, Raft's replication to the server makes no other progress.
func (t *Transport) Stalled(server raft.ServerID, d time.Duration) bool {
	return t.raft.Stalled(server, d)
}

// Serve starts accepting connections and returns. It does nothing if called again or after Close.
// Before Serve, Raft may dial and call, but no peer reaches this node.
func (t *Transport) Serve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started || t.closed {
		return
	}
	t.started = true
	admission := newAdmission(t.cfg, t.conns, t.known, t.calls, t.frames, t.streams.listener)
	t.wg.Go(func() { admission.run(t.ctx) })
	t.wg.Go(func() { t.known.run(t.ctx) })
	t.wg.Go(func() { _ = t.server.Serve(t.calls) }) // returns only after Close
	t.wg.Go(t.acceptFrames)
	t.wg.Go(func() { t.cfg.Certs.Watch(t.ctx, t.cfg.PollInterval, t.recheck) })
}

// Close closes the port and all connections, cancels the contexts of handlers, and waits for all
// goroutines of the transport. It is safe to call twice and in any state.
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
		_ = t.frames.Close()
		_ = t.server.Close()
		t.conns.close()
		t.peers.close()
	}
	t.wg.Wait()
	t.raft.Wait()
	return err
}

// handle serves a call unless the transport is closed. It counts the call in wg, so that Close
// waits for it. Otherwise a handler could use the node's state after the node has closed it.
func (t *Transport) handle(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	serveCall(t.cfg, t.loads, w, r)
}

// recheck closes the connections of peers that the current CA does not trust. It runs after each
// reload of the certificates. New handshakes use the new CA in any case.
func (t *Transport) recheck() {
	n := t.conns.closeWhere(func(c *conn) bool {
		if c.chain == nil {
			return false // handshake in progress
		}
		return t.cfg.Certs.Verify(c.chain, c.usage) != nil
	})
	if n > 0 {
		t.log.Warn("closed connections of untrusted peers", "connections", n)
	}
}

// dial connects to wantNode at hostport, or to any node of the cluster if wantNode is empty. It
// blocks for at most DialTimeout, or until the transport closes. On success the peer's certificate
// is verified, but the peer may still refuse the certificate of this node: see open.
func (t *Transport) dial(
	ctx context.Context, hostport, wantNode, instance string, protos ...string,
) (*tls.Conn, *conn, error) {
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
	limitSilence(raw, t.cfg.Silence)
	c := t.conns.add(raw, x509.ExtKeyUsageServerAuth)
	if c == nil {
		return nil, nil, fmt.Errorf("%w: transport", revoked.ErrClosed)
	}
	tc := tls.Client(c, t.cfg.Certs.ClientConfig(wantNode, instance, protos...))
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("handshake with %s: %w", hostport, err)
	}
	cs := tc.ConnectionState()
	if err := t.conns.adopt(c, "", cs); err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	t.known.learn(raw.RemoteAddr())
	return tc, c, nil
}
