package transport

import (
	"fmt"
	"io"
	"sync"

	"revoked/transport/frames"
)

// ErrTooLarge is returned for a frame, a request or an answer beyond its limit.
var ErrTooLarge = frames.ErrTooLarge

// loads counts the calls that each peer has in progress on this node, so that one peer cannot use
// up the memory of the node.
type loads struct {
	maxCalls int   // limit for the calls in progress of one peer, over all of its connections
	maxBytes int64 // limit for the bodies of these calls together

	mu sync.Mutex
	of map[string]*load // by node
}

// load has the counts of one peer.
type load struct {
	calls int
	bytes int64
}

// newLoads returns loads without calls. maxBytes is also the limit of one body, so a peer may
// always send one call of the largest size.
func newLoads(maxCalls int, maxBytes int64) *loads {
	return &loads{maxCalls: maxCalls, maxBytes: maxBytes, of: make(map[string]*load)}
}

// begin counts a call. It returns false if the peer has too many in progress.
func (l *loads) begin(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of[node]
	if p == nil {
		p = &load{}
		l.of[node] = p
	}
	if p.calls >= l.maxCalls {
		return false
	}
	p.calls++
	return true
}

// add counts n bytes of a body. It returns an error if the peer has too many bytes in progress.
// begin must have counted the call. The bytes count even if add returns an error; end subtracts
// them.
func (l *loads) add(node string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of[node]
	p.bytes += n
	if p.bytes > l.maxBytes {
		return fmt.Errorf("%w: bodies of calls in progress from node %s (want at most %d bytes)",
			ErrTooLarge, node, l.maxBytes)
	}
	return nil
}

// end ends a call whose body had n bytes.
func (l *loads) end(node string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of[node]
	p.bytes -= n
	if p.calls--; p.calls == 0 {
		delete(l.of, node)
	}
}

// A boundedBody is a request body whose Read returns ErrTooLarge beyond the limit for one body, or
// for all bodies of the peer. ServeStream removes both limits. One goroutine at a time may read.
type boundedBody struct {
	io.ReadCloser
	loads     *loads
	node      string
	max, read int64
	unlimited bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.unlimited {
		return b.ReadCloser.Read(p)
	}
	if b.read > b.max {
		return 0, fmt.Errorf("%w: body (want at most %d bytes)", ErrTooLarge, b.max)
	}
	if left := b.max - b.read; int64(len(p)) > left+1 {
		p = p[:left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	busy := b.loads.add(b.node, int64(n))
	switch {
	case b.read > b.max:
		return max(n-1, 0), fmt.Errorf("%w: body (want at most %d bytes)", ErrTooLarge, b.max)
	case busy != nil:
		return n, busy
	}
	return n, err
}
