package transport

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/mutant"
)

// A safeTransport is Raft's own network transport without the two parts of it that are not safe:
//
//   - It ignores SetHeartbeatHandler, so that heartbeats go through Raft's main loop like everything
//     else (hashicorp/raft#695). With the fast path a term is adopted behind the back of a leader that
//     was just deposed, and the next write of one of its clients is stamped with that term.
//   - It declines pipelining (hashicorp/raft#612): a follower whose disk stalls can wedge it for good.
//
// It embeds the concrete type: embedding the interface would lose RequestPreVote, and with it
// pre-vote, without a word.
type safeTransport struct {
	*raft.NetworkTransport
	stream *streamLayer
}

var (
	_ raft.Transport   = (*safeTransport)(nil)
	_ raft.WithPreVote = (*safeTransport)(nil)
	_ raft.WithClose   = (*safeTransport)(nil)
	_ raft.StreamLayer = (*streamLayer)(nil)
)

// SetHeartbeatHandler does nothing.
func (s *safeTransport) SetHeartbeatHandler(handler func(raft.RPC)) {
	if mutant.On(mutant.HeartbeatHandler) {
		s.NetworkTransport.SetHeartbeatHandler(handler)
	}
}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported.
func (*safeTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// Close ends Raft's part of the port, and its connections in both directions. Raft calls it when it
// shuts down. The calls between nodes go on until Transport.Close.
func (s *safeTransport) Close() error {
	err := s.NetworkTransport.Close()
	s.CloseStreams()
	s.stream.conns.closeWhere(func(c *conn) bool { return c.raft })
	return err
}

// A streamLayer is Raft's share of the port.
type streamLayer struct {
	*listener
	dial func(ctx context.Context, hostport, wantNode, proto string) (*tls.Conn, *conn, error)
	// conns holds the connections of the whole port.
	conns *connSet
}

// Dial connects to the node that address names, and to no other.
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
	tc, below, err := s.dial(ctx, hostport, node, protoRaft)
	if err != nil {
		return nil, err
	}
	return &raftConn{Conn: tc, below: below}, nil
}

// A raftConn closes its TCP connection without the TLS farewell, which on a connection that was cut
// silently waits 5 s for room in the send buffer. Raft's messages say themselves where they end.
type raftConn struct {
	*tls.Conn
	below *conn
}

func (c *raftConn) Close() error { return c.below.Close() }
