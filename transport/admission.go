package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"revoked/internal/retry"
	"revoked/internal/slots"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// The reasons for refusing a connection. They are the values of the label reason of
// revoked_peer_refused_total.
const (
	refusedSilent    = "silent"    // closed or silent before it sent a whole ClientHello
	refusedNotTLS    = "not_tls"   // sent something other than a ClientHello
	refusedDisplaced = "displaced" // yielded its slot to a newer connection
	refusedHandshake = "handshake" // TLS failed, or the certificate is wrong
	refusedInstance  = "another_instance"
	refusedRaft      = "not_allowed"
	refusedFull      = "full"
)

var errDisplaced = errors.New("displaced by a newer connection: too many are waiting")

// waiting is an inbound connection that is not authenticated yet. It holds a slot of
// admission.greetings, then a slot of admission.handshakes. Its fields are set before its goroutine
// starts, except displaced.
type waiting struct {
	*conn
	order     uint64      // order of arrival
	known     bool        // its source has reserved slots
	displaced atomic.Bool // a newer connection took the slot
}

// take returns a slot of set. If another connection displaces w, w is closed.
func (w *waiting) take(set *slots.Set) *slots.Slot {
	return set.Take(slots.Waiter{Source: slots.Source(w.RemoteAddr()), Known: w.known, Order: w.order,
		Evict: func() {
			w.displaced.Store(true)
			_ = w.Close()
		}})
}

// admission accepts the connections to the cluster port. It passes authenticated connections to the
// server of calls or to Raft.
//
// A connection needs a slot until it has sent a ClientHello, and another one for the handshake,
// which costs CPU time. Half of the slots of each kind are reserved for known sources. So a flood
// from unknown sources delays only unknown sources, not the nodes.
type admission struct {
	cfg        Config
	conns      *connSet
	known      *known
	calls      *listener
	frames     *listener
	raft       *listener
	greetings  *slots.Set // connections that have not sent a ClientHello yet
	handshakes *slots.Set // handshakes in progress
	refusals   *refusals
}

// newAdmission returns the admission of a port. It accepts no connection before run.
func newAdmission(cfg Config, conns *connSet, known *known, calls, frames, raft *listener) *admission {
	return &admission{
		cfg: cfg, conns: conns, known: known, calls: calls, frames: frames, raft: raft,
		greetings:  slots.New(slots.Share(cfg.MaxHandshakes)),
		handshakes: slots.New(slots.Share(cfg.MaxHandshakes)),
		refusals:   newRefusals(conns.metrics, cfg.Log),
	}
}

// run accepts connections until the listener is closed, and waits until each has been passed on or
// refused. ctx ends with the transport.
func (a *admission) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for order := uint64(1); ; order++ {
		raw, err := a.cfg.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// The cause may be temporary, such as a lack of file descriptors.
			a.cfg.Log.Error("cannot accept on the cluster port", "error", err)
			_ = retry.Sleep(ctx, acceptBackoff)
			continue
		}
		c := a.conns.add(raw, x509.ExtKeyUsageClientAuth)
		if c == nil {
			return // closed
		}
		w := &waiting{conn: c, order: order, known: a.known.has(raw.RemoteAddr())}
		slot := w.take(a.greetings)
		wg.Go(func() { a.admit(ctx, w, slot) })
	}
}

// admit does the handshake and passes the connection to its protocol. If the connection lost its
// slot to another one, the reported reason is displaced, whatever error the closed socket returned.
func (a *admission) admit(ctx context.Context, w *waiting, greeting *slots.Slot) {
	tc, reason, err := a.handshake(ctx, w, greeting)
	if err == nil {
		reason, err = a.pass(ctx, w.conn, tc)
	}
	if err == nil {
		return
	}
	if w.displaced.Load() {
		reason, err = refusedDisplaced, errDisplaced
	}
	_ = w.Close()
	if ctx.Err() == nil {
		a.refusals.report(w.RemoteAddr(), w.known, reason, err)
	}
}

// handshake reads the ClientHello while w holds a slot of greetings, and does the rest of the
// handshake while w holds a slot of handshakes. Both together take at most DialTimeout. If it
// fails, reason is the cause of the refusal.
func (a *admission) handshake(ctx context.Context, w *waiting, greeting *slots.Slot) (
	tc *tls.Conn, reason string, err error) {
	limitSilence(w.Conn, a.cfg.Silence)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DialTimeout)
	defer cancel()
	_ = w.SetReadDeadline(time.Now().Add(a.cfg.DialTimeout))
	hello, err := readHello(w)
	_ = w.SetReadDeadline(time.Time{})
	if !greeting.Release() {
		return nil, refusedDisplaced, errDisplaced
	}
	switch {
	case errors.Is(err, errNotTLS):
		return nil, refusedNotTLS, err
	case err != nil:
		return nil, refusedSilent, err
	}
	slot := w.take(a.handshakes)
	tc = tls.Server(&replayConn{Conn: w.conn, first: hello}, a.cfg.serverConfig())
	err = tc.HandshakeContext(ctx)
	if !slot.Release() {
		return nil, refusedDisplaced, errDisplaced
	}
	return tc, refusedHandshake, err
}

// pass passes a connection to its protocol after the handshake. If it refuses the connection,
// reason is the cause. The instance is checked before AllowRaft: a stream for a previous instance
// of this node must not reach Raft, even from a member.
func (a *admission) pass(ctx context.Context, c *conn, tc *tls.Conn) (reason string, err error) {
	cs := tc.ConnectionState()
	if cs.NegotiatedProtocol == enroll.Protocol { // without a certificate
		a.cfg.Enroll(ctx, tc)
		_ = c.Close()
		return "", nil
	}
	node, err := pki.NodeOf(cs.PeerCertificates[0])
	if err != nil {
		return refusedHandshake, err
	}
	if err := a.conns.adopt(c, node, cs); err != nil {
		return refusedFull, err
	}
	a.known.learn(c.RemoteAddr())
	to, given := a.calls, net.Conn(tc)
	switch cs.NegotiatedProtocol {
	case protoHTTP:
	case protoFrames:
		to, given = a.frames, &abruptConn{Conn: tc, below: c}
	case protoRaft:
		if to := cs.ServerName; to != "" && a.cfg.Instance != "" && to != a.cfg.Instance {
			return refusedInstance, fmt.Errorf("node %s dialed another instance (got %s, want %s)", node, to, a.cfg.Instance)
		}
		if err := a.cfg.AllowRaft(node); err != nil {
			return refusedRaft, fmt.Errorf("node %s may not open a Raft stream: %w", node, err)
		}
		to, given = a.raft, &abruptConn{Conn: tc, below: c}
	default:
		return refusedHandshake, fmt.Errorf("node %s offered no supported ALPN protocol (want %s, %s or %s)",
			node, protoRaft, protoFrames, protoHTTP)
	}
	if !to.give(given) {
		_ = c.Close()
	}
	return "", nil
}
