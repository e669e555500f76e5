package stream

import (
	"sync"
	"time"
)

const (
	gateFree    = 32 << 10 // bytes; a client's initial window is 65,535 (RFC 9113 section 6.9.2)
	gateSilence = 250 * time.Millisecond
)

// A flowGate delays parts of an HTTP/2 answer while the body is still arriving.
//
// In net/http, updates of the client's send window queue behind data of the same stream that the
// client's receive window does not accept. A client that sends before it reads would deadlock with
// the server. So the gate lets gateFree bytes pass before the body has ended. It lets more pass
// once all bytes of the client were read and none has arrived for gateSilence. The client may then
// be waiting for results. A client that then sends more than its window and reads nothing runs into
// the idle timeout. While the body waits for room in the spool, the gate lets everything pass.
//
// HTTP/1.1 has no such limit. The methods of a nil gate do nothing.
type flowGate struct {
	ended chan struct{} // closed when the body has ended

	mu      sync.Mutex
	sent    int
	stalled bool      // the body is not read until the client has read results
	reading time.Time // start of the blocked Read of the body; zero if none is blocked
}

func newFlowGate() *flowGate { return &flowGate{ended: make(chan struct{})} }

func (g *flowGate) readBegins() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.reading = time.Now()
	g.mu.Unlock()
}

func (g *flowGate) readEnds(err error) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading = time.Time{}
	if err == nil {
		return
	}
	select {
	case <-g.ended:
	default:
		close(g.ended)
	}
}

func (g *flowGate) setStalled(stalled bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.stalled = stalled
	g.mu.Unlock()
}

// wait blocks until n bytes may be sent.
func (g *flowGate) wait(n int) {
	if g == nil || g.open(n) {
		return
	}
	tick := time.NewTicker(gateSilence / 5)
	defer tick.Stop()
	for {
		select {
		case <-g.ended:
			return
		case <-tick.C:
			if g.open(n) {
				return
			}
		}
	}
}

func (g *flowGate) open(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stalled && g.sent+n > gateFree && (g.reading.IsZero() || time.Since(g.reading) < gateSilence) {
		return false
	}
	g.sent += n
	return true
}
