package store

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

func TestGate_Allows(t *testing.T) {
	const mb, fast = 1 << 20, 1 << 20 // fast: a rate that makes the store busy
	type level struct {
		fill, score float64
		size        int64
	}
	none, small, large := level{}, level{size: 300 * mb}, level{size: 1024 * mb}
	for _, tc := range []struct {
		name string
		rate uint64 // bytes a second, for a minute
		idle time.Duration
		l0   level
		l5   level
		l6   level
		want bool
	}{
		{"few sublevels, busy", fast, 0, level{1, 1, 100 * mb}, none, small, false},
		{"15 sublevels, busy", fast, 0, level{3.75, 3.75, 400 * mb}, none, small, false},
		{"16 sublevels, busy", fast, 0, level{4, 4, 400 * mb}, none, small, true},
		{"few sublevels, soon idle", fast, idleTime - pollTime, level{1, 1, 100 * mb}, none, small, false},
		{"few sublevels, idle", fast, idleTime, level{1, 1, 100 * mb}, none, small, true},
		{"few sublevels, few writes", 100 << 10, 0, level{1, 1, 100 * mb}, none, small, true},
		{"a sixteenth of the level below", 0, 0, level{1, 1, 64 * mb}, large, large, true},
		{"less than a sixteenth", 0, 0, level{1, 1, 63 * mb}, large, large, false},
		{"a small part, 16 sublevels", 0, 0, level{4, 2, 1 * mb}, large, large, true},
		{"level 5 full, busy", fast, 0, level{1, 0.9, 100 * mb}, level{1.1, 1.1, 1100 * mb}, none, true},
		{"level 5 full, level 0 fuller", fast, 0, level{2, 1.8, 100 * mb}, level{1.1, 1.1, 1100 * mb}, none, false},
		{"another reason, busy", fast, 0, level{0.5, 0, 100 * mb}, level{size: 100 * mb}, none, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now, written := time.Time{}.Add(time.Hour), uint64(0)
			g := newGate(now)
			for range time.Minute / pollTime {
				now = now.Add(pollTime)
				written += tc.rate * uint64(pollTime) / uint64(time.Second)
				g.observe(now, written)
			}
			for range tc.idle / pollTime {
				now = now.Add(pollTime)
				g.observe(now, written)
			}
			m := &pebble.Metrics{}
			for i, l := range map[int]level{0: tc.l0, 5: tc.l5, 6: tc.l6} {
				m.Levels[i].FillFactor, m.Levels[i].Score, m.Levels[i].TablesSize = l.fill, l.score, l.size
			}
			if got := g.allows(now, m); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

// Wake-ups between two polls do not make one batch look like a high rate.
func TestGate_FrequentObservations_MeasureTheRate(t *testing.T) {
	now := time.Time{}.Add(time.Hour)
	g := newGate(now)
	opened := now
	for i := range 1000 {
		now = now.Add(time.Millisecond)
		g.observe(now, uint64(i/200)*10<<10) // 10 KiB each 200 ms
	}
	if g.busy != opened {
		t.Errorf("got busy %v after the start, want never", g.busy.Sub(opened))
	}
}
