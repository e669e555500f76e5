package node

import (
	"slices"
	"time"
)

// steady notes lapses: a booking that ran out although its holder asks again. Two within a minute,
// and the member has to keep up for ten seconds before it is waited for again.
func (t *leaseTable) steady(now instant, b *booking) bool {
	if b.bound != 0 && now > b.bound {
		b.lapses = append(b.lapses, b.bound)
		b.bound = 0
	}
	b.lapses = slices.DeleteFunc(b.lapses, func(at instant) bool { return now.sub(at) > time.Minute })
	if len(b.lapses) < 2 {
		b.keptUp = 0
		return true
	}
	if b.keptUp == 0 {
		b.keptUp, b.goal, b.goalSet = now, t.floor(now), now
	}
	if now.sub(b.keptUp) < 10*time.Second {
		return false
	}
	b.lapses, b.keptUp = nil, 0
	return true
}

// followUp sees whether a member that lapsed keeps up: nothing may be acknowledged for longer than a
// quarter of a lease before it has applied it. Its word is always older than what was acknowledged
// meanwhile, so it is measured by goals, one after the other.
func (t *leaseTable) followUp(now instant, b *booking) {
	late := now.sub(b.goalSet) > t.length/4
	if late {
		b.keptUp = now
	}
	if late || b.applied >= b.goal {
		b.goal, b.goalSet = t.floor(now), now
	}
}
