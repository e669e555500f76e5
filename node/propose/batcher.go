package propose

import (
	"context"
	"fmt"
	"time"

	"revoked"
)

// Bounds of one log entry and of the queue in front of it.
const (
	maxEntryOps   = 1024
	maxEntryBytes = 512 << 10
	maxQueue      = 16 << 10 // maximum number of queued proposals
)

// A batcher queues proposals and returns them in batches. All methods may be called concurrently,
// except next.
type batcher struct {
	queue  chan *proposal
	demand demand
}

func newBatcher() batcher { return batcher{queue: make(chan *proposal, maxQueue)} }

// push queues p without blocking, or returns ErrOverloaded if the queue is full.
func (b *batcher) push(p *proposal) error {
	b.demand.queued(p.weight())
	select {
	case b.queue <- p:
		return nil
	default:
		b.demand.queued(-p.weight())
		return fmt.Errorf("%w: %d proposals are queued", revoked.ErrOverloaded, maxQueue)
	}
}

// enter counts p as outstanding until leave is called.
func (b *batcher) enter(p *proposal) { b.demand.change(p.weight()) }
func (b *batcher) leave(p *proposal) { b.demand.change(-p.weight()) }

// A batch is the content of one log entry, or of one call to the leader.
type batch struct {
	proposals          []*proposal
	ops, bytes, weight int
}

func (b *batch) add(p *proposal) {
	b.proposals = append(b.proposals, p)
	b.ops += len(p.ops)
	b.bytes += p.bytes
	b.weight += p.weight()
}

func (b *batch) full() bool { return b.ops >= maxEntryOps || b.bytes >= maxEntryBytes }

// next blocks until a proposal is queued and returns the batch. If no proposal is queued and it
// receives from other, it returns nil. It reports false once ctx has ended. The parameter most
// limits how long next waits for further proposals.
func (b *batcher) next(ctx context.Context, other <-chan struct{}, most time.Duration) (*batch, bool) {
	next := &batch{}
	if len(b.queue) > 0 {
		other = nil
	}
	began := time.Now()
	select {
	case p := <-b.queue:
		next.add(p)
	case <-other:
		return nil, true
	case <-ctx.Done():
		return nil, false
	}
	idle := time.Since(began)
	b.drain(next)
	if expected := b.demand.begin(idle); expected >= minExpected {
		b.gather(ctx, next, expected, most)
	}
	b.demand.end(next.weight)
	return next, true
}

func (b *batcher) drain(into *batch) {
	for !into.full() {
		select {
		case p := <-b.queue:
			into.add(p)
		default:
			return
		}
	}
}

// gather fills the batch until it has nearly all expected operations that are not in flight. It
// stops earlier if the batch is full, no proposal arrives for maxPause, its time is up, or ctx
// ends.
func (b *batcher) gather(ctx context.Context, into *batch, expected float64, most time.Duration) {
	if into.full() || b.demand.holds(into.weight, expected) {
		return
	}
	limit, pause := time.NewTimer(min(most, b.demand.longest())), time.NewTimer(maxPause)
	defer limit.Stop()
	defer pause.Stop()
	for !into.full() && !b.demand.holds(into.weight, expected) {
		select {
		case p := <-b.queue:
			into.add(p)
			b.drain(into)
			pause.Reset(maxPause)
		case <-pause.C:
			return
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
