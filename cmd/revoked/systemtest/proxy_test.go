//go:build system

package systemtest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ALPN names of the protocols of the cluster port, which TLS sends in the clear.
const (
	raftStreams = "revoked-raft/1"
	nodeCalls   = "revoked-frames/1"
)

// A link carries all connections from one node to the cluster port of another. It delays each
// direction and can cut either protocol in either direction. A cut holds bytes without loss, like
// TCP: they arrive afterwards unless the ends have closed. Methods may be called concurrently.
type link struct {
	listener net.Listener
	dial     func() (net.Conn, error)
	wg       sync.WaitGroup
	held     atomic.Int64 // pieces held by a cut

	mu                  sync.Mutex
	ended               bool
	changed             chan struct{} // closed and replaced at each change
	there, back, jitter time.Duration
	rate                int // bytes per second in each direction of each connection; 0: no limit
	cuts                []*linkCut
	conns               map[*linkConn]struct{}
}

// A linkCut cuts one protocol, or all if protocol is empty.
type linkCut struct {
	protocol    string
	there, back bool
}

// A linkConn is one connection through a link.
type linkConn struct {
	near, far net.Conn // connections to the dialing and to the dialed node
	protocol  string
}

// startLink serves a link on listener until the end of the test or close. dial is nil if the
// connections come through carry.
func startLink(t testing.TB, listener net.Listener, dial func() (net.Conn, error)) *link {
	l := &link{listener: listener, dial: dial, changed: make(chan struct{}), conns: map[*linkConn]struct{}{}}
	if listener != nil {
		l.wg.Go(func() {
			for {
				near, err := listener.Accept()
				if err != nil {
					return
				}
				l.carry(near)
			}
		})
	}
	t.Cleanup(l.close)
	return l
}

// delay sets the latency from and to the dialing node; jitter adds a random delay up to its value.
// Bytes of a connection stay in order. A new connection costs one more round trip, as over a real
// link.
func (l *link) delay(there, back, jitter time.Duration) {
	l.change(func() { l.there, l.back, l.jitter = there, back, jitter })
}

// limit sets the bytes per second in each direction of a connection; 0 removes the limit.
func (l *link) limit(rate int) { l.change(func() { l.rate = rate }) }

// cut cuts a protocol ("" for all) in the given directions until undo or heal.
func (l *link) cut(protocol string, there, back bool) (undo func()) {
	c := &linkCut{protocol, there, back}
	l.change(func() { l.cuts = append(l.cuts, c) })
	return func() {
		l.change(func() { l.cuts = slices.DeleteFunc(l.cuts, func(other *linkCut) bool { return other == c }) })
	}
}

// heal ends every cut. Delay and rate stay.
func (l *link) heal() { l.change(func() { l.cuts = nil }) }

// reset resets every connection of a protocol ("" for all).
func (l *link) reset(protocol string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if protocol == "" || c.protocol == protocol {
			c.reset()
		}
	}
}

// close closes the link and all its connections and waits for its goroutines.
func (l *link) close() {
	if l.listener != nil {
		_ = l.listener.Close()
	}
	l.change(func() { l.ended = true })
	l.reset("")
	l.wg.Wait()
}

func (l *link) change(how func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how()
	close(l.changed)
	l.changed = make(chan struct{})
}

// holds reports whether a cut is active, and returns a channel that is closed when that may change.
func (l *link) holds(protocol string, there bool) (held, ended bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held = slices.ContainsFunc(l.cuts, func(c *linkCut) bool {
		return (c.protocol == "" || c.protocol == protocol) && (there && c.there || !there && c.back)
	})
	return held, l.ended, l.changed
}

// carry carries a connection that the dialing node opened.
func (l *link) carry(near net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = near.Close()
		return
	}
	c := &linkConn{near: near}
	l.conns[c] = struct{}{}
	l.wg.Go(func() {
		l.run(c)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
		_ = c.near.Close()
		if c.far != nil {
			_ = c.far.Close()
		}
	})
}

func (l *link) run(c *linkConn) {
	hello, protocol, err := readHello(c.near)
	if err != nil {
		return
	}
	far, err := l.dial()
	if err != nil {
		return
	}
	l.mu.Lock()
	c.far, c.protocol = far, protocol
	ended := l.ended
	setUp := l.there + l.back
	l.mu.Unlock()
	if ended {
		_ = far.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(c, true, hello, setUp) })
	both.Go(func() { l.pump(c, false, nil, 0) })
	both.Wait()
}

// A piece has the bytes of one read and their time of arrival. No bytes mark the end.
type piece struct {
	bytes []byte
	due   time.Time
}

// pump carries one direction of a connection to its end.
func (l *link) pump(c *linkConn, there bool, first []byte, setUp time.Duration) {
	from, to := c.near, c.far
	if !there {
		from, to = to, from
	}
	pieces := make(chan piece, 256)
	l.wg.Go(func() {
		defer close(pieces)
		last := time.Now()
		send := func(b []byte, more time.Duration) {
			last = l.due(last, len(b), there).Add(more)
			pieces <- piece{b, last}
		}
		if first != nil {
			send(first, setUp)
		}
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				send(b[:n], 0)
			}
			if err != nil {
				send(nil, 0)
				return
			}
		}
	})
	broken := false
	for p := range pieces { // drain the channel, so that the sender can return
		if broken = broken || !l.pass(c.protocol, there, p.due); broken {
			continue
		}
		if p.bytes == nil {
			closeWrite(to)
		} else if _, err := to.Write(p.bytes); err != nil {
			broken = true
			c.reset()
		}
	}
}

// due returns when a piece read now arrives; last is the arrival of the piece before it.
func (l *link) due(last time.Time, size int, there bool) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	delay := l.there
	if !there {
		delay = l.back
	}
	if l.jitter > 0 {
		delay += rand.N(l.jitter)
	}
	due := time.Now().Add(delay)
	if due.Before(last) {
		due = last
	}
	if l.rate > 0 {
		due = due.Add(time.Duration(size) * time.Second / time.Duration(l.rate))
	}
	return due
}

// pass waits until a piece may arrive. It returns false if the link closes first.
func (l *link) pass(protocol string, there bool, due time.Time) bool {
	met := false
	for {
		held, ended, changed := l.holds(protocol, there)
		if held && !met {
			met = true
			l.held.Add(1)
		}
		switch wait := time.Until(due); {
		case ended:
			return false
		case held:
			<-changed
		case wait > 0:
			select {
			case <-time.After(wait):
			case <-changed:
			}
		default:
			return true
		}
	}
}

// reset resets both sides of the connection.
func (c *linkConn) reset() {
	for _, end := range []net.Conn{c.near, c.far} {
		if tcp, ok := end.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		if end != nil {
			_ = end.Close()
		}
	}
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// readHello reads the ClientHello, which is in the clear. It returns the bytes, to be passed on,
// and the first offered protocol.
func readHello(c net.Conn) (hello []byte, protocol string, err error) {
	tee := &helloReader{Conn: c}
	seen := errors.New("seen")
	err = tls.Server(tee, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(h.SupportedProtos) > 0 {
			protocol = h.SupportedProtos[0]
		}
		return nil, seen
	}}).Handshake()
	if !errors.Is(err, seen) {
		return nil, "", err
	}
	return tee.read.Bytes(), protocol, nil
}

// A helloReader records the bytes read and discards writes.
type helloReader struct {
	net.Conn
	read bytes.Buffer
}

func (h *helloReader) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.read.Write(p[:n])
	return n, err
}

func (h *helloReader) Write(p []byte) (int, error) { return len(p), nil }
