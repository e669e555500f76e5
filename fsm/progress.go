package fsm

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"revoked"
)

// progress publishes the applied index. A waiter is woken once, when its own index is reached.
type progress struct {
	index  atomic.Uint64
	mu     sync.Mutex
	queue  waitQueue
	moved  chan struct{} // nil: nobody asked
	closed bool
}

type waiter struct {
	index uint64
	done  chan struct{}
	slot  int
}

type waitQueue []*waiter

var _ heap.Interface = (*waitQueue)(nil)

func (q waitQueue) Len() int           { return len(q) }
func (q waitQueue) Less(i, j int) bool { return q[i].index < q[j].index }
func (q waitQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i, j
}

func (q *waitQueue) Push(x any) {
	w := x.(*waiter)
	w.slot = len(*q)
	*q = append(*q, w)
}

func (q *waitQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.slot = -1
	return w
}

func (p *progress) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index > p.index.Load() {
		p.index.Store(index)
	}
	for len(p.queue) > 0 && p.queue[0].index <= index {
		close(heap.Pop(&p.queue).(*waiter).done)
	}
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

func (p *progress) wait(ctx context.Context, index uint64) error {
	if p.index.Load() >= index {
		return nil
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return fmt.Errorf("%w: the state machine", revoked.ErrClosed)
	}
	if p.index.Load() >= index {
		p.mu.Unlock()
		return nil
	}
	w := &waiter{index: index, done: make(chan struct{})}
	heap.Push(&p.queue, w)
	p.mu.Unlock()
	select {
	case <-w.done:
		if p.index.Load() >= index {
			return nil
		}
		return fmt.Errorf("%w: the state machine", revoked.ErrClosed)
	case <-ctx.Done():
		p.mu.Lock()
		if w.slot >= 0 {
			heap.Remove(&p.queue, w.slot)
		}
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

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

// shut wakes everyone: nothing moves any more.
func (p *progress) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for len(p.queue) > 0 {
		close(heap.Pop(&p.queue).(*waiter).done)
	}
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// Applied returns the index of the newest log entry whose effects every reader sees. It is published
// last: after the rows, the memory and Changes.
func (f *FSM) Applied() uint64 { return f.progress.index.Load() }

// Wait returns when Applied() >= index, with the cause of ctx, or with revoked.ErrClosed.
func (f *FSM) Wait(ctx context.Context, index uint64) error { return f.progress.wait(ctx, index) }

// AppliedChan returns a channel that is closed when Applied next moves, and when the state machine
// closes. Take it before reading the state, or the move may be missed.
func (f *FSM) AppliedChan() <-chan struct{} { return f.progress.next() }
