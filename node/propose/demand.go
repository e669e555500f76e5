package propose

import (
	"math"
	"sync"
	"time"
)

// Limits of the wait for further proposals. DESIGN.md gives the reasons.
const (
	minExpected = 8                       // number of expected operations; with fewer, no batch waits
	nearlyAll   = 0.95                    // part of the expected operations that ends the wait
	maxPause    = 1500 * time.Microsecond // longest wait for the next proposal
	maxGather   = 8 * time.Millisecond    // longest total wait
	halfLife    = 10 * time.Millisecond   // half-life of the expected number while no batch is taken
)

// A demand estimates how many operations the callers of a batcher will send next. The estimate is
// the highest number of operations that were outstanding at one time, because a caller usually
// sends its next operation after an answer. Bulk proposals have a separate queue and do not count.
// The zero value is ready. All methods may be called concurrently.
type demand struct {
	mu          sync.Mutex
	outstanding int           // number of operations that are not answered yet
	waiting     int           // number of these in the queue or in the batch that is being filled
	peak        int           // highest value of outstanding since the last batch
	expected    float64       // expected number of operations at the last batch
	took        time.Duration // approximate time that the latest batches were in flight
}

// change adds the given number to the count of operations that are not answered yet.
func (d *demand) change(by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outstanding += by
	d.peak = max(d.peak, d.outstanding)
}

// queued adds the given number to the count of operations in the queue.
func (d *demand) queued(by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += by
}

// begin returns how many operations are expected, including those in flight. idle is how long the
// batch waited for its first proposal.
func (d *demand) begin(idle time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.expected * 7 / 8 * math.Exp2(-float64(idle)/float64(halfLife))
	d.expected = max(left, float64(d.peak))
	return d.expected
}

// isSmall reports whether batches do not wait for more operations, because too few were expected at
// the last batch.
func (d *demand) isSmall() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expected < minExpected
}

// holds reports whether a batch with the given weight has nearly all operations that are expected
// and not in flight.
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
