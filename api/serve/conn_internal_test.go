package serve

import (
	"errors"
	"net"
	"os"
	"testing"
)

// A cutConn sends half of the first write and fails. It counts later writes.
type cutConn struct {
	net.Conn
	writes int
}

func (c *cutConn) Write(b []byte) (int, error) {
	c.writes++
	if c.writes == 1 {
		return len(b) / 2, os.ErrDeadlineExceeded
	}
	return len(b), nil
}

// The peer must see the end of the stream after a part of a TLS record. A later record, such as
// close_notify, would complete that part to a record that the peer cannot decrypt.
func TestConn_WriteFailed_RefusesLaterWrites(t *testing.T) {
	below := &cutConn{}
	c := &conn{Conn: below}
	if n, err := c.Write(make([]byte, 10)); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("first write: got %d, %v, want 5 and the error", n, err)
	}
	for range 2 {
		if n, err := c.Write(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("later write: got %d, %v, want 0 and the first error", n, err)
		}
	}
	if below.writes != 1 {
		t.Errorf("got %d writes to the network, want 1", below.writes)
	}
}
