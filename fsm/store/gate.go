package store

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// A compaction of level 0 rewrites the whole level below it, because keys are digests. So while
	// the store is busy, level 0 gets many sublevels before it is compacted. But a read searches each
	// of them, so an idle store keeps fewer.
	idleSublevels = 4
	busySublevels = 16

	// An idle store compacts level 0 only if it has at least this part of the size of the level below
	// it. Otherwise a few small flushes would rewrite that level.
	idleShare = 16

	busyRate = 512 << 10       // bytes written in a second that make a store busy
	idleTime = 2 * time.Second // without such a rate before a store is idle
)

// A gate decides whether waiting compactions may start. Pebble starts them, in its own order, once
// level 0 has idleSublevels. The gate delays those of level 0 until it has busySublevels, or until
// the store is idle. It is not safe for concurrent use.
type gate struct {
	at      time.Time // of the last observation
	written uint64    // bytes written by then
	busy    time.Time // when the rate of writes was last above busyRate
}

// newGate returns the gate of a store that is not idle yet: it was just opened.
func newGate(now time.Time) *gate { return &gate{at: now, busy: now} }

// observe records how many bytes have been written since the store was opened.
func (g *gate) observe(now time.Time, written uint64) {
	if d := now.Sub(g.at); d >= pollTime/2 {
		if float64(written-g.written) > busyRate*d.Seconds() {
			g.busy = now
		}
		g.at, g.written = now, written
	}
}

// allows reports whether compactions may start.
func (g *gate) allows(now time.Time, m *pebble.Metrics) bool {
	top := &m.Levels[0]
	if top.FillFactor >= busySublevels/idleSublevels {
		return true
	}
	below := int64(0) // size of the level below
	for i := len(m.Levels) - 1; i > 0; i-- {
		l := &m.Levels[i]
		if l.Score > top.Score { // Pebble compacts this level first
			return true
		}
		if l.TablesSize > 0 {
			below = l.TablesSize
		}
	}
	// With a score of 0, level 0 needs no compaction, so Pebble compacts for another reason.
	return top.Score == 0 || now.Sub(g.busy) >= idleTime && top.TablesSize >= below/idleShare
}
