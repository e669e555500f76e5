package api

import (
	"testing"
	"time"
)

func TestABudget(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	t.Run("credits no moment twice where requests end in another order than they began", func(t *testing.T) {
		b := newBudget(10, 10)
		for range 10 {
			b.spend("caller", now)
		}
		spent := 0
		for i := range 1000 { // all of it within 100 ms: one unit
			at := now.Add(time.Duration(i%2) * 100 * time.Millisecond)
			if b.spend("caller", at) == 0 {
				spent++
			}
		}
		if spent != 1 {
			t.Errorf("got %d units out of 100 ms, want 1", spent)
		}
	})
	t.Run("lets nobody have for nothing what was under way at once", func(t *testing.T) {
		b := newBudget(10, 10)
		for range 30 {
			b.owe("caller", now)
		}
		for _, row := range []struct {
			after time.Duration
			want  bool
		}{{0, true}, {2 * time.Second, true}, {2050 * time.Millisecond, true}, {2150 * time.Millisecond, false}} {
			if got := b.exhausted("caller", now.Add(row.after)); got != row.want {
				t.Errorf("after %v: exhausted: got %v, want %v", row.after, got, row.want)
			}
		}
		if b.exhausted("another", now) {
			t.Error("another caller pays for it")
		}
	})
	t.Run("piles up no debt of what was refused", func(t *testing.T) {
		b := newBudget(10, 10)
		for range 1000 {
			b.spend("caller", now)
		}
		if b.exhausted("caller", now.Add(150*time.Millisecond)) {
			t.Error("still exhausted after the time of one unit")
		}
	})
}
