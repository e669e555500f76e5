package transport

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"revoked"
	"revoked/transport/frames"
)

// peerKey identifies one pool of connections. Streams over HTTP/2 have a separate pool, so that
// their frames do not queue behind the body of a large call.
type peerKey struct {
	node, hostport string
	streams        bool
}

// peer is the pool of connections to one node at one address.
type peer struct {
	line line
	http *http.Transport // for a peer that does not support frames
	used time.Time
}

func (p *peer) close() {
	p.line.retire()
	p.http.CloseIdleConnections()
}

// peers holds at most maxPeers pools and evicts the least recently used.
type peers struct {
	dial        dialFunc
	dialTimeout time.Duration
	limits      frames.Limits

	mu     sync.Mutex
	kept   map[peerKey]*peer
	closed bool
}

// get returns the pool of a peer. It creates the pool if necessary, and does not connect.
func (p *peers) get(key peerKey) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: transport", revoked.ErrClosed)
	}
	got, ok := p.kept[key]
	if !ok {
		if len(p.kept) >= maxPeers {
			p.evict()
		}
		got = &peer{http: p.newClient(key), line: line{connect: func() (*frames.Client, error) { return p.connect(key) }}}
		p.kept[key] = got
	}
	got.used = time.Now()
	return got, nil
}

// evict closes the least recently used pool. Its calls in progress continue, and their connection
// is closed when the last of them ends.
func (p *peers) evict() {
	var oldest peerKey
	var at time.Time
	for k, v := range p.kept {
		if at.IsZero() || v.used.Before(at) {
			oldest, at = k, v.used
		}
	}
	p.kept[oldest].close()
	delete(p.kept, oldest)
}

// close ends all pools. A later get returns revoked.ErrClosed.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for k, v := range p.kept {
		v.close()
		delete(p.kept, k)
	}
}

// newClient returns an HTTP/2 client that dials through open.
func (p *peers) newClient(key peerKey) *http.Transport {
	// For net/http the connections are HTTP/2 without TLS. open does TLS, because the peer must have
	// accepted the connection before net/http uses it.
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return open(ctx, p.dial, key.hostport, key.node, p.dialTimeout)
		},
		DisableCompression:     true,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 1 << 20,
			SendPingTimeout:           p.limits.Silence / 2,
			PingTimeout:               p.limits.Silence / 2,
			WriteByteTimeout:          p.limits.Silence,
		},
	}
}
