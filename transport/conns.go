package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The protocols of the port.
const (
	protoRaft   = "revoked-raft/1"
	protoFrames = "revoked-frames/1" // calls and streams, see frames
	protoHTTP   = "h2"               // calls and streams with a peer of version 0.3
)

// conn is a TCP connection with a peer, below TLS. It stays in its set until it is closed.
type conn struct {
	net.Conn
	set   *connSet
	once  sync.Once
	err   error
	timer *time.Timer // closes the connection when the peer's certificate expires; nil before the handshake

	// Set by adopt, under set.mu.
	chain []*x509.Certificate
	usage x509.ExtKeyUsage
	gauge prometheus.Gauge
	raft  bool
	node  string // the peer that counts in connSet.nodes; empty if outbound
}

// Read counts the bytes below TLS, so the metric includes the overhead of TLS.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.set.metrics.bytesIn.Add(float64(n))
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.set.metrics.bytesOut.Add(float64(n))
	return n, err
}

// Close closes the TCP connection immediately, without TLS close_notify. It is safe to call twice
// and concurrently.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		c.set.forget(c)
	})
	return c.err
}

// A dialFunc connects to wantNode at hostport, or to any node of the cluster if wantNode is empty.
// The connection is verified and adopted. The second result is the same connection below TLS.
type dialFunc func(ctx context.Context, hostport, wantNode, instance string, protos ...string) (*tls.Conn, *conn, error)

// connSet holds every open connection of a transport. All connections are closed when the transport
// closes, and those of Raft when Raft stops. A connection is also closed when the peer's
// certificate expires or no trusted CA verifies it any longer.
//
// Invariant: inbound is the sum of the counts in nodes, and each connection counts once, from adopt
// to forget.
type connSet struct {
	metrics *metrics
	mu      sync.Mutex
	conns   map[*conn]struct{}
	closed  bool
	limit   int            // limit for verified inbound connections; outbound connections are not limited here
	inbound int            // verified inbound connections
	nodes   map[string]int // verified inbound connections of each node
}

func newConnSet(m *metrics, limit int) *connSet {
	return &connSet{metrics: m, conns: make(map[*conn]struct{}), limit: limit, nodes: make(map[string]int)}
}

// add takes ownership of raw. It closes raw and returns nil if the set is closed. After add
// returns, Transport.Close closes the connection, even during its handshake.
func (s *connSet) add(raw net.Conn, usage x509.ExtKeyUsage) *conn {
	c := &conn{Conn: raw, set: s, usage: usage}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = raw.Close()
		return nil
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	return c
}

// adopt records the peer after the handshake, and closes the connection when the peer's certificate
// expires. It returns an error if the number of verified inbound connections has reached the limit,
// in total or for this node. node is empty for a connection that this node opened.
func (s *connSet) adopt(c *conn, node string, cs tls.ConnectionState) error {
	ends := cs.PeerCertificates[0].NotAfter
	for _, cert := range cs.PeerCertificates[1:] {
		if cert.NotAfter.Before(ends) {
			ends = cert.NotAfter
		}
	}
	direction, protocol := "out", "call"
	if c.usage == x509.ExtKeyUsageClientAuth {
		direction = "in"
	}
	if cs.NegotiatedProtocol == protoRaft {
		protocol = "raft"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return nil // already closed
	}
	if node != "" {
		switch perNode := max(s.limit/4, 1); {
		case s.nodes[node] >= perNode:
			return fmt.Errorf("node %s has too many connections (got %d, want at most %d)", node, s.nodes[node]+1, perNode)
		case s.inbound >= s.limit:
			return fmt.Errorf("too many connections (want at most %d)", s.limit)
		}
		c.node = node
		s.nodes[node]++
		s.inbound++
	}
	c.chain, c.raft = cs.PeerCertificates, protocol == "raft"
	c.gauge = s.metrics.conns.WithLabelValues(protocol, direction)
	c.gauge.Inc()
	c.timer = time.AfterFunc(time.Until(ends), func() { _ = c.Close() })
	return nil
}

// forget removes c and its counts. It is called once for each connection, by its Close.
func (s *connSet) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if c.node != "" {
		s.inbound--
		if s.nodes[c.node]--; s.nodes[c.node] == 0 {
			delete(s.nodes, c.node)
		}
	}
	if c.gauge != nil {
		c.gauge.Dec()
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// closeWhere closes the connections for which pick returns true. It holds the lock while calling
// pick. It closes them after it has released the lock, which forget needs.
func (s *connSet) closeWhere(pick func(*conn) bool) (n int) {
	s.mu.Lock()
	var doomed []*conn
	for c := range s.conns {
		if pick(c) {
			doomed = append(doomed, c)
		}
	}
	s.mu.Unlock()
	for _, c := range doomed {
		_ = c.Close()
	}
	return len(doomed)
}

// close closes every connection and refuses new ones.
func (s *connSet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closeWhere(func(*conn) bool { return true })
}

// An abruptConn closes its TCP connection without TLS close_notify, which waits up to 5 s for room
// in the send buffer of a broken connection. The protocols that use it delimit their messages, so
// they do not need close_notify.
type abruptConn struct {
	*tls.Conn
	below *conn
}

func (c *abruptConn) Close() error { return c.below.Close() }
