package propose

import (
	"math"
	"sync"
	"time"
)

// Limits of the wait for further proposals. DESIGN.md has the reasons.
const (
	minExpected = 8                       // operations; with fewer, no batch waits
	nearlyAll   = 0.95                    // of the expected operations
	maxPause    = 1500 * time.Microsecond // between two proposals
	maxGather   = 8 * time.Millisecond    // total wait
	halfLife    = 10 * time.Millisecond   // of what is expected, while no batch is taken
)

// A demand estimates how many operations the callers of a batcher will send next. It takes the most
// that were outstanding concurrently, because a caller usually sends its next operation after an
// answer. Bulk proposals have a queue of their own and are excluded. The zero value has seen no
// caller. All methods may be called concurrently.
type demand struct {
	mu          sync.Mutex
	outstanding int           // not answered yet
	waiting     int           // of these, in the queue or in the batch that is being filled
	peak        int           // of outstanding, since the last batch
	expected    float64       // at the last batch
	took        time.Duration // how long the latest batches were in flight, about
}

// change adds to the operations that are not answered yet.
func (d *demand) change(by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outstanding += by
	d.peak = max(d.peak, d.outstanding)
}

// queued adds to the operations in the queue.
func (d *demand) queued(by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += by
}

// begin returns how many operations are expected, those in flight included. idle is the time before
// the first proposal of the batch came.
func (d *demand) begin(idle time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.expected * 7 / 8 * math.Exp2(-float64(idle)/float64(halfLife))
	d.expected = max(left, float64(d.peak))
	return d.expected
}

// isSmall reports whether so few operations were expected at the last batch that none waits.
func (d *demand) isSmall() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expected < minExpected
}

// holds reports whether a batch with that weight has nearly all operations that are expected and
// not in flight.
func (d *demand) holds(weight int, expected float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	inFlight := max(0, d.outstanding-d.waiting) // a caller may have left the queue
	return float64(weight) >= nearlyAll*(expected-float64(inFlight))
}

// end ends the wait of a batch, which is in flight from then on.
func (d *demand) end(weight int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting -= weight
	d.peak = d.outstanding
}

// observe records how long a batch was in flight.
func (d *demand) observe(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.took += (took - d.took) / 4
}

// longest returns how long a batch may wait in total.
func (d *demand) longest() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return min(maxGather, d.took/2)
}
