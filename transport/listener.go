package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// listener passes the connections that admission has verified to the server of their protocol. It
// has no queue: give blocks until the server calls Accept.
type listener struct {
	addr net.Addr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

var _ net.Listener = (*listener)(nil)

func newListener(addr net.Addr) *listener {
	return &listener{addr: addr, ch: make(chan net.Conn), done: make(chan struct{})}
}

// give passes c to Accept. It returns false if the listener is closed.
func (l *listener) give(c net.Conn) bool {
	select {
	case l.ch <- c:
		return true
	case <-l.done:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close unblocks Accept and give. It is safe to call twice, and closes no connection.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// addr is an address that does not belong to a socket.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// errNotTLS is returned for a connection that does not begin with a ClientHello.
var errNotTLS = errors.New("not a TLS handshake")

// The first bytes of a TLS connection (RFC 8446 sections 4 and 5.1).
const (
	recordHeader    = 5
	recordHandshake = 22
	typeClientHello = 1
	maxRecord       = 1 << 14 // maximum length of a record after its header, in bytes
)

// readHello reads the first TLS record, which contains a ClientHello or its beginning. It returns
// the bytes read. The error wraps errNotTLS as soon as a byte cannot belong to a ClientHello. It
// buffers only the bytes that have arrived. TLS itself would wait for the whole record, and answer
// an unknown client with an alert.
func readHello(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, 512)
	for want := recordHeader; len(buf) < want; {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), want)])
		buf = buf[:len(buf)+n]
		if !beginsHello(buf) {
			return nil, fmt.Errorf("%w (got %.40q)", errNotTLS, buf[:min(len(buf), recordHeader+1)])
		}
		if len(buf) >= recordHeader {
			want = recordHeader + int(buf[3])<<8 + int(buf[4])
		}
		if err != nil && len(buf) < want {
			return nil, fmt.Errorf("no ClientHello (got %d bytes): %w", len(buf), err)
		}
	}
	return buf, nil
}

// beginsHello reports whether b may be the beginning of a TLS connection. It checks each byte as
// soon as it arrives, so a client of another protocol is refused immediately.
func beginsHello(b []byte) bool {
	for i, c := range b[:min(len(b), recordHeader+1)] {
		switch {
		case i == 0 && c != recordHandshake, i == 1 && c != 3, i == recordHeader && c != typeClientHello:
			return false
		case i == 4:
			if n := int(b[3])<<8 + int(b[4]); n == 0 || n > maxRecord {
				return false
			}
		}
	}
	return true
}

// replayConn is a connection whose first bytes were already read. TLS then reads the ClientHello as
// if nothing had been read.
type replayConn struct {
	net.Conn
	first []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	if c.first = c.first[n:]; len(c.first) == 0 {
		c.first = nil
	}
	return n, nil
}
