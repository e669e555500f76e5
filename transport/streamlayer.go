package transport

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport/saferaft"
)

// A streamLayer accepts and dials Raft's connections on the port.
type streamLayer struct {
	*listener
	dial  dialFunc
	conns *connSet // connections of the whole port
}

var _ saferaft.Stream = (*streamLayer)(nil)

// Done implements saferaft.Stream.
func (s *streamLayer) Done() <-chan struct{} { return s.done }

// CloseConns implements saferaft.Stream.
func (s *streamLayer) CloseConns() { s.conns.closeWhere(func(c *conn) bool { return c.raft }) }

// Dial connects to the node and the instance in address. It returns an error if another node or
// instance answers. Raft keeps the connection in its pool and dials again after an error. If
// timeout is 0, only DialTimeout applies.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, hostport, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.done:
		return nil, raft.ErrTransportShutdown
	default:
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	tc, below, err := s.dial(ctx, hostport, node, instanceOf(address), protoRaft)
	if err != nil {
		return nil, err
	}
	return &abruptConn{Conn: tc, below: below}, nil
}

// A Contact records when Raft messages between this node and a server last arrived or failed.
type Contact = saferaft.Contact

// A VoteGuard exchanges notes between a candidate and the voters. A note is a part of a vote
// request that Raft does not read.
type VoteGuard = saferaft.VoteGuard
