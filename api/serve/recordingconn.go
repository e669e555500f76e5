package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a recordingConn, in bytes.
const (
	maxHeaderBytes = 16 << 10               // size of the header of one request, also over HTTP/2
	headerOverhead = 10 * 32                // RFC 9113 section 6.5.2 adds 32 for each field; net/http allows 10 fields
	maxRecorded    = maxHeaderBytes + 8<<10 // one header and the bytes that net/http reads ahead
)

// lingerTime is how long a connection stays open for the client to read the answer.
const lingerTime = 500 * time.Millisecond

// A recordingConn is an HTTP/1 connection that keeps the header of the current request.
//
// net/http silently drops a Content-Length sent with Transfer-Encoding. Such a request tries to
// make two servers disagree about its end (RFC 9112 section 6.3), and only its raw bytes show this.
// Write replaces net/http's own refusals, see [jsonRefusal].
type recordingConn struct {
	net.Conn
	link      connLink
	wrote     atomic.Bool // a Write began after the last Read, so the next Read begins a new request
	answering atomic.Bool // a handler was called, and its answer has not ended
	stopped   atomic.Bool // see stopReading

	mu       sync.Mutex
	recorded []byte
}

func (c *recordingConn) Read(b []byte) (int, error) {
	if c.stopped.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.record(b[:n])
	}
	return n, err
}

// record keeps the last bytes of the current request, at most 2 * maxRecorded.
func (c *recordingConn) record(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrote.Swap(false) {
		c.wipe()
	}
	if len(b) > maxRecorded {
		b = b[len(b)-maxRecorded:]
	}
	if len(c.recorded)+len(b) > 2*maxRecorded {
		c.recorded = c.recorded[:copy(c.recorded, c.recorded[len(c.recorded)-maxRecorded:])]
	}
	c.recorded = append(c.recorded, b...)
}

// wipe clears the recorded bytes, which may contain credentials.
func (c *recordingConn) wipe() {
	clear(c.recorded)
	c.recorded = c.recorded[:0]
}

// Write looks for refusals of net/http only while no handler answers, so it does not inspect
// bodies.
func (c *recordingConn) Write(b []byte) (int, error) {
	c.wrote.Store(true)
	if !c.answering.Load() {
		if refusal := jsonRefusal(b); refusal != nil {
			if _, err := c.Conn.Write(refusal); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return c.Conn.Write(b)
}

// stopReading ends the connection after the answer to a request whose body is incomplete: every
// later Read returns [io.EOF].
func (c *recordingConn) stopReading() { c.stopped.Store(true) }

// CloseWrite sends the end of the stream. net/http calls it before it closes a connection on which
// the client may still send.
func (c *recordingConn) CloseWrite() error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.CloseWrite() // close_notify
	}
	return c.link.slot.conn.(*conn).CloseWrite()
}

// Close also wipes the recorded bytes. After stopReading it waits until the client has closed too,
// for at most lingerTime. A reset caused by late bytes of the body could discard the response
// before the client reads it.
func (c *recordingConn) Close() error {
	c.mu.Lock()
	c.wipe()
	c.mu.Unlock()
	if c.stopped.Swap(false) {
		c.link.slot.setDone() // the connection may now be evicted to make room for another one
		if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.link.slot.conn, maxDiscard)
		}
	}
	return c.Conn.Close()
}

// hasContentLength reports whether the recorded bytes have a Content-Length. It may find the header
// of another pipelined request. Then the request is refused too.
func (c *recordingConn) hasContentLength() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(bytes.ToLower(c.recorded), []byte("\ncontent-length:"))
}

// A recordingTLSConn has the method ConnectionState, from which net/http sets Request.TLS.
type recordingTLSConn struct {
	recordingConn
	tls *tls.Conn
}

// ConnectionState returns the state of the TLS connection.
func (c *recordingTLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

type connKey struct{}

// A connLink leads from a request to its connection.
type connLink struct {
	slot      *slot
	recording *recordingConn // nil: HTTP/2
}

// linked is a connection that has a link.
type linked interface{ linkOf() *connLink }

func (c *recordingConn) linkOf() *connLink { return &c.link }

// withConn is the ConnContext of the server: it adds the link of the connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(linked); ok {
		return context.WithValue(ctx, connKey{}, l.linkOf())
	}
	return ctx
}

// observeState is the ConnState of the servers: it updates the slot of a connection.
func observeState(c net.Conn, state http.ConnState) {
	l, ok := c.(linked)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		l.linkOf().slot.setBusy()
	case http.StateIdle:
		link := l.linkOf()
		link.slot.setDone()
		if link.recording != nil {
			link.recording.answering.Store(false)
		}
	}
}

// AmbiguousLength reports whether a request over HTTP/1 has both Transfer-Encoding and
// Content-Length. The handler must refuse it and close the connection.
func AmbiguousLength(r *http.Request) bool {
	if r.ProtoMajor != 1 || len(r.TransferEncoding) == 0 {
		return false
	}
	l, ok := r.Context().Value(connKey{}).(*connLink)
	return ok && l.recording != nil && l.recording.hasContentLength()
}
