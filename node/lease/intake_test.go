package lease

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestIntake_Before_ReturnsLastEarlierEntry(t *testing.T) {
	type took struct {
		low, high uint64
		at        Instant
	}
	for name, c := range map[string]struct {
		took []took
		term uint64
		want Instant
	}{
		"only the start":                        {nil, 5, 10},
		"entries of an earlier term":            {[]took{{4, 4, 20}, {4, 4, 30}}, 5, 30},
		"entries of its own term are ignored":   {[]took{{4, 4, 20}, {5, 5, 30}, {5, 5, 40}}, 5, 20},
		"its own term first":                    {[]took{{5, 5, 30}, {5, 5, 40}}, 5, 10},
		"entries of both terms in one call":     {[]took{{3, 3, 20}, {4, 5, 30}}, 5, 30},
		"an older entry after a newer":          {[]took{{5, 5, 20}, {4, 4, 30}, {5, 5, 40}}, 5, 30},
		"a snapshot":                            {[]took{{4, 4, 20}, {0, 5, 30}}, 5, 30},
		"terms that the node did not see":       {[]took{{2, 2, 20}, {4, 4, 30}}, 9, 30},
		"of a term that has ended, later terms": {[]took{{4, 4, 20}, {6, 6, 30}, {6, 6, 40}}, 5, 20},
	} {
		i := NewIntake(10)
		for _, w := range c.took {
			i.Took(w.low, w.high, w.at)
		}
		if got := i.Before(c.term); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

// In every order of entries, the log received no entry of an earlier term after the result.
func TestIntake_Before_IsNeverTooEarly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		i, last := NewIntake(0), [10]Instant{}
		for at := Instant(1); at <= 8; at++ {
			low := rng.Uint64N(9)
			high := low + rng.Uint64N(10-low)
			i.Took(low, high, at)
			for term := low; term <= high; term++ {
				last[term] = at
			}
		}
		newest := Instant(0)
		for term := range uint64(10) {
			if got := i.Before(term); got < newest {
				t.Fatalf("before term %d: got %d, want at least %d (%+v, %v)", term, got, newest, i, last)
			}
			newest = max(newest, last[term])
		}
	}
}

// The leader measures the time since the last earlier entry with one clock, and then the rest of
// the wait with another. Each clock may have any rate within the bound, and the first may stop.
func TestInheritedReservation_OutlastsTheLease(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	rate := func() float64 { return 1 + RateBound*(2*rng.Float64()-1) }
	for range 10_000 {
		length := 500*time.Millisecond + time.Duration(rng.Int64N(int64(time.Minute)))
		// These are true times since the request. The new leader received the request's barrier entry
		// immediately.
		opened := time.Duration(rng.Int64N(int64(2 * length)))
		ends := time.Duration(float64(length) / (1 - RateBound*rng.Float64()))
		first, second := rate(), rate()
		if rng.IntN(4) == 0 {
			first *= rng.Float64()
		}
		now := base.Add(time.Duration(rng.Int64N(int64(time.Hour))))
		age := time.Duration(float64(opened) * first)
		lt := NewTable(Term{Number: 5, First: 10, Since: now.Add(-age), Length: length,
			Longest: length, Members: []string{"a"}})
		if ends <= opened {
			continue
		}
		if ok, _ := lt.IsFree("a", now.Add(time.Duration(float64(ends-opened)*second))); ok {
			t.Fatalf("lease of %v, opened after %v, rates %.4f and %.4f: got free when the lease ends", length,
				opened, first, second)
		}
	}
}
