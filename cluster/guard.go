package cluster

import (
	"bytes"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"

	"revoked/internal/slots"
)

// Limits of the gossip port.
const (
	maxWaiting       = 32 // streams whose message has not arrived
	maxWaitingSource = 16 // waiting streams of one source address
	maxServing       = 64 // streams that memberlist is answering
	indirectPerSec   = 50 // indirect pings, each of which costs a goroutine for up to 3 s
)

// guard is the memberlist transport. It passes on only messages that are bound to the cluster's id
// and encrypted with its key. They must also have the form that nodes of this program send. See
// DESIGN.md.
//
// memberlist decodes messages before it authenticates them, and allocates sizes that the sender
// chooses. So the guard decrypts and inspects each message first, and memberlist decrypts it again.
type guard struct {
	*memberlist.NetTransport
	opener  *opener
	log     *log.Logger
	metrics *Metrics

	packets  chan *memberlist.Packet
	streams  chan net.Conn
	waiting  *slots.Set
	indirect *rate.Limiter

	done    chan struct{} // closed by Shutdown: memberlist gets no further messages
	drained chan struct{} // closed after the library's transport has stopped
	pumps   sync.WaitGroup
	once    sync.Once
	err     error

	mu      sync.Mutex
	order   uint64
	serving int
	conns   map[*inbound]struct{}
	closed  bool
}

var _ memberlist.NodeAwareTransport = (*guard)(nil)

// newGuard binds the port of mc, TCP and UDP. If the port is 0, it writes the bound port to mc.
// The port is open on return, but messages wait until memberlist receives from PacketCh and
// StreamCh.
func newGuard(mc *memberlist.Config, o *opener, m *Metrics) (*guard, error) {
	nc := &memberlist.NetTransportConfig{BindAddrs: []string{mc.BindAddr}, BindPort: mc.BindPort, Logger: mc.Logger}
	nt, err := memberlist.NewNetTransport(nc)
	for tries := 1; err != nil && mc.BindPort == 0 && tries < 10; tries++ { // the UDP port may be in use
		nt, err = memberlist.NewNetTransport(nc)
	}
	if err != nil {
		return nil, err
	}
	if mc.BindPort == 0 {
		mc.BindPort = nt.GetAutoBindPort()
		mc.AdvertisePort = mc.BindPort
	}
	g := &guard{
		NetTransport: nt, opener: o, log: mc.Logger, metrics: m,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		waiting:  slots.New(slots.Limits{Total: maxWaiting, Strangers: maxWaiting, PerSource: maxWaitingSource}),
		indirect: rate.NewLimiter(indirectPerSec, 2*indirectPerSec),
		done:     make(chan struct{}), drained: make(chan struct{}), conns: make(map[*inbound]struct{}),
	}
	g.pumps.Go(g.pumpPackets)
	g.pumps.Go(g.pumpStreams)
	return g, nil
}

