package serve

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A conn is an accepted TCP connection, below TLS. It holds a slot until Close.
//
// A write that fails may have sent a part of a TLS record. crypto/tls still sends a close_notify
// after the failed write, which the peer would decrypt together with that part and report as "bad
// record MAC". So every write after a failed one fails too.
type conn struct {
	net.Conn
	peeked []byte // bytes that negotiate has read; Read returns them first
	slot   *slot
	failed atomic.Pointer[error] // error of the first failed write

	readBy, writeBy deadline
}

// Read returns the peeked bytes first, so that TLS or HTTP sees the stream from its beginning.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.peeked) > 0 && len(b) > 0 {
		n := copy(b, c.peeked)
		if c.peeked = c.peeked[n:]; len(c.peeked) == 0 {
			c.peeked = nil
		}
		return n, nil
	}
	for {
		n, err := c.Conn.Read(b)
		if n > 0 || err == nil || !c.readBy.early(err, c.Conn.SetReadDeadline) {
			return n, err
		}
	}
}

// After a Write has failed or was short, every later Write returns the error of that first failure.
// It may be called concurrently.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.failed.Load(); err != nil {
		return 0, *err
	}
	n, err := c.Conn.Write(b)
	for err != nil && c.writeBy.early(err, c.Conn.SetWriteDeadline) {
		var more int
		more, err = c.Conn.Write(b[n:])
		n += more
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		first := err // a copy: the address of err would make every write allocate
		c.failed.CompareAndSwap(nil, &first)
	}
	return n, err
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn]. It may return nil for a closed connection.
func (c *conn) SetReadDeadline(t time.Time) error { return c.readBy.set(t, c.Conn.SetReadDeadline) }

// SetWriteDeadline implements [net.Conn]. It may return nil for a closed connection.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.writeBy.set(t, c.Conn.SetWriteDeadline) }

// CloseWrite closes the sending side of the connection, if the transport supports that.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close also releases the slot. It may be called twice.
func (c *conn) Close() error {
	c.slot.release()
	return c.Conn.Close()
}
