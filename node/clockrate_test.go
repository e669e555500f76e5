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

// What was said of a life is not forgotten with it: the clock is the machine's.
func TestANewLifeBeginsWithWhatWasSaidOfTheOldOne(t *testing.T) {
	p := newPeers("a", 0)
	p.open("b", 1, &Hello{}, "boot")
	watch := func(stream uint64, d time.Duration, rate float64) (wrong bool) {
		for at := time.Duration(0); at < d; at += 200 * time.Millisecond {
			wrong, _, _ = p.watchRate("b", stream, instant(at), instant(float64(at)*rate))
		}
		return wrong
	}
	if !watch(1, time.Minute, 1.1) || !p.rateWrong("b") || !p.alien() {
		t.Fatal("a clock that is 10 % too fast was not told")
	}
	p.open("b", 2, &Hello{}, "another boot")
	if watch(1, time.Minute, 1); !p.rateWrong("b") {
		t.Error("an old stream still speaks for the member")
	}
	if !watch(2, 5*time.Second, 1) {
		t.Error("a restart made a clock right")
	}
	if watch(2, time.Minute, 1) || p.alien() {
		t.Error("a clock that is right is still told wrong")
	}
}

// A member whose clock runs at a rate that the leases are not made for holds none, and says why; the
// others do. Where it is the leader's, nobody holds one.
func TestWhoseClockRunsAtAnotherRateHoldsNoLease(t *testing.T) {
	for _, tc := range []struct {
		name    string
		leads   bool
		holders int
	}{{"a follower", false, simVoters - 1}, {"the leader", true, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { rateApart(t, tc.leads, tc.holders) })
		})
	}
}

func rateApart(t *testing.T, leads bool, holders int) {
	s := newSim(t, 5, t.TempDir(), newSimCounts())
	defer s.end()
	for range simVoters {
		s.add()
	}
	for _, m := range s.nodes {
		m.clock.rate = 1
		m.start(false)
	}
	held := func() (n int) {
		for _, m := range s.nodes {
			if m.now().n.leases.valid() {
				n++
			}
		}
		return n
	}
	all := func() bool { return held() == simVoters }
	if !s.until("every node holds a lease", time.Minute, all) {
		t.Fatal(s.o.err)
	}
	var slow *simNode
	for _, m := range s.nodes {
		if (m.now().n.proposer.Load() != nil) == leads {
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
		if time.Sleep(100 * time.Millisecond); held() != holders || slow.now().n.leases.valid() {
			t.Fatalf("%d nodes hold a lease, want %d; the one whose clock is slow: %v", held(), holders, slow.now().n.leases.valid())
		}
	}
	slow.clock.turn(1)
	if !s.until("every node holds a lease again", time.Minute, all) {
		t.Error(s.o.err)
	}
}
