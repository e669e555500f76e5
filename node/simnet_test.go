package node

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A simNet is a network in memory under the real TLS, ALPN and framing. Like TCP it loses, repeats and
// reorders nothing within a connection: a link that is cut holds back what is sent until it heals or the
// connection is given up. Messages are repeated and reordered above it (simraft_test.go, simreplay_test.go).
// Writes never wait, so no lock of the layers above is ever held while time passes.
type simNet struct {
	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[string]*simHost
	links   map[simLinkKey]*simLink
	conns   map[*simConn]struct{}
	changed chan struct{} // closed when something was cut or healed
	delay   time.Duration // the least, one way
	jitter  time.Duration
}

type simLinkKey struct{ from, to int }

// A simLink is one direction between two hosts.
type simLink struct {
	cuts int // how many faults hold it
	slow time.Duration
}

// A simHost is where one life of a node listens.
type simHost struct {
	net    *simNet
	k      int
	addr   string
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	frozen bool
	dead   bool
}

func newSimNet(rng *rand.Rand) *simNet {
	return &simNet{rng: rng, hosts: map[string]*simHost{}, links: map[simLinkKey]*simLink{}, conns: map[*simConn]struct{}{},
		changed: make(chan struct{}), delay: 200 * time.Microsecond, jitter: 300 * time.Microsecond}
}

type simAddr string

func (simAddr) Network() string  { return "tcp" }
func (a simAddr) String() string { return string(a) }

// listen opens the port of host k for a new life.
func (n *simNet) listen(k int, addr string) *simHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &simHost{net: n, k: k, addr: addr, accept: make(chan net.Conn, 128), closed: make(chan struct{})}
	n.hosts[addr] = h
	return h
}

func (h *simHost) Accept() (net.Conn, error) {
	select {
	case c := <-h.accept:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *simHost) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *simHost) Addr() net.Addr { return simAddr(h.addr) }

func (n *simNet) link(from, to int) *simLink {
	l := n.links[simLinkKey{from, to}]
	if l == nil {
		l = &simLink{}
		n.links[simLinkKey{from, to}] = l
	}
	return l
}

func (n *simNet) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// transit is how long one segment takes on a link.
func (n *simNet) transit(l *simLink) time.Duration {
	d := n.delay + time.Duration(n.rng.Int64N(int64(n.jitter)+1))
	if l.slow > 0 {
		d += time.Duration(n.rng.Int64N(int64(l.slow)))
	}
	return d
}

// dial connects host h to an address, when the links in both directions let it.
func (h *simHost) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n := h.net
	for {
		n.mu.Lock()
		to := n.hosts[address]
		changed := n.changed
		if h.dead {
			n.mu.Unlock()
			return nil, syscall.ENETDOWN
		}
		if to != nil && !h.frozen && !to.frozen && n.link(h.k, to.k).cuts == 0 && n.link(to.k, h.k).cuts == 0 {
			wait := n.transit(n.link(h.k, to.k)) + n.transit(n.link(to.k, h.k))
			n.mu.Unlock()
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return h.connect(to)
		}
		n.mu.Unlock()
		if to == nil {
			return nil, syscall.ECONNREFUSED
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *simHost) connect(to *simHost) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if to.dead || h.dead {
		return nil, syscall.ECONNREFUSED
	}
	select {
	case <-to.closed:
		return nil, syscall.ECONNREFUSED
	default:
	}
	there, back := newSimPipe(n, h, to), newSimPipe(n, to, h)
	a := &simConn{net: n, host: h, in: back, out: there, local: simAddr(h.addr), remote: simAddr(to.addr)}
	b := &simConn{net: n, host: to, in: there, out: back, local: simAddr(to.addr), remote: simAddr(h.addr)}
	select {
	case to.accept <- b:
	default:
		return nil, syscall.ECONNREFUSED
	}
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, nil
}

// A simPipe is one direction of a connection. All of it is guarded by the network's lock.
type simPipe struct {
	net      *simNet
	from, to *simHost
	segs     []simSegment
	last     time.Time // no segment arrives before the one sent before it
	eof      bool      // the writer has closed, after the segments
	err      error     // the connection broke: at once
	wake     chan struct{}
	deadline time.Time
}

type simSegment struct {
	at    time.Time
	stuck bool // sent into a cut
	b     []byte
}

func newSimPipe(n *simNet, from, to *simHost) *simPipe {
	return &simPipe{net: n, from: from, to: to, wake: make(chan struct{}, 1)}
}

func (p *simPipe) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// A simConn is one end of a connection.
type simConn struct {
	net           *simNet
	host          *simHost
	in, out       *simPipe
	local, remote net.Addr
	closed        bool
}

var _ net.Conn = (*simConn)(nil)

func (c *simConn) LocalAddr() net.Addr  { return c.local }
func (c *simConn) RemoteAddr() net.Addr { return c.remote }

