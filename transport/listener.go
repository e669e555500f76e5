package transport

import (
	"net"
	"sync"
)

// A listener hands over connections that were accepted, and checked, elsewhere.
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

// give hands c over, or reports false when the listener is closed.
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

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// An addr is an address that is not one of a socket.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
