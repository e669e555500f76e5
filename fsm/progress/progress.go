// Package progress publishes an index that only grows, and wakes the goroutines that wait for it.
package progress

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// An Index is a published log index. It wakes each waiter once, when the published index reaches
// the index of the waiter. The zero value is at index 0. All methods may be called concurrently.
type Index struct {
	index   atomic.Uint64
	mu      sync.Mutex
	waiting map[uint64]*waiters // by index
	moved   chan struct{}       // channel that Next returned; nil: none
	closed  error               // error of Close; nil: open
}

// waiters are the callers of Wait for one index. They share a channel, so an advance costs one
// close for each index that it reaches, however many callers wait there.
type waiters struct {
	n    int
	done chan struct{}
}

// Load returns the published index. It never blocks.
func (p *Index) Load() uint64 { return p.index.Load() }

// Advance publishes index and wakes the waiters up to it. The published index never decreases.
// Advance does not wait for the woken goroutines.
func (p *Index) Advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index > p.index.Load() {
		p.index.Store(index)
	}
	p.wake(index)
}

// wake wakes the waiters for indexes up to index, and the callers of Next. The caller must hold
// p.mu.
func (p *Index) wake(index uint64) {
	for at, w := range p.waiting {
		if at <= index {
			close(w.done)
			delete(p.waiting, at)
		}
	}
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// Close wakes every waiter, present and future, with err, which must not be nil. A second call
// replaces err.
func (p *Index) Close(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = err
	p.wake(math.MaxUint64)
}

// Wait blocks until the published index is at least index. It returns the cause of ctx if ctx ends
// first, and the error of Close if the index closes first. If index was published before Close,
// Wait still returns nil.
func (p *Index) Wait(ctx context.Context, index uint64) error {
	if p.index.Load() >= index {
		return nil
	}
	p.mu.Lock()
	if p.closed != nil || p.index.Load() >= index {
		p.mu.Unlock()
		return p.reached(index)
	}
	w := p.waiting[index]
	if w == nil {
		w = &waiters{done: make(chan struct{})}
		if p.waiting == nil {
			p.waiting = map[uint64]*waiters{}
		}
		p.waiting[index] = w
	}
	w.n++
	p.mu.Unlock()
	select {
	case <-w.done:
		return p.reached(index)
	case <-ctx.Done():
		p.mu.Lock()
		// A concurrent Advance may have removed w already.
		if w.n--; w.n == 0 && p.waiting[index] == w {
			delete(p.waiting, index)
		}
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

// reached returns nil if index is published, and otherwise the error of Close, which then woke the
// waiter. Many waiters of one index wake together, so reached takes no lock in the common case.
func (p *Index) reached(index uint64) error {
	if p.index.Load() >= index {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Next returns a channel that is closed when Advance or Close is next called. After Close it
// returns a closed channel. Callers share one channel. Call Next before you read the state, or you
// may miss an advance.
func (p *Index) Next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
		if p.closed != nil {
			close(p.moved)
		}
	}
	return p.moved
}
