package serve

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Causes of a refusal at a limit, in metrics, logs and [Refusal].
const (
	causeConnections        = "connections"
	causeAddressConnections = "address_connections"
	causeRequests           = "requests"
	causeAddressRequests    = "address_requests"
	causeHeader             = "header"
)

// spareSlots is the number of connections beyond each limit. On these connections the server
// answers probes, and refuses every other request with the limit that was reached.
const spareSlots = 32

// A slotTable bounds the open connections: all of them, and those of one address. At a limit it
// closes the connection that has been idle the longest. If none is idle, the new connection gets a
// spare slot, and its requests are refused.
type slotTable struct {
	perAddress int
	exempt     []netip.Prefix // addresses without a limit of their own
	evicted    func()

	mu     sync.Mutex
	all    pool
	byAddr map[netip.Addr]*pool
	spare  map[string]*pool // by cause
	open   map[*slot]struct{}
	busy   int           // slots with a request
	http2  int           // slots of HTTP/2 connections
	change chan struct{} // nil, or closed when a slot becomes idle or free
}

// A pool counts slots below one limit. order lists them all. Slots without a request are in the
// order in which they became idle; slots with a request may be anywhere.
type pool struct {
	n, limit int
	busy     int // slots with a request
	order    list.List
}

func newSlotTable(limit, perAddress int, exempt []netip.Prefix) *slotTable {
	return &slotTable{
		perAddress: perAddress, exempt: exempt, evicted: func() {},
		all: pool{limit: limit}, byAddr: map[netip.Addr]*pool{}, open: map[*slot]struct{}{},
		spare: map[string]*pool{causeConnections: {limit: spareSlots}, causeAddressConnections: {limit: spareSlots}},
	}
}

// A slot is the place of one connection. It begins idle: a handshake and a header are not yet a
// request.
type slot struct {
	table   *slotTable
	conn    net.Conn
	addr    netip.Addr
	since   time.Time // when the slot was taken
	refused string    // cause for refusing its requests; empty: within the limits
	pools   []*pool
	places  []*list.Element // its elements in the lists of the pools
	busy    bool            // has a request
	used    bool            // a request has begun
	http2   bool
	free    bool
}

// take returns a slot for a connection from addr. It returns nil if even the spare slots are taken
// by connections with requests. It closes at most one other connection.
func (t *slotTable) take(c net.Conn, addr netip.Addr, now time.Time) *slot {
	s := &slot{table: t, conn: c, addr: addr, since: now}
	t.mu.Lock()
	closing := t.place(s)
	ok := s.pools != nil
	if ok {
		t.open[s] = struct{}{}
		for _, p := range s.pools {
			p.n++
			s.places = append(s.places, p.order.PushBack(s))
		}
	}
	t.mu.Unlock()
	if closing != nil {
		t.evicted()
		_ = closing.conn.Close() // outside the lock
	}
	if !ok {
		return nil
	}
	return s
}

// place chooses the pools of s and frees a slot if one of them is full.
func (t *slotTable) place(s *slot) (evicted *slot) {
	var own *pool
	if s.addr.IsValid() && !within(t.exempt, s.addr) {
		if own = t.byAddr[s.addr]; own == nil {
			own = &pool{limit: t.perAddress}
		}
		if own.n >= own.limit {
			if evicted = own.oldest(); evicted == nil {
				return t.placeSpare(s, causeAddressConnections)
			}
			evicted.drop()
		}
	}
	if t.all.n >= t.all.limit {
		if evicted = t.all.oldest(); evicted == nil {
			return t.placeSpare(s, causeConnections)
		}
		evicted.drop()
	}
	s.pools = []*pool{&t.all}
	if own != nil {
		t.byAddr[s.addr] = own
		s.pools = append(s.pools, own)
	}
	return evicted
}

// placeSpare gives s a place among the connections that are only refused. If all of these places
// are taken, it evicts the one that has been idle the longest. It needs mu.
func (t *slotTable) placeSpare(s *slot, cause string) (evicted *slot) {
	p := t.spare[cause]
	if p.n >= p.limit {
		if evicted = p.oldest(); evicted == nil {
			return nil
		}
		evicted.drop()
	}
	s.refused, s.pools = cause, []*pool{p}
	return evicted
}

