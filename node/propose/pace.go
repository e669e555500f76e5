package propose

import (
	"slices"
	"time"
)

// A Pace decides how many operations an entry may have, from the time that applying earlier entries
// took. The zero value is ready. It is not safe for concurrent use.
type Pace struct {
	costs []time.Duration // average time per operation for each of the newest entries
}

const (
	firstOps    = 256 // number of operations before the first measurement
	paceEntries = 8   // number of newest entries whose lowest cost counts: the others may have waited for a CPU
)

// Observe records that applying ops operations took d.
func (p *Pace) Observe(ops int, d time.Duration) {
	if ops == 0 || d <= 0 {
		return
	}
	if len(p.costs) == paceEntries {
		p.costs = slices.Delete(p.costs, 0, 1)
	}
	p.costs = append(p.costs, max(d/time.Duration(ops), 1))
}

// Ops returns how many operations can be applied in the time target. The result is between least
// and limit.
func (p *Pace) Ops(target time.Duration, least, limit int) int {
	if len(p.costs) == 0 {
		return min(firstOps, limit)
	}
	return int(min(max(target/slices.Min(p.costs), time.Duration(least)), time.Duration(limit)))
}