func (c *simConn) Write(b []byte) (int, error) {
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
	s := simSegment{b: append([]byte(nil), b...)}
	l := n.link(p.from.k, p.to.k)
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
		p.poke()
	}
	return len(b), nil
}

// ready returns what can be read now, or how long to wait for it; 0 for until something changes.
func (p *simPipe) ready(b []byte, closed bool) (n int, wait time.Duration, err error) {
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
			p.segs[0] = simSegment{}
			p.segs = p.segs[1:]
		}
	}
	return n, 0, nil
}

func (c *simConn) Read(b []byte) (int, error) {
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

// Close lets what was written arrive, then the other end reads the end.
func (c *simConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.net.conns, c)
	c.out.eof = true
	c.in.segs = nil
	c.in.poke()
	c.out.poke()
	return nil
}

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.in.deadline = t
	c.in.poke()
	return nil
}

func (c *simConn) SetWriteDeadline(time.Time) error { return nil } // writes never wait
func (c *simConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }

var errSilence = errors.New("simulated: connection timed out")

// broke ends a connection at both ends, at once. The lock is held.
func (n *simNet) broke(c *simConn, err error) {
	c.in.err, c.out.err = err, err
	c.in.poke()
	c.out.poke()
	delete(n.conns, c)
}

// cut holds back one direction until the returned function is called. Connections across it are given
// up after as long as the shipped transport has the kernel wait.
func (n *simNet) cut(from, to int) (heal func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	l.cuts++
	on := true
	giveUp := time.AfterFunc(simSilence, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if on {
			n.silence(from, to)
		}
	})
	return func() {
		giveUp.Stop()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !on {
			return
		}
		on = false
		if l.cuts--; l.cuts == 0 {
			n.release(func(p *simPipe) bool { return p.from.k == from && p.to.k == to })
		}
		n.announce()
	}
}

const simSilence = 4 * time.Second

// silence breaks the connections that have been silent over a cut link.
func (n *simNet) silence(from, to int) {
	for c := range n.conns {
		if c.out.from.k == from && c.out.to.k == to || c.in.from.k == from && c.in.to.k == to {
			n.broke(c, errSilence)
		}
	}
}

// release sends on what was held back, in order, as retransmissions do: within a moment.
func (n *simNet) release(which func(*simPipe) bool) {
	now := time.Now()
	for c := range n.conns {
		p := c.out
		if !which(p) || p.from.frozen || n.link(p.from.k, p.to.k).cuts > 0 {
			continue
		}
		at := now.Add(n.transit(n.link(p.from.k, p.to.k)) + time.Duration(n.rng.Int64N(int64(200*time.Millisecond))))
		for i := range p.segs {
			if p.segs[i].stuck {
				if at.Before(p.last) {
					at = p.last
				}
				p.segs[i].stuck, p.segs[i].at, p.last = false, at, at
			}
		}
		p.poke()
	}
}

// freeze keeps a host from sending and receiving until thawed.
func (n *simNet) freeze(h *simHost) (thaw func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.frozen = true
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		h.frozen = false
		n.release(func(p *simPipe) bool { return p.from == h })
		for c := range n.conns {
			if c.in.to == h {
				c.in.poke()
			}
		}
		n.announce()
	}
}

// kill ends a host. After the death of a process the kernel sends what it has, and the ends; after that
// of a machine, nothing: the others notice by the silence.
func (n *simNet) kill(h *simHost, machine bool) {
	n.mu.Lock()
	h.dead, h.frozen = true, false
	var later []*simConn
	for c := range n.conns {
		switch {
		case c.host == h && machine:
			for i := range c.out.segs {
				c.out.segs[i].stuck = true
			}
			c.in.err = syscall.ECONNRESET
			c.in.poke()
			delete(n.conns, c)
		case c.host == h:
			c.out.eof = true
			c.out.poke()
			c.in.err = syscall.ECONNRESET
			c.in.poke()
			delete(n.conns, c)
		case c.in.from == h && machine, c.out.to == h && machine:
			later = append(later, c)
		case c.out.to == h:
			c.out.err = syscall.ECONNRESET
		}
	}
	if n.hosts[h.addr] == h {
		delete(n.hosts, h.addr)
	}
	n.announce()
	n.mu.Unlock()
	h.Close()
	if len(later) > 0 {
		time.AfterFunc(simSilence, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, c := range later {
				n.broke(c, errSilence)
			}
		})
	}
}

// reset breaks all connections between two hosts.
func (n *simNet) reset(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.out.from.k == a && c.out.to.k == b || c.out.from.k == b && c.out.to.k == a {
			n.broke(c, syscall.ECONNRESET)
		}
	}
}

// slow adds up to d to every segment of a link.
func (n *simNet) slow(from, to int, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).slow = d
}
