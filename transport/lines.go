package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"revoked"
	"revoked/transport/frames"
)

// errOlder is returned for a peer that supports HTTP/2 but not frames.
var errOlder = errors.New("the peer supports only HTTP/2")

// olderTime is how long a peer is treated as one of version 0.3 after it has declined frames. In
// this time, calls do not try frames in vain. Afterwards they try again, because the peer may have
// been upgraded.
const olderTime = 30 * time.Second

// A line is the connection for all calls to one peer. It connects on the first call. All methods
// may be called concurrently.
type line struct {
	connect func() (*frames.Client, error) // returns a client that is not nil, or an error

	mu      sync.Mutex
	newest  *attempt  // nil before the first call
	older   time.Time // when the peer last declined frames
	retired bool
}

// An attempt is one try to connect to the peer. Its results are set before done is closed.
type attempt struct {
	done   chan struct{}
	client *frames.Client
	err    error
}

// get returns the client of a connection that has not ended. It returns errOlder if the peer
// supports only HTTP/2. Concurrent callers wait for the same attempt and get the same error.
func (l *line) get(ctx context.Context) (*frames.Client, error) {
	a, err := l.attempt()
	if err != nil {
		return nil, err
	}
	select {
	case <-a.done:
		return a.client, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// The method attempt returns the newest attempt if it is usable, and otherwise begins one. An
// attempt outlives the caller that began it, so that a caller with an early deadline does not make
// the others start again.
func (l *line) attempt() (*attempt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.retired:
		return nil, fmt.Errorf("%w: transport", revoked.ErrClosed)
	case l.isOlder():
		return nil, errOlder
	case l.newest != nil && l.newest.usable():
		return l.newest, nil
	}
	a := &attempt{done: make(chan struct{})}
	l.newest = a
	go func() { // ends after DialTimeout, or with the transport
		a.client, a.err = l.connect()
		close(a.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		if errors.Is(a.err, errOlder) {
			l.older = time.Now()
		}
		if l.retired && a.client != nil {
			a.client.Retire()
		}
	}()
	return a, nil
}

// usable reports whether the attempt is in progress, or its connection has not ended.
func (a *attempt) usable() bool {
	select {
	case <-a.done:
		return a.client != nil && !a.client.Ended()
	default:
		return true
	}
}

func (l *line) isOlder() bool { return !l.older.IsZero() && time.Since(l.older) < olderTime }

// speaksFrames reports whether to try frames. The result is a guess from the last attempt: the peer
// may have been upgraded since.
func (l *line) speaksFrames() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.isOlder()
}

// setOlder records that a stream found a peer without frames.
func (l *line) setOlder() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.older = time.Now()
}

// retire closes the connection once its calls have ended. An attempt in progress retires its own
// client.
func (l *line) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	if l.newest == nil {
		return
	}
	select {
	case <-l.newest.done:
		if l.newest.client != nil {
			l.newest.client.Retire()
		}
	default: // the goroutine of the attempt retires its client
	}
}

// connect opens a connection for calls, see open.
func (p *peers) connect(key peerKey) (*frames.Client, error) {
	c, err := p.open(context.Background(), key)
	if err != nil {
		return nil, err
	}
	return frames.NewClient(c, p.limits), nil
}

// open connects to a peer that supports frames and returns once the peer has accepted this node.
// With TLS 1.3 the dialing side completes its handshake before the peer has verified its
// certificate: a call sent before that verification may be lost. open returns errOlder for a peer
// of version 0.3.
func (p *peers) open(ctx context.Context, key peerKey) (net.Conn, error) {
	tc, below, err := p.dial(ctx, key.hostport, key.node, "", protoFrames, protoHTTP)
	if err != nil {
		return nil, err
	}
	if tc.ConnectionState().NegotiatedProtocol != protoFrames {
		_ = below.Close()
		return nil, errOlder
	}
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	defer stop()
	c := &abruptConn{Conn: tc, below: below}
	if err := frames.Accepted(c, p.dialTimeout); err != nil {
		_ = below.Close()
		return nil, fmt.Errorf("%s did not accept this node: %w", key.hostport, err)
	}
	return c, nil
}
