package serve

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// Every request passes through a conn, so its bookkeeping must not allocate.
func TestConn_RequestAndWrite_AllocateNothing(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	table := newSlotTable(2, 2, nil)
	c := &conn{Conn: discardConn{near}}
	c.slot = table.take(c, netip.MustParseAddr("192.0.2.1"), time.Now())
	answer := []byte("HTTP/1.1 200 OK\r\n")
	allocs := testing.AllocsPerRun(100, func() {
		c.slot.setBusy()
		if _, err := c.Write(answer); err != nil {
			t.Error(err)
		}
		c.slot.setDone()
	})
	if allocs != 0 {
		t.Errorf("got %v allocations a request, want 0", allocs)
	}
}

// A discardConn accepts every write.
type discardConn struct{ net.Conn }

func (discardConn) Write(b []byte) (int, error) { return len(b), nil }

// A full table closes the connection that has been idle the longest, whatever requests came and
// went in between. It never closes one with a request.
func TestSlots_Full_ClosesLongestIdle(t *testing.T) {
	table := newSlotTable(4, 4, nil)
	addr := netip.MustParseAddr("192.0.2.1")
	taken := map[*slot]string{}
	take := func(name string) *slot {
		near, _ := net.Pipe()
		s := table.take(near, addr, time.Now())
		if s == nil {
			t.Fatalf("%s: got no slot", name)
		}
		taken[s] = name
		return s
	}
	a, b, c, d := take("a"), take("b"), take("c"), take("d")
	a.setBusy()
	b.setBusy()
	c.setBusy()
	c.setDone() // c became idle after d
	want := func(name string, closed *slot) {
		t.Helper()
		take(name)
		for s, n := range taken {
			if s.free != (s == closed) {
				t.Errorf("slot %s next to %s: got closed %v, want %v", n, name, s.free, s == closed)
			}
		}
		delete(taken, closed)
	}
	want("e", d)
	a.setDone()
	want("f", c)
	for s, n := range taken {
		if n == "e" || n == "f" {
			s.setBusy()
		}
	}
	want("g", a)
	for s := range taken {
		s.setBusy()
	}
	if s := take("spare"); s.refused != causeAddressConnections {
		t.Errorf("all busy: got refused %q, want %q", s.refused, causeAddressConnections)
	}
}
