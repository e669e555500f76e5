package stream

import "sync"

// A Budget bounds the bytes that the files of several spools hold. Methods may be called
// concurrently.
type Budget struct {
	limit int64

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed by the next release; nil: not requested
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns the bytes that spools hold now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// take takes n bytes, or as many as are left, and returns the number of bytes taken.
func (b *Budget) take(n int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = max(0, min(n, b.limit-b.used))
	b.used += n
	return n
}

// release gives n bytes back.
func (b *Budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if n > 0 && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// next returns a channel that is closed by the next release. Call it before take, or a release may
// be missed.
func (b *Budget) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}
