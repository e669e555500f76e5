// Package fair serves callers in turn, so that a caller with many requests does not delay a caller
// with few. It starts no goroutine.
package fair

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped is returned by Enter if the channel stopping is closed first.
var ErrStopped = errors.New("stopped")

// A Queue serves its keys in turn, and the values of one key in their order. The zero value is
// ready. A Queue is not safe for concurrent use.
type Queue[T any] struct {
	values map[string][]T
	order  []string // keys with values; the first is served next
}

// Empty reports whether the queue has no value.
func (q *Queue[T]) Empty() bool { return len(q.order) == 0 }

// Keys returns the number of keys with values.
func (q *Queue[T]) Keys() int { return len(q.order) }

// Push adds a value behind those of the same key.
func (q *Queue[T]) Push(key string, v T) {
	if q.values == nil {
		q.values = make(map[string][]T)
	}
	if len(q.values[key]) == 0 {
		q.order = append(q.order, key)
	}
	q.values[key] = append(q.values[key], v)
}

// First returns the value that is served next. The queue must not be empty.
func (q *Queue[T]) First() T { return q.values[q.order[0]][0] }

// Pop removes the value that is served next, and reports whether its key has another one. The key's
// turn continues.
func (q *Queue[T]) Pop() bool {
	key := q.order[0]
	if rest := q.values[key][1:]; len(rest) > 0 {
		q.values[key] = rest
		return true
	}
	delete(q.values, key)
	q.order = q.order[1:]
	return false
}

// Rotate ends the turn of the key that is served next.
func (q *Queue[T]) Rotate() { q.order = append(q.order[1:], q.order[0]) }

// Remove drops the value of key for which match reports true.
func (q *Queue[T]) Remove(key string, match func(T) bool) {
	kept := q.values[key][:0]
	for _, v := range q.values[key] {
		if !match(v) {
			kept = append(kept, v)
		}
	}
	q.values[key] = kept
	if len(kept) > 0 {
		return
	}
	delete(q.values, key)
	for i, k := range q.order {
		if k == key {
			q.order = append(q.order[:i:i], q.order[i+1:]...)
			return
		}
	}
}

// A Gate admits a few callers at a time. The others wait, and their keys are admitted in turn. All
// methods may be called concurrently.
type Gate struct {
	mu      sync.Mutex
	free    int
	waiting Queue[chan struct{}]
}

// NewGate returns a gate that admits n callers at a time.
func NewGate(n int) *Gate { return &Gate{free: n} }

// Enter blocks until the caller is admitted. The admitted caller must call Leave. Enter returns the
// cause of ctx if ctx ends first, and ErrStopped if stopping is closed first. stopping may be nil.
func (g *Gate) Enter(ctx context.Context, stopping <-chan struct{}, key string) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting.Push(key, turn)
	g.mu.Unlock()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-stopping:
		err = ErrStopped
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // admitted at the same moment
		g.pass()
	default:
		g.waiting.Remove(key, func(c chan struct{}) bool { return c == turn })
	}
	return err
}

// Leave admits the next caller.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass()
}

// pass admits the next caller. The caller must hold mu.
func (g *Gate) pass() {
	if g.waiting.Empty() {
		g.free++
		return
	}
	close(g.waiting.First())
	if g.waiting.Pop() {
		g.waiting.Rotate()
	}
}
