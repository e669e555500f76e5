package transport

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A conn is a TCP connection with a peer, below TLS. It is known to its set until it is closed.
type conn struct {
	net.Conn
	set   *connSet
	once  sync.Once
	err   error
	timer *time.Timer // closes at the end of the peer's certificate; nil before the handshake

	// Set by adopt, under set.mu.
	chain []*x509.Certificate
	usage x509.ExtKeyUsage
	gauge prometheus.Gauge
	raft  bool
}

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

// Close closes the TCP connection at once, whatever TLS still had to say. Safe at any time, and twice.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		c.set.forget(c)
	})
	return c.err
}

// A connSet is every open connection of a transport, so that all of them can be closed: on Close,
// when Raft stops, when a certificate ends, when the CA no longer vouches for a peer.
type connSet struct {
	metrics *metrics
	mu      sync.Mutex
	conns   map[*conn]struct{}
	closed  bool
	limit   int // of inbound connections; the others are as many as this node opens
	inbound int
}

func newConnSet(m *metrics, limit int) *connSet {
	return &connSet{metrics: m, conns: make(map[*conn]struct{}), limit: limit}
}

// add takes over raw. It returns nil, with raw closed, when the set is closed or full.
func (s *connSet) add(raw net.Conn, usage x509.ExtKeyUsage) *conn {
	c := &conn{Conn: raw, set: s, usage: usage}
	in := usage == x509.ExtKeyUsageClientAuth
	s.mu.Lock()
	if s.closed || in && s.inbound >= s.limit {
		s.mu.Unlock()
		_ = raw.Close()
		return nil
	}
	s.conns[c] = struct{}{}
	if in {
		s.inbound++
	}
	s.mu.Unlock()
	return c
}

// adopt notes who the peer is after the handshake, and closes the connection when the peer's
// certificate ends.
func (s *connSet) adopt(c *conn, cs tls.ConnectionState) {
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
		return // closed meanwhile
	}
	c.chain, c.raft = cs.PeerCertificates, protocol == "raft"
	c.gauge = s.metrics.conns.WithLabelValues(protocol, direction)
	c.gauge.Inc()
	c.timer = time.AfterFunc(time.Until(ends), func() { _ = c.Close() })
}

func (s *connSet) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if c.usage == x509.ExtKeyUsageClientAuth {
		s.inbound--
	}
	if c.gauge != nil {
		c.gauge.Dec()
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// closeWhere closes the connections for which pick, called under the lock, is true.
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

// close closes every connection and takes no new one.
func (s *connSet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closeWhere(func(*conn) bool { return true })
}
