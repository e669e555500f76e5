package node

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func TestARateWatchTellsClocksThatRunApart(t *testing.T) {
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
	for _, tc := range []struct {
		name         string
		ours, theirs float64
		delay        func(at time.Duration) time.Duration
		still        time.Duration // for so long, after 35 s, the member's machine stands still, clock and all
		wrong        bool
	}{
		{"even", 1, 1, constant(time.Millisecond), 0, false},
		{"apart as far as allowed", 1 - rateBound, 1 + rateBound, constant(time.Millisecond), 0, false},
		{"apart as far as allowed, the other way", 1 + rateBound, 1 - rateBound, constant(time.Millisecond), 0, false},
		{"too fast", 1, 1.10, constant(time.Millisecond), 0, true},
		{"too slow", 1, 0.90, constant(time.Millisecond), 0, true},
		{"a little too slow", 1 + rateBound, 0.96, constant(time.Millisecond), 0, true},
		{"delays of up to 300 ms", 1, 1, func(time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(300 * time.Millisecond))) }, 0, false},
		{"too fast, behind such delays", 1, 1.10, func(time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(300 * time.Millisecond))) }, 0, true},
		{"a longer route from some moment on", 1, 1, from(25*time.Second, 400*time.Millisecond), 0, false},
		{"a machine that stood still", 1, 1, constant(time.Millisecond), 3 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w rateWatch
			took := time.Duration(0)
			for at := time.Duration(0); at < 5*time.Minute; at += report {
				theirs := at
				if tc.still > 0 && at > 35*time.Second {
					theirs -= min(at-35*time.Second, tc.still)
				}
				w.observe(instant(float64(at+tc.delay(at))*tc.ours), instant(float64(time.Hour))+instant(float64(theirs)*tc.theirs))
				if w.wrong && took == 0 {
					took = at
				}
			}
			if got := took > 0; got != tc.wrong {
				t.Fatalf("wrong: got %v (drift %.3f), want %v", got, w.drift, tc.wrong)
			}
			if took > 45*time.Second {
				t.Errorf("told after %v, want 45 s at most", took)
			}
		})
	}
}

func TestARateWatchIsContentAgain(t *testing.T) {
	var w rateWatch
	var ours, theirs instant
	run := func(d time.Duration, rate float64) {
		for range d / (200 * time.Millisecond) {
			ours, theirs = ours.add(200*time.Millisecond), theirs.add(time.Duration(float64(200*time.Millisecond)*rate))
			w.observe(ours, theirs)
		}
	}
	run(time.Minute, 1.10)
	if !w.wrong {
		t.Fatal("a clock that is 10 % too fast was not told")
	}
	run(time.Minute, 1)
	if w.wrong {
		t.Error("a clock that is right again was not")
	}
}

// A member whose clock runs at a rate that the leases are not made for holds none, and says why; the
// others do.
func TestAMemberWhoseClockRunsAtAnotherRateHoldsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 5, t.TempDir(), newSimCounts())
		defer s.end()
		for range simVoters {
			s.add()
		}
		for _, m := range s.nodes {
			m.clock.rate = 1
			m.start(false)
		}
		held := func(want int) func() bool {
			return func() bool {
				n := 0
				for _, m := range s.nodes {
					if m.now().n.leases.valid() {
						n++
					}
				}
				return n == want
			}
		}
		if !s.until("every node holds a lease", time.Minute, held(simVoters)) {
			t.Fatal(s.o.err)
		}
		var slow *simNode
		for _, m := range s.nodes {
			if m.now().n.raft.State().String() == "Follower" {
				slow = m
			}
		}
		slow.clock.turn(0.90)
		refused := func() bool {
			l := slow.now().n.leases
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.reason == string(refusedRate)
		}
		if !s.until("the one whose clock is slow is refused for it", time.Minute, refused) {
			t.Fatal(s.o.err)
		}
		time.Sleep(10 * time.Second)
		for range 100 {
			if time.Sleep(100 * time.Millisecond); !held(simVoters-1)() || slow.now().n.leases.valid() {
				t.Fatal("the one whose clock is slow holds a lease, or another one holds none")
			}
		}
		slow.clock.turn(1)
		if !s.until("it holds one again", time.Minute, held(simVoters)) {
			t.Error(s.o.err)
		}
	})
}
