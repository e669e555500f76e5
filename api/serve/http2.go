package serve

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

const (
	// maxStreams limits the concurrent requests of one HTTP/2 connection.
	maxStreams = 50
	// maxListBytes is the hard limit of an HTTP/2 header. Beyond it the connection ends with every
	// request on it. So it is far above maxHeaderBytes: a header between the two limits costs only its
	// request, which gets 431.
	maxListBytes = 1<<20 + 64<<10
	// minFrame is the smallest limit for the size of a frame (RFC 9113 section 4.2). A buffer of the
	// announced length is allocated before the frame arrives, and kept.
	minFrame = 16 << 10
	// maxStreamBuffer and maxConnBuffer bound the bytes of bodies that no handler has read.
	maxStreamBuffer = 256 << 10
	maxConnBuffer   = 512 << 10
	// goAwayTime is how long a shutdown waits for HTTP/2 connections to end after their GOAWAY. The
	// server ends them after a second. A client that closes first has read every response.
	goAwayTime = 1500 * time.Millisecond
	// writeStall is how long an HTTP/2 client may accept no byte.
	writeStall = 15 * time.Second
)

// An http2Server serves HTTP/2 connections. net/http has the same implementation, but serves only a
// bare *tls.Conn, with the header limit of HTTP/1. net/http also closes idle connections without
// GOAWAY.
type http2Server struct {
	base *http.Server // configuration; serves nothing itself
	//lint:ignore SA1019 net/http cannot serve a wrapped connection
	conf http2.Server
	ctx  context.Context
}

// newHTTP2Server returns a server with the handler and the timeouts of h1.
func newHTTP2Server(h1 *http.Server, ctx context.Context, m *metrics) *http2Server {
	s := &http2Server{ctx: ctx, base: &http.Server{
		Handler: h1.Handler, ReadTimeout: h1.ReadTimeout, WriteTimeout: h1.WriteTimeout, IdleTimeout: h1.IdleTimeout,
		MaxHeaderBytes: maxListBytes, ErrorLog: h1.ErrorLog, ConnState: h1.ConnState,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: minFrame, WriteByteTimeout: writeStall,
			MaxReceiveBufferPerConnection: maxConnBuffer, MaxReceiveBufferPerStream: maxStreamBuffer,
			CountError: func(cause string) { m.http2Errors.WithLabelValues(cause).Inc() },
		},
	}}
	//lint:ignore SA1019 it registers the function that sends GOAWAY
	if err := http2.ConfigureServer(s.base, &s.conf); err != nil {
		panic("serve: " + err.Error()) // the configuration is constant
	}
	return s
}

// serveHTTP2 serves a connection until it ends.
func (s *Server) serveHTTP2(c *frameConn) {
	c.late = s.retiring.Load()
	ended := make(chan struct{})
	stop := context.AfterFunc(s.stopping, func() {
		defer close(ended)
		c.announce()
	})
	defer func() {
		_ = c.Close()
		if !stop() {
			<-ended
		}
	}()
	c.link.slot.setHTTP2()
	//lint:ignore SA1019 net/http cannot serve a wrapped connection
	s.http2.conf.ServeConn(c, &http2.ServeConnOpts{
		Context: withConn(s.http2.ctx, c), BaseConfig: s.http2.base, Handler: s,
	})
}

// goAway sends GOAWAY on every connection. Each closes after its last stream. A request that
// arrives later is ignored, see [frameConn.announce].
func (s *http2Server) goAway(ctx context.Context) {
	s.base.SetKeepAlivesEnabled(false) // also for later connections
	_ = s.base.Shutdown(ctx)           // base has no connections of its own, so Shutdown does not wait
}