// PacketCh implements memberlist.Transport.
func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *guard) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown implements memberlist.Transport. It closes the port and all inbound connections, and
// waits for the goroutines. It is safe to call twice.
func (g *guard) Shutdown() error {
	g.once.Do(func() {
		close(g.done)
		g.err = g.NetTransport.Shutdown() // waits until the pumps have taken its last messages
		close(g.drained)
		g.mu.Lock()
		g.closed = true
		var open []*inbound
		for c := range g.conns {
			open = append(open, c)
		}
		g.mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	g.pumps.Wait()
	return g.err
}

// pumpPackets inspects packets, one at a time, until the library's transport has stopped. A refused
// packet costs only its decryption and a rate-limited log line.
func (g *guard) pumpPackets() {
	for {
		select {
		case p := <-g.NetTransport.PacketCh():
			if err := g.checkPacket(p.Buf); err != nil {
				g.refuse("packet", p.From, err)
				continue
			}
			p.Buf = bytes.Clone(p.Buf) // the library's buffer has 64 KiB
			select {
			case g.packets <- p:
			case <-g.done:
			}
		case <-g.drained:
			return
		}
	}
}

// checkPacket returns the reason to refuse a packet, or nil. The rate of indirect pings is limited
// for all senders together, because a holder of the key can forge the sender.
func (g *guard) checkPacket(b []byte) error {
	plain, err := g.opener.packet(b)
	if err != nil {
		return err
	}
	indirect, err := inspectPacket(plain)
	if err == nil && indirect > 0 && !g.indirect.Allow() {
		return errIndirect
	}
	return err
}

// pumpStreams starts a goroutine for each inbound connection. If too many connections wait for
// their message, package slots chooses one to close, fairly by source.
func (g *guard) pumpStreams() {
	for {
		select {
		case raw := <-g.NetTransport.StreamCh():
			g.mu.Lock()
			if g.closed {
				g.mu.Unlock()
				_ = raw.Close()
				continue
			}
			g.order++
			c := &inbound{Conn: raw, guard: g, order: g.order}
			g.conns[c] = struct{}{}
			g.mu.Unlock()
			slot := g.waiting.Take(slots.Waiter{Source: slots.Source(raw.RemoteAddr()), Order: c.order, Evict: c.evict})
			g.pumps.Go(func() { g.receive(c, slot) })
		case <-g.drained:
			return
		}
	}
}

// receive reads the message of an inbound stream and passes the stream to memberlist. It returns
// once memberlist has the stream, or the stream is closed.
func (g *guard) receive(c *inbound, slot *slots.Slot) {
	raw, plain, err := g.opener.request(c.Conn)
	if !slot.Release() {
		err = errDisplaced
	}
	if err == nil {
		err = inspectRequest(plain)
	}
	if err == nil && !g.serve(c) {
		err = errFull
	}
	if err != nil {
		_ = c.Close()
		g.refuse("stream", c.RemoteAddr(), err)
		return
	}
	c.message = bytes.NewReader(raw)
	select {
	case g.streams <- c:
	case <-g.done:
		_ = c.Close()
	}
}

// serve counts a stream that memberlist will answer. It returns false if there are too many.
func (g *guard) serve(c *inbound) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.serving >= maxServing {
		return false
	}
	if _, open := g.conns[c]; open {
		g.serving++
		c.served = true
	}
	return true
}

// refuse counts and logs a refusal. It is silent during Shutdown, when every open connection fails.
func (g *guard) refuse(what string, from net.Addr, err error) {
	select {
	case <-g.done:
		return
	default:
	}
	g.metrics.refuse(reasonOf(err))
	g.log.Printf("[WARN] memberlist: refused a %s: %v from=%s", what, err, from)
}

// inbound is a connection that another process opened. Its reads return the inspected message.
type inbound struct {
	net.Conn
	guard   *guard
	order   uint64
	served  bool // under guard.mu
	message io.Reader
}

// Read returns the bytes of the message and then io.EOF.
func (c *inbound) Read(p []byte) (int, error) { return c.message.Read(p) }

// Close implements net.Conn. It is safe to call twice.
func (c *inbound) Close() error {
	c.guard.mu.Lock()
	delete(c.guard.conns, c)
	if c.served {
		c.served = false
		c.guard.serving--
	}
	c.guard.mu.Unlock()
	return c.Conn.Close()
}

// evict closes a connection that lost its slot, so that its read fails.
func (c *inbound) evict() { _ = c.Close() }

// DialTimeout implements memberlist.Transport.
func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (g *guard) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := g.NetTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return &outbound{Conn: c, guard: g}, nil
}

// outbound is a connection to another node. One goroutine at a time may read. Its reads return the
// answer after it was inspected.
type outbound struct {
	net.Conn
	guard  *guard
	answer io.Reader // nil before the first read
}

// Read returns the bytes of the answer and then io.EOF.
func (c *outbound) Read(p []byte) (int, error) {
	if c.answer == nil {
		raw, plain, err := c.guard.opener.message(c.Conn, func() {})
		if err == nil {
			err = inspectReply(plain)
		}
		if err != nil {
			if reason := reasonOf(err); reason != reasonSilent {
				c.guard.metrics.refuse(reason)
			}
			c.answer = strings.NewReader("")
			return 0, err
		}
		c.answer = bytes.NewReader(raw)
	}
	return c.answer.Read(p)
}
