package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// A listener reads the first bytes of each connection and finishes the TLS handshake. Accept
// returns HTTP/1 connections, wrapped in a [recordingConn]. HTTP/2 connections go to serveHTTP2.
type listener struct {
	inner  net.Listener
	server *Server
	ready  chan net.Conn

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	retired    chan struct{} // closed by retire
	ended      chan struct{} // closed when acceptLoop has ended
	accepted   chan struct{} // closed when acceptLoop and its handshakes have ended
	startOnce  sync.Once
	retireOnce sync.Once
	closeOnce  sync.Once
	group      sync.WaitGroup // acceptLoop and handshakes
	serving    sync.WaitGroup // HTTP/2 connections
	closeErr   error          // set by closeOnce
}

var _ net.Listener = (*listener)(nil)

func newListener(inner net.Listener, s *Server) *listener {
	l := &listener{inner: inner, server: s, ready: make(chan net.Conn), retired: make(chan struct{}),
		ended: make(chan struct{}), accepted: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Accept returns the next HTTP/1 connection that is ready to be read. After retire it returns the
// connections that were established before, and then [net.ErrClosed].
func (l *listener) Accept() (net.Conn, error) {
	l.startOnce.Do(func() {
		if l.ctx.Err() == nil {
			l.group.Go(func() {
				defer close(l.ended)
				l.acceptLoop()
			})
			go func() {
				l.group.Wait()
				close(l.accepted)
			}()
		}
	})
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.accepted:
	case <-l.ctx.Done():
	}
	return nil, net.ErrClosed
}

// acceptLoop accepts connections until Close or retire.
func (l *listener) acceptLoop() {
	backoff := time.Millisecond
	for {
		c, err := l.inner.Accept()
		switch {
		case l.ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return
		case err == nil:
			backoff = time.Millisecond
			l.place(c)
			continue
		case l.isRetired():
			if errors.Is(err, os.ErrDeadlineExceeded) && waiting(l.inner) > 0 && l.limitAccept() {
				continue
			}
			_ = l.closeInner() // every pending connection has been accepted
			return
		}
		// The likely cause is a temporary lack of file descriptors.
		l.server.cfg.Log.Warn("cannot accept connections", slog.String("error", err.Error()))
		select {
		case <-time.After(backoff):
		case <-l.ctx.Done():
		}
		backoff = min(2*backoff, time.Second)
	}
}

// retire closes the inner listener once the connections in its queue have been accepted. Otherwise
// the kernel would reset them. It blocks until the inner listener is closed. When ctx ends, it
// closes the listener without waiting.
func (l *listener) retire(ctx context.Context) {
	l.retireOnce.Do(func() {
		close(l.retired)
		l.startOnce.Do(func() { close(l.ended); close(l.accepted) }) // Accept was never called
		refuseNewConnections(l.inner)
		if !l.limitAccept() {
			_ = l.closeInner()
		}
	})
	select {
	case <-l.ended:
	case <-ctx.Done():
	}
	_ = l.closeInner()
}

// limitAccept makes Accept of the inner listener fail after retireWait. It returns false if the
// listener does not support that.
func (l *listener) limitAccept() bool {
	timed, ok := l.inner.(interface{ SetDeadline(time.Time) error })
	return ok && timed.SetDeadline(time.Now().Add(retireWait)) == nil
}

// retireWait is how long retire waits for connections whose TCP handshake has begun.
const retireWait = 100 * time.Millisecond

func (l *listener) isRetired() bool {
	select {
	case <-l.retired:
		return true
	default:
		return false
	}
}

// place gives a connection a slot and opens it. With the slot, a shutdown waits for its first
// request.
func (l *listener) place(tcp net.Conn) {
	c := &conn{Conn: tcp}
	slot := l.server.slots.take(c, addressOf(tcp.RemoteAddr()), time.Now())
	if slot == nil {
		l.refused(tcp.RemoteAddr(), refusedf(causeConnections, "every spare slot is taken"))
		_ = tcp.Close()
		return
	}
	c.slot = slot
	if slot.refused != "" {
		l.refused(tcp.RemoteAddr(), refusedf(slot.refused, "the requests on this connection are refused"))
	}
	l.group.Go(func() { l.open(c) })
}

// open passes a connection to the server of its protocol, or closes it if it does not negotiate a
// protocol in time.
func (l *listener) open(c *conn) {
	stop := context.AfterFunc(l.ctx, func() { _ = c.Close() })
	defer stop()
	ready, err := l.negotiate(c)
	if err != nil {
		l.refused(c.RemoteAddr(), err)
		_ = c.Close()
		return
	}
	if !stop() {
		return // Close has closed it
	}
	if h2, ok := ready.(*frameConn); ok {
		l.serving.Go(func() { l.server.serveHTTP2(h2) })
		return
	}
	select {
	case l.ready <- ready:
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

// refused counts a connection that is closed, or whose requests are refused. It logs the causes
// that port scanners and probes produce at debug level. It logs any other cause as a warning, at
// most once in rareTime.
func (l *listener) refused(remote net.Addr, err error) {
	cause := causeHandshake
	var r *refusedError
	if errors.As(err, &r) {
		cause = r.cause
	}
	l.server.metrics.connsRefused.WithLabelValues(cause).Inc()
	switch cause {
	case causeSilent, causeGone, causeHandshake:
		l.server.cfg.Log.Debug("connection refused", slog.String("remote", remote.String()), slog.String("cause", cause),
			slog.String("error", err.Error()))
	default:
		l.server.rare.warn("connection refused", cause, remote.String(), "error", err.Error())
	}
}

// negotiate decides between TLS and plain HTTP and completes the handshake. It takes at most
// readHeaderTimeout in total and leaves no deadline on the connection that it returns. The caller
// closes c after an error.
func (l *listener) negotiate(c *conn) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(readHeaderTimeout)); err != nil {
		return nil, err
	}
	isTLS, err := readOpening(c)
	if err != nil {
		return nil, err
	}
	link := connLink{slot: c.slot}
	if !isTLS {
		rc := &recordingConn{Conn: c, link: link}
		rc.link.recording = rc
		return rc, c.SetDeadline(time.Time{})
	}
	cfg := l.server.cfg.TLS
	if cfg == nil {
		return nil, refusedf(causeNoTLS, "TLS is not served on this port")
	}
	tc := tls.Server(c, cfg)
	if err := tc.HandshakeContext(l.ctx); err != nil {
		return nil, refusedf(causeHandshake, "handshake: %w", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if tc.ConnectionState().NegotiatedProtocol == "h2" {
		return newFrameConn(tc, c.slot, &l.server.blocks, func(cause string) {
			l.refused(c.RemoteAddr(), refusedf(cause,
				"HTTP/2 frames did not arrive in time, or incomplete headers use too much memory"))
		}), nil
	}
	rc := &recordingTLSConn{recordingConn{Conn: tc, link: link}, tc}
	rc.link.recording = &rc.recordingConn
	return rc, nil
}

// Close stops accepting. Connections that Accept returned stay open.
func (l *listener) Close() error {
	l.cancel()
	return l.closeInner()
}

func (l *listener) closeInner() error {
	l.closeOnce.Do(func() { l.closeErr = l.inner.Close() })
	return l.closeErr
}

// Addr returns the address of the inner listener.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }

// wait closes the listener and blocks until its goroutines have ended. The connections must be
// closed or about to end.
func (l *listener) wait() {
	_ = l.Close()
	l.startOnce.Do(func() {}) // a later Accept must not start acceptLoop
	l.group.Wait()
	l.serving.Wait()
}
