package simkit

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// A Network connects hosts in memory, below the real TLS, ALPN and framing. Like TCP, a connection
// does not lose, repeat or reorder bytes. A cut link holds data back until it heals or the
// connection times out. Writes never block, so the layers above hold no lock while time passes.
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[string]*Host
	links   map[linkKey]*link
	conns   map[*conn]struct{}
	changed chan struct{} // closed when a link or host changes
	Delay   time.Duration // minimum delay of one direction
	jitter  time.Duration
}

// A linkKey identifies a link by the numbers of its hosts, so a fault outlives the processes on
// them.
type linkKey struct{ from, to int }

// A link is one direction between two hosts.
type link struct {
	cuts int // number of faults that cut the link
	slow time.Duration
}

// A Host is the listener of one process of a node.
type Host struct {
	net     *Network
	k       int
	address string
	accept  chan net.Conn
	closed  chan struct{}
	once    sync.Once
	frozen  bool
	dead    bool
}

// NewNetwork returns a network whose delays come from rng.
func NewNetwork(rng *rand.Rand) *Network {
	return &Network{rng: rng, hosts: map[string]*Host{}, links: map[linkKey]*link{}, conns: map[*conn]struct{}{},
		changed: make(chan struct{}), Delay: 200 * time.Microsecond, jitter: 300 * time.Microsecond}
}

// An addr is the address of a host, as the nodes use it.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// Listen opens address on host k for a new process. It replaces the host of an earlier process at
// that address, which must be dead.
func (n *Network) Listen(k int, address string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{net: n, k: k, address: address, accept: make(chan net.Conn, 128), closed: make(chan struct{})}
	n.hosts[address] = h
	return h
}

