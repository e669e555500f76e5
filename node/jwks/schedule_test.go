package jwks_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked/node/jwks"
)

var start = time.Unix(1_790_000_000, 0)

func TestSchedule_MaxAge_IsBounded(t *testing.T) {
	for _, tt := range []struct {
		name     string
		age      time.Duration
		missing  bool
		from, to time.Duration
	}{
		{"no max-age", 0, false, 13*time.Minute + 30*time.Second, 15 * time.Minute},
		{"a second", time.Second, false, 5 * time.Minute, 5 * time.Minute},
		{"five minutes", 5 * time.Minute, false, 5 * time.Minute, 5 * time.Minute},
		{"an hour", time.Hour, false, 54 * time.Minute, time.Hour},
		{"a year", 8760 * time.Hour, false, 21*time.Hour + 36*time.Minute, 24 * time.Hour},
		{"a key is missing", time.Hour, true, 30 * time.Second, 33 * time.Second},
	} {
		for _, random := range []float64{0, 0.5, 0.999} {
			var s jwks.Schedule
			s.Begin(start)
			s.Succeeded(start, tt.age, tt.missing, random)
			if got := s.Next().Sub(start); got < tt.from || got > tt.to {
				t.Errorf("%s, random %v: got %v, want from %v to %v", tt.name, random, got, tt.from, tt.to)
			}
		}
	}
}

func TestSchedule_Failures_BackOff(t *testing.T) {
	var s jwks.Schedule
	for n, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute,
		15 * time.Minute, 15 * time.Minute} {
		random := float64(n%2) / 2
		s.Failed(start, random)
		want += time.Duration(random * float64(want) / 4)
		if got := s.Next().Sub(start); got != want {
			t.Errorf("failure %d: got %v, want %v", n+1, got, want)
		}
	}
	s.Succeeded(start, time.Hour, false, 0)
	s.Failed(start, 0)
	if got := s.Next().Sub(start); got != 30*time.Second {
		t.Errorf("failure after a success: got %v, want 30s", got)
	}
}

// Fetches of one issuer begin at least 30 seconds apart, whatever their reasons are.
func TestSchedule_Fetches_KeepMinInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s jwks.Schedule
		if !s.Next().IsZero() || s.Wait(start) != 0 {
			t.Fatal("new schedule: got not due, want due immediately")
		}
		now, last := start, time.Time{}
		for range rapid.IntRange(1, 30).Draw(t, "fetches") {
			if rapid.Bool().Draw(t, "asked for") {
				now = now.Add(s.Wait(now))
			} else if next := s.Next(); next.After(now) {
				now = next
			}
			if !last.IsZero() && now.Sub(last) < jwks.MinInterval {
				t.Fatalf("got a fetch %v after the last, want at least 30 s", now.Sub(last))
			}
			s.Begin(now)
			last = now
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "duration")))
			random := rapid.Float64Range(0, 0.999).Draw(t, "random")
			if rapid.Bool().Draw(t, "succeeded") {
				age := time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "age"))
				s.Succeeded(now, age, rapid.Bool().Draw(t, "missing"), random)
			} else {
				s.Failed(now, random)
			}
			if wait := s.Next().Sub(now); wait < 30*time.Second || wait > 24*time.Hour {
				t.Fatalf("got the next fetch in %v, want 30 s to 24 h", wait)
			}
		}
	})
}
