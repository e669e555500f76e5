package propose

import (
	"slices"
	"time"
)

// A Pace decides how many operations an entry may hold, from the time that applying earlier ones
// took. The zero value has measured nothing. It is not safe for concurrent use.
type Pace struct {
	costs []time.Duration // of one operation, in the newest entries
}

const (
	firstOps    = 256 // before the first measurement
	paceEntries = 8   // the cheapest of so many is used: the others may have waited for a processor
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

// Ops returns how many operations take target to apply: at least least, at most limit.
func (p *Pace) Ops(target time.Duration, least, limit int) int {
	if len(p.costs) == 0 {
		return min(firstOps, limit)
	}
	return int(min(max(target/slices.Min(p.costs), time.Duration(least)), time.Duration(limit)))
}
