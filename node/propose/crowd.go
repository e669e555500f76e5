package propose

import (
	"math"
	"sync"
	"time"
)

// Limits of the wait for further proposals. DESIGN.md has the reasons.
const (
	minExpected = 8                       // operations; with fewer, no batch waits
	nearlyAll   = 0.95                    // of those that are expected
	maxPause    = 1500 * time.Microsecond // between two proposals
	maxGather   = 8 * time.Millisecond    // in all
	halfLife    = 10 * time.Millisecond   // of what is expected, while no batch is taken
)

// A crowd estimates how many operations the callers of a batcher will send next. It takes the most
// that were outstanding at once, because a caller usually sends its next operation after an answer.
// Bulk proposals have a queue of their own and do not count. The zero value has seen no caller. All
// methods may be called concurrently.
type crowd struct {
	mu          sync.Mutex
	outstanding int           // not answered yet
	waiting     int           // of these, in the queue or in the batch that is being filled
	peak        int           // of outstanding, since the last batch
	expected    float64       // at the last batch
	took        time.Duration // how long the latest batches were under way, about
}

// change adds to the operations that are not answered yet.
func (c *crowd) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outstanding += by
	c.peak = max(c.peak, c.outstanding)
}

// queued adds to the operations in the queue.
func (c *crowd) queued(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting += by
}

// begin returns how many operations are expected, those under way included. idle is the time before
// the first proposal of the batch came.
func (c *crowd) begin(idle time.Duration) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := c.expected * 7 / 8 * math.Exp2(-float64(idle)/float64(halfLife))
	c.expected = max(left, float64(c.peak))
	return c.expected
}

// isSmall reports whether so few operations were expected at the last batch that none waits.
func (c *crowd) isSmall() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expected < minExpected
}

// holds reports whether a batch with that weight has nearly all operations that are expected and
// not under way.
func (c *crowd) holds(weight int, expected float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	flying := max(0, c.outstanding-c.waiting) // a caller may have left the queue
	return float64(weight) >= nearlyAll*(expected-float64(flying))
}

// end puts a batch under way.
func (c *crowd) end(weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting -= weight
	c.peak = c.outstanding
}

// landed records how long a batch was under way.
func (c *crowd) landed(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took += (took - c.took) / 4
}

// longest returns how long a batch may wait in total.
func (c *crowd) longest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(maxGather, c.took/2)
}
