package serve

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A connection that waits in the queue is accepted, but a new one is refused. Otherwise the kernel
// resets connections that arrive while the listener closes, and their requests are lost.
func TestRefuseNewConnections_KeepsTheQueue(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	early, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	if got := waiting(l); got != 1 {
		t.Errorf("waiting: got %d, want 1", got)
	}
	refuseNewConnections(l)
	if late, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: got error %v, want ECONNREFUSED", err)
		if err == nil {
			late.Close()
		}
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := early.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("the queued connection: got %d bytes, error %v, want 1", n, err)
	}
	if got := waiting(l); got != 0 {
		t.Errorf("waiting: got %d, want 0", got)
	}
}
