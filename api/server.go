package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of the API port. A handler that streams moves the two middle ones for itself.
const (
	readHeaderTimeout = 5 * time.Second // also: the first byte, and the TLS handshake
	readTimeout       = 10 * time.Second
	writeTimeout      = 15 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	maxStreams        = 100 // of one HTTP/2 connection
	defaultMaxConns   = 10_000
)

// ServerConfig is what a [Server] is made of. Listener and API have no default.
type ServerConfig struct {
	Listener net.Listener // owned by the server from NewServer on
	// TLS is for connections that begin with a TLS record; see [TLSConfig]. nil: none may.
	TLS             *tls.Config
	API             *API
	Handler         http.Handler  // default: API.Handler(); the metrics listener passes MetricsHandler
	Log             *slog.Logger  // default: nowhere
	MaxConns        int           // default 10,000; more wait to be accepted
	ShutdownTimeout time.Duration // how long Shutdown lets requests finish; default 15s
}

// A Server serves one API on one port, by TLS or plain HTTP as the first byte of a connection says.
type Server struct {
	cfg  ServerConfig
	http *http.Server
	port *port
}

// NewServer returns a server that is not serving yet. It panics without a Listener or an API, which is a
// mistake in the program.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Listener == nil || cfg.API == nil {
		panic("api: NewServer needs a Listener and an API")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Handler == nil {
		cfg.Handler = cfg.API.Handler()
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.ShutdownTimeout <= 0 {
		cfg.ShutdownTimeout = 15 * time.Second
	}
	s := &Server{cfg: cfg, port: newPort(cfg.Listener, cfg.TLS, cfg.MaxConns, cfg.Log)}
	s.http = &http.Server{
		Handler:           cfg.Handler,
		TLSConfig:         cfg.TLS,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      max(writeTimeout, cfg.API.cfg.RequestTimeout+10*time.Second),
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ConnContext:       withTap,
	}
	return s
}

// Serve answers until Shutdown or Close is called, which make it return nil.
func (s *Server) Serve() error {
	err := s.http.Serve(s.port)
	s.port.wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", s.cfg.Listener.Addr(), err)
}

// Shutdown stops accepting, lets requests finish until ctx ends or the shutdown timeout is over, then
// closes what is left. It may be called twice, and before Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	s.http.SetKeepAlivesEnabled(false)
	err := s.http.Shutdown(ctx) // closes the port too, once it knows that this is wanted
	s.port.wait()
	if err != nil {
		_ = s.http.Close()
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}

// Close ends every connection at once. It may be called twice.
func (s *Server) Close() error {
	err := s.http.Close()
	s.port.wait()
	return err
}

// A port is a listener that looks at the first byte of each connection and finishes the TLS handshake
// before it hands the connection to net/http: HTTP/1 then gets a [tap], HTTP/2 the *tls.Conn it needs.
type port struct {
	inner net.Listener
	tls   *tls.Config
	log   *slog.Logger
	slots chan struct{}
	ready chan net.Conn

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	start  sync.Once
	once   sync.Once
	group  sync.WaitGroup
	closed error // of inner; set by once
}

var _ net.Listener = (*port)(nil)

func newPort(l net.Listener, cfg *tls.Config, conns int, log *slog.Logger) *port {
	p := &port{inner: l, tls: cfg, log: log, slots: make(chan struct{}, conns), ready: make(chan net.Conn)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Accept returns the next connection whose protocol is known.
func (p *port) Accept() (net.Conn, error) {
	p.start.Do(func() {
		if p.ctx.Err() == nil {
			p.group.Go(p.accept)
		}
	})
	select {
	case c := <-p.ready:
		return c, nil
	case <-p.ctx.Done():
		return nil, net.ErrClosed
	}
}

// accept takes connections as long as there are slots for them.
func (p *port) accept() {
	pause := time.Millisecond
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		c, err := p.inner.Accept()
		if err != nil {
			<-p.slots
			if p.ctx.Err() != nil {
				return
			}
			// Most likely out of file descriptors: wait for some to come back.
			p.log.Warn("accept failed", slog.String("error", err.Error()))
			select {
			case <-time.After(pause):
			case <-p.ctx.Done():
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		counted := &countedConn{Conn: c, slots: p.slots}
		p.group.Go(func() { p.open(counted) })
	}
}

// open finds the protocol of a connection and hands it on; it closes what has none.
func (p *port) open(c *countedConn) {
	stop := context.AfterFunc(p.ctx, func() { _ = c.Close() })
	defer stop()
	ready, err := p.negotiate(c)
	if err != nil {
		p.log.Debug("connection refused", slog.String("remote", c.RemoteAddr().String()), slog.String("error", err.Error()))
		_ = c.Close()
		return
	}
	if !stop() {
		return // closed meanwhile
	}
	select {
	case p.ready <- ready:
	case <-p.ctx.Done():
		_ = c.Close()
	}
}

func (p *port) negotiate(c *countedConn) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(readHeaderTimeout)); err != nil {
		return nil, err
	}
	var first [1]byte
	if _, err := c.Conn.Read(first[:]); err != nil {
		return nil, fmt.Errorf("read first byte: %w", err)
	}
	c.first, c.pending = first[0], true
	const handshake = 0x16 // RFC 8446 section 5.1: the content type of a ClientHello's record
	if first[0] != handshake {
		return &tap{Conn: c}, c.SetDeadline(time.Time{})
	}
	if p.tls == nil {
		return nil, errors.New("TLS is not served here")
	}
	tc := tls.Server(c, p.tls)
	if err := tc.HandshakeContext(p.ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if tc.ConnectionState().NegotiatedProtocol == "h2" {
		return tc, nil
	}
	return &tlsTap{tap{Conn: tc}, tc}, nil
}

// Close stops accepting. Connections that were handed on live on.
func (p *port) Close() error {
	p.once.Do(func() {
		p.cancel()
		p.closed = p.inner.Close()
	})
	return p.closed
}

// Addr returns the address that is listened on.
func (p *port) Addr() net.Addr { return p.inner.Addr() }

// wait returns when no goroutine of the port is left; Close must have been called, or Accept failed.
func (p *port) wait() {
	_ = p.Close()
	p.start.Do(func() {}) // an Accept that comes now starts nothing
	p.group.Wait()
}

// A countedConn gives its slot back when it is closed, and returns its first byte, which was looked at,
// again.
type countedConn struct {
	net.Conn
	slots   chan struct{}
	once    sync.Once
	first   byte
	pending bool
}

func (c *countedConn) Read(b []byte) (int, error) {
	if c.pending && len(b) > 0 {
		c.pending = false
		b[0] = c.first
		return 1, nil
	}
	return c.Conn.Read(b)
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
