package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// maxTap is how many of the last bytes read a tap remembers: a request's header, and what net/http
// reads ahead.
const maxTap = maxHeaderBytes + 8<<10

// A tap is an HTTP/1 connection that remembers the header of the request at hand. net/http drops a
// Content-Length that comes beside Transfer-Encoding without telling; such a request is an attempt to
// make two servers disagree about where it ends (RFC 9112 section 6.3), and is refused. What net/http
// refuses by itself, as plain text, is sent as JSON.
type tap struct {
	net.Conn
	wrote atomic.Bool // since the last read returned: what is read next is a new request

	mu   sync.Mutex
	last []byte
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.record(b[:n])
	}
	return n, err
}

func (t *tap) record(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrote.Swap(false) {
		t.forget()
	}
	if len(b) > maxTap {
		b = b[len(b)-maxTap:]
	}
	if len(t.last)+len(b) > 2*maxTap {
		t.last = t.last[:copy(t.last, t.last[len(t.last)-maxTap:])]
	}
	t.last = append(t.last, b...)
}

// forget clears what is remembered: it holds credentials.
func (t *tap) forget() {
	clear(t.last)
	t.last = t.last[:0]
}

// Write sends b, or a refusal in JSON for one of net/http's own. Those are the first that is written since
// something was read: what streams is not looked at. Behind a request that was sent without waiting for
// the answer to the one before, they stay as they are.
func (t *tap) Write(b []byte) (int, error) {
	if !t.wrote.Swap(true) {
		if instead := refusal(b, time.Now()); instead != nil { // time.Now: as net/http dates its answers
			if _, err := t.Conn.Write(instead); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return t.Conn.Write(b)
}

// Close forgets what was read.
func (t *tap) Close() error {
	t.mu.Lock()
	t.forget()
	t.mu.Unlock()
	return t.Conn.Close()
}

// ambiguous reports whether a Content-Length was among the bytes of the request at hand. With
// pipelining it may be that of a neighbour: erring is harmless there.
func (t *tap) ambiguous() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(bytes.ToLower(t.last), []byte("\ncontent-length:"))
}

// A tlsTap is a tap on a TLS connection. ConnectionState makes net/http set Request.TLS.
type tlsTap struct {
	tap
	tls *tls.Conn
}

// ConnectionState returns the state of the TLS connection.
func (t *tlsTap) ConnectionState() tls.ConnectionState { return t.tls.ConnectionState() }

type tapKey struct{}

// withTap makes the tap of a connection known to its requests.
func withTap(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *tap:
		return context.WithValue(ctx, tapKey{}, c)
	case *tlsTap:
		return context.WithValue(ctx, tapKey{}, &c.tap)
	}
	return ctx
}

// ambiguousLength reports whether a chunked request also came with a Content-Length.
func ambiguousLength(r *http.Request) bool {
	t, ok := r.Context().Value(tapKey{}).(*tap)
	return ok && t.ambiguous()
}
