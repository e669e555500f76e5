package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

const testPace = 500 * time.Millisecond

func TestAnAskJoinsTheProofThatIsAboutToBegin(t *testing.T) {
	for _, tc := range []struct {
		name  string
		at    time.Duration // of the ask, from the last beat on
		joins bool
	}{
		{"just before the beat", testPace - lull(testPace)/2, true},
		{"with the beat still to come, which is late", testPace + lull(testPace)/2, true},
		{"just after the last beat: that one may have been proposed before the booking", 0, false},
		{"long before the next", testPace / 2, false},
		{"when the next should have come long ago", 2 * testPace, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRhythm()
				h.beat(time.Now().Add(testPace)).finish(7, true)
				time.Sleep(tc.at)
				type proof struct {
					index uint64
					ok    bool
				}
				got := make(chan proof, 1)
				go func() {
					index, ok := h.join(t.Context(), testPace)
					got <- proof{index, ok}
				}()
				synctest.Wait()
				if waits := len(got) == 0; waits != tc.joins {
					t.Fatalf("waits for the beat: got %v, want %v", waits, tc.joins)
				}
				h.beat(time.Now().Add(testPace)).finish(8, true)
				want := proof{}
				if tc.joins {
					want = proof{8, true}
				}
				if p := <-got; p != want {
					t.Errorf("got %+v, want %+v", p, want)
				}
			})
		})
	}
}

func TestTheEndOfARhythmProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRhythm()
		h.beat(time.Now().Add(lull(testPace))).finish(7, true)
		got := make(chan bool, 1)
		go func() {
			_, ok := h.join(t.Context(), testPace)
			got <- ok
		}()
		synctest.Wait()
		h.stop()
		if <-got {
			t.Error("an ask was proven by the end of the term")
		}
		if _, ok := h.join(t.Context(), testPace); ok {
			t.Error("an ask was proven after the end of the term")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h.beat(time.Now())
		if _, ok := h.join(ctx, testPace); ok {
			t.Error("an ask that nobody waits for any more was proven")
		}
	})
}

// An idle cluster writes one entry for each renewal of all its leases, however far away its members are,
// and nobody's lease ends meanwhile.
func TestIdleMembersShareTheProofsOfTheirLeases(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration
	}{{"near", 200 * time.Microsecond}, {"far away", 40 * time.Millisecond}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 5, t.TempDir(), newSimCounts())
				s.net.delay = tc.delay
				defer s.end()
				for range simVoters {
					s.add()
				}
				for _, m := range s.nodes {
					m.start(false)
				}
				held := func() bool {
					for _, m := range s.nodes {
						if !m.now().n.leases.valid() {
							return false
						}
					}
					return true
				}
				if !s.until("every node holds a lease", time.Minute, held) {
					t.Fatal(s.o.err)
				}
				time.Sleep(10 * time.Second)
				n := s.nodes[0].now().n
				before, began := n.raft.LastIndex(), time.Now()
				for time.Since(began) < time.Minute {
					time.Sleep(20 * time.Millisecond)
					if !held() {
						t.Fatalf("a lease has ended in an idle cluster after %v\n%s", time.Since(began), s.o.told())
					}
				}
				renewals := uint64(time.Minute / n.renewEvery())
				if got := n.raft.LastIndex() - before; got > renewals+renewals/10 {
					t.Errorf("got %d entries in %d renewals, want one for each", got, renewals)
				}
				if s.o.failed() {
					t.Error(s.o.err)
				}
			})
		})
	}
}
