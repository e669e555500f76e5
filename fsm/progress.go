package fsm

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"revoked"
)

// progress publishes an index: the applied one, or that of the newest event. It wakes each waiter
// once, when its index is reached. All methods may be called concurrently.
type progress struct {
	index   atomic.Uint64
	mu      sync.Mutex
	waiting map[uint64]*waiters // by index
	moved   chan struct{}       // nil: not requested
	closed  bool
}

// waiters are the callers of wait for one index.
type waiters struct {
	n    int
	done chan struct{}
}

// advance publishes index. The published index never decreases.
func (p *progress) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index > p.index.Load() {
		p.index.Store(index)
	}
	p.wake(index)
}

// wake wakes the waiters for indexes up to index, and the callers of next. The caller must hold
// p.mu.
func (p *progress) wake(index uint64) {
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

// close wakes every waiter with revoked.ErrClosed.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.wake(math.MaxUint64)
}

// wait implements FSM.Wait.
func (p *progress) wait(ctx context.Context, index uint64) error {
	if p.index.Load() >= index {
		return nil
	}
	p.mu.Lock()
	if p.closed || p.index.Load() >= index {
		p.mu.Unlock()
		return p.reached(index)
	}
	w := p.waiting[index]
	if w == nil {
		w = &waiters{done: make(chan struct{})}
		put(&p.waiting, index, w)
	}
	w.n++
	p.mu.Unlock()
	select {
	case <-w.done:
		return p.reached(index)
	case <-ctx.Done():
		p.mu.Lock()
		if w.n--; w.n == 0 && p.waiting[index] == w {
			delete(p.waiting, index)
		}
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

// reached returns nil if index was applied, and errClosed if close woke the waiter first.
func (p *progress) reached(index uint64) error {
	if p.index.Load() >= index {
		return nil
	}
	return errClosed
}

var errClosed = fmt.Errorf("%w: state machine", revoked.ErrClosed)

// next implements FSM.AppliedChan.
func (p *progress) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
		if p.closed {
			close(p.moved)
		}
	}
	return p.moved
}

// writeLoad is the load of the store, read at most every loadAge.
type writeLoad struct {
	mu      sync.Mutex
	at      time.Time
	percent int
}

const loadAge = 50 * time.Millisecond

// WriteLoad returns how full the buffers of the store are, beyond which writes have to wait, in
// percent. It may be 50 ms old. It is 0 after Close.
func (f *FSM) WriteLoad() int {
	f.load.mu.Lock()
	defer f.load.mu.Unlock()
	if now := time.Now(); now.Sub(f.load.at) >= loadAge {
		f.load.at, f.load.percent = now, 0
		if s, err := f.acquire(); err == nil {
			f.load.percent = s.WriteLoad()
			s.Release()
		}
	}
	return f.load.percent
}