// oldest returns the slot that has been idle the longest, or nil. It moves the busy slots in front
// of that slot to the end, so that the next search does not examine them again.
func (p *pool) oldest() *slot {
	for p.busy < p.n {
		front := p.order.Front()
		if s := front.Value.(*slot); !s.busy {
			return s
		}
		p.order.MoveToBack(front)
	}
	return nil
}

// setBusy marks the beginning of a request. A busy connection is not evicted to make room for
// another. Like setDone it allocates nothing: each request calls both.
func (s *slot) setBusy() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if s.free || s.busy {
		return
	}
	s.used = true
	s.setState(true, 1)
}

// setHTTP2 marks a connection of HTTP/2.
func (s *slot) setHTTP2() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if !s.free {
		s.http2 = true
		s.table.http2++
	}
}

// setDone marks the end of the last request in progress.
func (s *slot) setDone() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if s.free || !s.busy {
		return
	}
	s.setState(false, -1)
	for i, p := range s.pools {
		p.order.MoveToBack(s.places[i])
	}
	s.table.changed()
}

// setState sets busy and adds by to the counts of busy slots.
func (s *slot) setState(busy bool, by int) {
	s.busy = busy
	s.table.busy += by
	for _, p := range s.pools {
		p.busy += by
	}
}

// release frees the slot. It may be called twice.
func (s *slot) release() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.drop()
}

// drop frees the slot, once. It needs mu of the table.
func (s *slot) drop() {
	if s.free {
		return
	}
	s.free = true
	t := s.table
	if s.busy {
		s.setState(false, -1)
	}
	if s.http2 {
		t.http2--
	}
	delete(t.open, s)
	for i, p := range s.pools {
		p.order.Remove(s.places[i])
		if p.n--; p.n == 0 && p == t.byAddr[s.addr] {
			delete(t.byAddr, s.addr)
		}
	}
	t.changed()
}

// changed wakes await. It needs mu.
func (t *slotTable) changed() {
	if t.change != nil { // await blocks
		close(t.change)
		t.change = nil
	}
}

// counts returns the number of open connections, and how many of them are idle.
func (t *slotTable) counts() (open, idle int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open), len(t.open) - t.busy
}

// slotCounts are numbers of connections. A fresh connection is younger than freshTime and has had
// no request.
type slotCounts struct{ open, busy, fresh, http2 int }

// await blocks until ok returns true. If ctx ends first, it returns the error of ctx.
func (t *slotTable) await(ctx context.Context, ok func(slotCounts) bool) error {
	for {
		t.mu.Lock()
		n := slotCounts{open: len(t.open), busy: t.busy, http2: t.http2}
		now := time.Now()
		for s := range t.open {
			if !s.used && now.Sub(s.since) < freshTime {
				n.fresh++
			}
		}
		if t.change == nil {
			t.change = make(chan struct{})
		}
		change := t.change
		t.mu.Unlock()
		if ok(n) {
			return nil
		}
		select {
		case <-change:
		case <-time.After(freshTime / 20): // a fresh connection may have become too old
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// freshTime is the age up to which a connection without a request may have one on its way.
const freshTime = 2 * time.Second

// closeAll closes every connection.
func (t *slotTable) closeAll() {
	t.mu.Lock()
	conns := make([]net.Conn, 0, len(t.open))
	for s := range t.open {
		conns = append(conns, s.conn)
	}
	t.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// addressOf returns the address that a limit counts. For IPv6 it is a network of 64 bits, which one
// host may own (RFC 4291 section 2.5.4).
func addressOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return addressKey(tcp.AddrPort().Addr())
}

func addressKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// within reports whether one of networks overlaps the network that counts for addr.
func within(networks []netip.Prefix, addr netip.Addr) bool {
	counted := netip.PrefixFrom(addr, addrBits(addr))
	return slices.ContainsFunc(networks, counted.Overlaps)
}

// addrBits is the length of the network that addressKey keeps.
func addrBits(a netip.Addr) int {
	if a.Is6() {
		return 64
	}
	return a.BitLen()
}
