package lease

import (
	"slices"
	"time"
)

// A member whose reservation expired twice within lapseMemory must keep up for probation before it
// gets a lease again. A slow member would otherwise delay every revocation by the length of a
// lease.
const (
	lapseMemory = time.Minute
	probation   = 10 * time.Second
)

// lagging is the part of a reservation that detects a slow member.
type lagging struct {
	lapses       []Instant // times at which reservations expired before they were renewed
	keepsUpSince Instant   // start of the probation, or 0
	goal         uint64    // index that the member must apply next during probation
	goalSince    Instant   // when goal was set
}

// lapse records that the reservation expired at the given time, before the member renewed it.
func (g *lagging) lapse(at Instant) { g.lapses = append(g.lapses, at) }

// mayRenew reports whether a member that sends a request may get a lease. If its probation begins,
// low is its first goal.
func (g *lagging) mayRenew(now Instant, low uint64) bool {
	g.lapses = slices.DeleteFunc(g.lapses, func(at Instant) bool { return now.Sub(at) > lapseMemory })
	if len(g.lapses) < 2 {
		g.keepsUpSince = 0
		return true
	}
	if g.keepsUpSince == 0 {
		g.keepsUpSince, g.goal, g.goalSince = now, low, now
	}
	if now.Sub(g.keepsUpSince) < probation {
		return false
	}
	g.lapses, g.keepsUpSince = nil, 0
	return true
}

// track restarts the probation of a member that needs longer than limit to apply its goal. Its
// reports are always older than the newest acknowledged index, so it is measured against one goal
// after the other. The next goal is low.
func (g *lagging) track(now Instant, applied, low uint64, limit time.Duration) {
	late := now.Sub(g.goalSince) > limit
	if late {
		g.keepsUpSince = now
	}
	if late || applied >= g.goal {
		g.goal, g.goalSince = low, now
	}
}
