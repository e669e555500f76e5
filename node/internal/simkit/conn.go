package simkit

import (
	"io"
	"net"
	"os"
	"time"
)

// A pipe is one direction of a connection. The network's lock guards it.
type pipe struct {
	net      *Network
	from, to *Host
	segs     []segment
	last     time.Time // arrival of the newest segment; segments arrive in order
	eof      bool      // the writer closed after the last segment
	err      error     // set if the connection broke
	wake     chan struct{}
	deadline time.Time
}

// A segment has the bytes of one Write. It arrives as a whole. Its time of arrival is fixed when it
// is sent, unless the link holds it.
type segment struct {
	at    time.Time
	stuck bool // held by a cut or a frozen host
	b     []byte
}

// newPipe returns one direction of a connection, with no data in transit.
func newPipe(n *Network, from, to *Host) *pipe {
	return &pipe{net: n, from: from, to: to, wake: make(chan struct{}, 1)}
}

// wakeReader makes a blocked Read check the pipe again. It never blocks: one value in wake is
// enough.
func (p *pipe) wakeReader() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// A conn is one end of a connection.
type conn struct {
	net           *Network
	host          *Host
	in, out       *pipe
	local, remote net.Addr
	closed        bool
}

var _ net.Conn = (*conn)(nil)

// LocalAddr implements net.Conn. The address has no port of its own, because no code distinguishes
// connections by it.
func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Write never blocks: bytes that cannot be sent wait in the pipe, as in an unlimited send buffer. A
// dead host accepts bytes and drops them.
func (c *conn) Write(b []byte) (int, error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	p := c.out
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case p.err != nil:
		return 0, p.err
	case c.host.dead:
		return len(b), nil
	}
	now := time.Now()
	s := segment{b: append([]byte(nil), b...)}
	l := n.linkOf(p.from.k, p.to.k)
	if l.cuts > 0 || p.from.frozen {
		s.stuck = true
	} else {
		s.at = now.Add(n.transit(l))
		if s.at.Before(p.last) {
			s.at = p.last
		}
		p.last = s.at
	}
	p.segs = append(p.segs, s)
	if len(p.segs) == 1 {
		p.wakeReader()
	}
	return len(b), nil
}

// ready copies the bytes of the segments that have arrived into b. If there are none, it returns
// how long to wait, or 0 to wait for a value in wake. The caller holds the network's lock.
func (p *pipe) ready(b []byte, closed bool) (n int, wait time.Duration, err error) {
	now := time.Now()
	if closed {
		return 0, 0, net.ErrClosed
	}
	if !p.deadline.IsZero() && !now.Before(p.deadline) {
		return 0, 0, os.ErrDeadlineExceeded
	}
	if !p.deadline.IsZero() {
		wait = p.deadline.Sub(now)
	}
	if p.err != nil {
		return 0, 0, p.err
	}
	if p.to.frozen {
		return 0, wait, nil
	}
	if len(p.segs) == 0 {
		if p.eof {
			return 0, 0, io.EOF
		}
		return 0, wait, nil
	}
	s := &p.segs[0]
	if s.stuck {
		return 0, wait, nil
	}
	if d := s.at.Sub(now); d > 0 {
		if wait == 0 || d < wait {
			wait = d
		}
		return 0, wait, nil
	}
	for n < len(b) && len(p.segs) > 0 && !p.segs[0].stuck && !p.segs[0].at.After(now) {
		s := &p.segs[0]
		m := copy(b[n:], s.b)
		n += m
		if s.b = s.b[m:]; len(s.b) == 0 {
			p.segs[0] = segment{}
			p.segs = p.segs[1:]
		}
	}
	return n, 0, nil
}

// Read blocks until a segment has arrived. It sleeps without the network's lock, so virtual time
// can pass.
func (c *conn) Read(b []byte) (int, error) {
	p := c.in
	for {
		c.net.mu.Lock()
		n, wait, err := p.ready(b, c.closed)
		c.net.mu.Unlock()
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if wait == 0 {
			<-p.wake
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-p.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// Close implements net.Conn. Written data still arrives before the peer reads EOF.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.net.conns, c)
	c.out.eof = true
	c.in.segs = nil
	c.in.wakeReader()
	c.out.wakeReader()
	return nil
}

// SetReadDeadline implements net.Conn. A Read that is already waiting uses the new deadline.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.in.deadline = t
	c.in.wakeReader()
	return nil
}

func (c *conn) SetWriteDeadline(time.Time) error { return nil } // writes never block
func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
