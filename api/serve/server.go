package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// Limits of a port. A handler that streams moves its own read and write deadlines.
const (
	readTimeout  = 5 * time.Second // for header and body
	writeTimeout = 15 * time.Second
	idleTimeout  = 65 * time.Second // longer than the 60 s of proxies, which must close first

	defaultMaxConns    = 10_000
	defaultMaxRequests = 10_000
)

// Config configures a [Server]. Listener and Handler are required.
type Config struct {
	Listener net.Listener // owned by the server from New on
	Handler  http.Handler
	// TLS serves connections that begin with a TLS record, see [TLSConfig]. If it is nil, the
	// server closes them.
	TLS        *tls.Config
	Log        *slog.Logger          // default: discard
	Registerer prometheus.Registerer // for the metrics of the port; default: none

	// Limits. At a limit of connections, the server closes the one that has been idle the longest. If
	// none is idle, and beyond a limit of requests, the handler gets a [Refusal]. The defaults are
	// 10,000, and a quarter of all for one address.
	MaxConns, MaxConnsPerAddress       int
	MaxRequests, MaxRequestsPerAddress int
	// TrustedProxies are networks whose addresses have no limit of their own. Their requests count
	// for the address in X-Forwarded-For, see [CallerAddr].
	TrustedProxies []netip.Prefix

	RequestTimeout  time.Duration // limit for the handler: writing may end 10 s later, or 15 s after the header
	ShutdownTimeout time.Duration // limit for the requests in progress; default 15 s
	// RetireTime is how long Shutdown answers with "Connection: close" and GOAWAY before it closes
	// the listener.
	RetireTime time.Duration
}

// withDefaults returns c with the defaults of absent fields.
func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.MaxConns = cmp.Or(c.MaxConns, defaultMaxConns)
	c.MaxConnsPerAddress = cmp.Or(c.MaxConnsPerAddress, max(1, c.MaxConns/4))
	c.MaxRequests = cmp.Or(c.MaxRequests, defaultMaxRequests)
	c.MaxRequestsPerAddress = cmp.Or(c.MaxRequestsPerAddress, max(1, c.MaxRequests/4))
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 15*time.Second)
	return c
}

// A Server serves one handler on one port. Methods may be called concurrently.
type Server struct {
	cfg      Config
	http     *http.Server // HTTP/1
	http2    *http2Server
	listener *listener
	slots    *slotTable
	requests *requestTable
	blocks   atomic.Int64 // see frameConn
	metrics  *metrics
	rare     *rareLog
	stopping context.Context    // ends when Shutdown begins, see UntilShutdown
	stop     context.CancelFunc // ends stopping
	retiring atomic.Bool        // each answer closes its connection
}

// New returns a server that does not serve yet. It panics without a Listener or a Handler.
func New(cfg Config) *Server {
	if cfg.Listener == nil || cfg.Handler == nil {
		panic("serve: New needs a Listener and a Handler")
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:   cfg,
		slots: newSlotTable(cfg.MaxConns, cfg.MaxConnsPerAddress, cfg.TrustedProxies),
		requests: &requestTable{limit: cfg.MaxRequests, perAddress: cfg.MaxRequestsPerAddress, exempt: cfg.TrustedProxies,
			byAddr: map[netip.Addr]int{}},
		rare: &rareLog{log: cfg.Log, last: map[string]time.Time{}, left: map[string]int{}},
	}
	s.metrics = newMetrics(cfg.Registerer, s)
	s.slots.evicted = s.metrics.connsEvicted.Inc
	s.listener = newListener(cfg.Listener, s)
	s.stopping, s.stop = context.WithCancel(context.Background())
	base := context.WithValue(context.Background(), stoppingKey{}, s.stopping)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      max(writeTimeout, cfg.RequestTimeout+10*time.Second),
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn,
		ConnState:         observeState,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // see http2Server
	}
	s.http2 = newHTTP2Server(s.http, base, s.metrics)
	return s
}

// Serve blocks until Shutdown or Close is called, and then returns nil.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) || s.listener.ctx.Err() != nil || s.listener.isRetired() {
		return nil
	}
	s.closeConns()
	return fmt.Errorf("serve %s: %w", s.cfg.Listener.Addr(), err)
}

// Shutdown ends the contexts of [UntilShutdown]. From then on each answer makes the client close
// its connection, over HTTP/2 with a GOAWAY that does not reject requests already on their way.
// After RetireTime it closes the listener, waits for the requests in progress, and closes the
// remaining connections. It returns an error if ctx ends or the shutdown timeout passes before the
// requests have ended. It may be called twice, and before Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	s.retiring.Store(true)
	s.stop()
	retire, done := context.WithTimeout(ctx, s.cfg.RetireTime)
	defer done()
	_ = s.slots.await(retire, func(n slotCounts) bool { return n.open == 0 })
	s.listener.retire(ctx)
	// A connection that has just been accepted may already have a request.
	err := s.slots.await(ctx, func(n slotCounts) bool { return n.busy == 0 && n.fresh == 0 })
	if err == nil {
		s.http2.goAway(ctx)
		ends, done := context.WithTimeout(ctx, goAwayTime)
		defer done()
		_ = s.slots.await(ends, func(n slotCounts) bool { return n.http2 == 0 })
	}
	s.closeConns()
	if err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}

// Close closes every connection immediately. It may be called twice.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.stop()
	s.closeConns()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// closeConns closes all connections and blocks until the server's goroutines have ended, except
// those of net/http for HTTP/1 connections.
func (s *Server) closeConns() {
	_ = s.listener.Close()
	_ = s.http.Close()
	s.slots.closeAll()
	s.listener.wait()
}

type stoppingKey struct{}

// UntilShutdown returns the context of r, which also ends with the cause [revoked.ErrClosed] when
// the server's Shutdown begins. Endless streams need it: Shutdown waits for requests, and net/http
// does not end their contexts.
func UntilShutdown(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stopping, ok := ctx.Value(stoppingKey{}).(context.Context)
	if !ok { // not served by a Server, as in tests
		return ctx, func() { cancel(nil) }
	}
	stop := context.AfterFunc(stopping, func() { cancel(revoked.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Connections returns the number of open connections, and how many of them have no request.
func (s *Server) Connections() (open, idle int) { return s.slots.counts() }
