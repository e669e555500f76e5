package lease

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestRateWatch_WrongRate_IsDetected(t *testing.T) {
	const report = 200 * time.Millisecond
	constant := func(d time.Duration) func(time.Duration) time.Duration {
		return func(time.Duration) time.Duration { return d }
	}
	from := func(at, d time.Duration) func(time.Duration) time.Duration {
		return func(now time.Duration) time.Duration {
			if now < at {
				return 0
			}
			return d
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	varying := func(time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(300 * time.Millisecond))) }
	for _, tc := range []struct {
		name         string
		ours, theirs float64
		delay        func(at time.Duration) time.Duration
		stopped      time.Duration // how long the member's machine and clock stop, after 35 s
		wrong        bool
	}{
		{"equal rates", 1, 1, constant(time.Millisecond), 0, false},
		{"member's clock faster within the bounds", 1 - RateBound, 1 + RateBound, constant(time.Millisecond), 0, false},
		{"member's clock slower within the bounds", 1 + RateBound, 1 - RateBound, constant(time.Millisecond), 0, false},
		{"too fast", 1, 1.10, constant(time.Millisecond), 0, true},
		{"too slow", 1, 0.90, constant(time.Millisecond), 0, true},
		{"a little too slow", 1 + RateBound, 0.96, constant(time.Millisecond), 0, true},
		{"delays of up to 300 ms", 1, 1, varying, 0, false},
		{"too fast, delays of up to 300 ms", 1, 1.10, varying, 0, true},
		{"the route becomes longer", 1, 1, from(25*time.Second, 400*time.Millisecond), 0, false},
		{"the machine stops for a while", 1, 1, constant(time.Millisecond), 3 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w RateWatch
			found := time.Duration(0)
			for at := time.Duration(0); at < 5*time.Minute; at += report {
				theirs := at
				if tc.stopped > 0 && at > 35*time.Second {
					theirs -= min(at-35*time.Second, tc.stopped)
				}
				w.Observe(Instant(float64(at+tc.delay(at))*tc.ours), Instant(float64(time.Hour))+Instant(float64(theirs)*tc.theirs))
				if w.Wrong() && found == 0 {
					found = at
				}
			}
			if got := found > 0; got != tc.wrong {
				t.Fatalf("wrong: got %v (drift %.3f), want %v", got, w.Drift(), tc.wrong)
			}
			if found > 45*time.Second {
				t.Errorf("found after: got %v, want at most 45s", found)
			}
		})
	}
}

func TestRateWatch_RateCorrected_NotWrong(t *testing.T) {
	var w RateWatch
	var ours, theirs Instant
	run := func(d time.Duration, rate float64) {
		for range d / (200 * time.Millisecond) {
			ours, theirs = ours.Add(200*time.Millisecond), theirs.Add(time.Duration(float64(200*time.Millisecond)*rate))
			w.Observe(ours, theirs)
		}
	}
	run(time.Minute, 1.10)
	if !w.Wrong() {
		t.Fatal("10 % too fast: got right, want wrong")
	}
	run(time.Minute, 1)
	if w.Wrong() {
		t.Error("after the correction: got wrong, want right")
	}
}