// Accept implements net.Listener.
func (h *Host) Accept() (net.Conn, error) {
	select {
	case c := <-h.accept:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (h *Host) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *Host) Addr() net.Addr { return addr(h.address) }

// linkOf returns a link, which begins without faults. The caller holds the lock.
func (n *Network) linkOf(from, to int) *link {
	l := n.links[linkKey{from, to}]
	if l == nil {
		l = &link{}
		n.links[linkKey{from, to}] = l
	}
	return l
}

// announceChange wakes the dials that wait for a link or a host. The caller holds the lock.
func (n *Network) announceChange() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// transit returns the delay of one segment on a link. The caller holds the lock, which also guards
// the source of the random numbers.
func (n *Network) transit(l *link) time.Duration {
	d := n.Delay + time.Duration(n.rng.Int64N(int64(n.jitter)+1))
	if l.slow > 0 {
		d += time.Duration(n.rng.Int64N(int64(l.slow)))
	}
	return d
}

// Dial connects to address. It waits while a link between the hosts is cut. It fails immediately on
// a dead host, and for an address without a host.
func (h *Host) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	n := h.net
	for {
		n.mu.Lock()
		to := n.hosts[address]
		changed := n.changed
		if h.dead {
			n.mu.Unlock()
			return nil, syscall.ENETDOWN
		}
		if to != nil && !h.frozen && !to.frozen && n.linkOf(h.k, to.k).cuts == 0 && n.linkOf(to.k, h.k).cuts == 0 {
			wait := n.transit(n.linkOf(h.k, to.k)) + n.transit(n.linkOf(to.k, h.k))
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

// connect makes the two ends of a connection. As a kernel would, it refuses the connection if to
// does not listen, or the queue of its listener is full.
func (h *Host) connect(to *Host) (net.Conn, error) {
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
	there, back := newPipe(n, h, to), newPipe(n, to, h)
	a := &conn{net: n, host: h, in: back, out: there, local: addr(h.address), remote: addr(to.address)}
	b := &conn{net: n, host: to, in: there, out: back, local: addr(to.address), remote: addr(h.address)}
	select {
	case to.accept <- b:
	default:
		return nil, syscall.ECONNREFUSED
	}
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, nil
}

// errSilence is the error of a connection across a link that was cut for too long.
var errSilence = errors.New("simulated: connection timed out")

// breakConn fails both ends of a connection with err. The caller holds the lock. Segments in
// transit are lost.
func (n *Network) breakConn(c *conn, err error) {
	c.in.err, c.out.err = err, err
	c.in.wakeReader()
	c.out.wakeReader()
	delete(n.conns, c)
}

// Cut holds back all segments from one host to another until heal is called. Connections across it
// break after silenceTimeout, which is the TCP user timeout of the product's transport.
func (n *Network) Cut(from, to int) (heal func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.linkOf(from, to)
	l.cuts++
	on := true
	giveUp := time.AfterFunc(silenceTimeout, func() {
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
			n.release(func(p *pipe) bool { return p.from.k == from && p.to.k == to })
		}
		n.announceChange()
	}
}

// silenceTimeout has the value of Config.Silence of the product's transport.
const silenceTimeout = 4 * time.Second

// silence breaks the connections across a cut link. The caller holds the lock.
func (n *Network) silence(from, to int) {
	for c := range n.conns {
		if c.out.from.k == from && c.out.to.k == to || c.in.from.k == from && c.in.to.k == to {
			n.breakConn(c, errSilence)
		}
	}
}

// release delivers held segments in order, after a short delay, as retransmissions do. The caller
// holds the lock.
func (n *Network) release(which func(*pipe) bool) {
	now := time.Now()
	for c := range n.conns {
		p := c.out
		if !which(p) || p.from.frozen || n.linkOf(p.from.k, p.to.k).cuts > 0 {
			continue
		}
		at := now.Add(n.transit(n.linkOf(p.from.k, p.to.k)) + time.Duration(n.rng.Int64N(int64(200*time.Millisecond))))
		for i := range p.segs {
			if p.segs[i].stuck {
				if at.Before(p.last) {
					at = p.last
				}
				p.segs[i].stuck, p.segs[i].at, p.last = false, at, at
			}
		}
		p.wakeReader()
	}
}

// Freeze stops a host from sending and receiving until thaw is called. Its connections stay open,
// as those of a stopped process do; the peers notice the silence only above TCP.
func (n *Network) Freeze(h *Host) (thaw func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.frozen = true
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		h.frozen = false
		n.release(func(p *pipe) bool { return p.from == h })
		for c := range n.conns {
			if c.in.to == h {
				c.in.wakeReader()
			}
		}
		n.announceChange()
	}
}

// Kill kills the process or the machine of a host. When a process dies, the kernel still sends
// buffered data and closes connections. When the machine dies, nothing is sent, and the peers
// notice the death only after silenceTimeout.
func (n *Network) Kill(h *Host, machine bool) {
	n.mu.Lock()
	h.dead, h.frozen = true, false
	var later []*conn
	for c := range n.conns {
		switch {
		case c.host == h && machine:
			for i := range c.out.segs {
				c.out.segs[i].stuck = true
			}
			c.in.err = syscall.ECONNRESET
			c.in.wakeReader()
			delete(n.conns, c)
		case c.host == h:
			c.out.eof = true
			c.out.wakeReader()
			c.in.err = syscall.ECONNRESET
			c.in.wakeReader()
			delete(n.conns, c)
		case c.in.from == h && machine, c.out.to == h && machine:
			later = append(later, c)
		case c.out.to == h:
			c.out.err = syscall.ECONNRESET
		}
	}
	if n.hosts[h.address] == h {
		delete(n.hosts, h.address)
	}
	n.announceChange()
	n.mu.Unlock()
	_ = h.Close()
	if len(later) > 0 {
		time.AfterFunc(silenceTimeout, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, c := range later {
				n.breakConn(c, errSilence)
			}
		})
	}
}

// Reset breaks all connections between two hosts. The hosts may connect again immediately.
func (n *Network) Reset(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.out.from.k == a && c.out.to.k == b || c.out.from.k == b && c.out.to.k == a {
			n.breakConn(c, syscall.ECONNRESET)
		}
	}
}

// Slow delays every segment of a link by up to d. If d is 0, the delay ends. Segments keep their
// order.
func (n *Network) Slow(from, to int, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkOf(from, to).slow = d
}
