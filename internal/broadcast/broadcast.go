// Package broadcast wakes every goroutine that waits for the next change of a value.
package broadcast

import "sync"

// A Broadcast wakes all waiters at the next announcement. The zero value is ready. Its methods may
// be called concurrently.
type Broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// Wait returns a channel that closes at the next announcement. Call Wait before reading the
// announced state, or an announcement may be missed.
func (b *Broadcast) Wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// Announce closes the channels that Wait has returned, which wakes all waiters. It does not block.
func (b *Broadcast) Announce() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
