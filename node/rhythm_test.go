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

// What is booked while a proof is under way, which may have been proposed before, is proven by the next one.
func TestAnAskJoinsNoProofThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRhythm()
		slow := h.beat(time.Now().Add(lull(testPace) / 2))
		got := make(chan uint64, 1)
		go func() {
			index, _ := h.join(t.Context(), testPace)
			got <- index
		}()
		synctest.Wait()
		slow.finish(7, true)
		synctest.Wait()
		h.beat(time.Now().Add(testPace)).finish(8, true)
		if index := <-got; index != 8 {
			t.Errorf("proven by entry %d, which was proposed before the ask; want 8", index)
		}
	})
}

func TestAMemberIsToldToMeetTheBeatThatIsNearToItsPace(t *testing.T) {
	const early = 25 * time.Millisecond // half a lull
	for _, tc := range []struct {
		name          string
		arrived, next time.Duration // from now
		late, want    time.Duration
	}{
		{"just answered by a beat", -30 * time.Millisecond, 495 * time.Millisecond, 0, 470 * time.Millisecond},
		{"as before, far away", -110 * time.Millisecond, 415 * time.Millisecond, 80 * time.Millisecond, 310 * time.Millisecond},
		{"shortly before a beat: the one after it", -10 * time.Millisecond, 100 * time.Millisecond, 0, 575 * time.Millisecond},
		{"a slow proof", -325 * time.Millisecond, 200 * time.Millisecond, 20 * time.Millisecond, 155 * time.Millisecond},
		{"a proof that took longer than that", -510 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRhythm()
				h.plan(time.Now().Add(tc.next))
				if got := h.askIn(testPace, tc.late, time.Now().Add(tc.arrived)); got != tc.want {
					t.Errorf("got %v, want %v (early by %v)", got, tc.want, early)
				}
			})
		})
	}
	if got := newRhythm().askIn(testPace, 0, time.Now()); got != 0 {
		t.Errorf("without a beat: got %v, want 0", got)
	}
}

func TestWhenAMemberAsks(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*reportStream)
		want    time.Duration // from the last ask on
	}{
		{"an answer says nothing: by its own pace", func(s *reportStream) { s.asks(); s.answered(0) }, testPace},
		{"when the leader says", func(s *reportStream) { s.asks(); s.answered(470 * time.Millisecond) }, 470 * time.Millisecond},
		{"what it says is too soon", func(s *reportStream) { s.asks(); s.answered(10 * time.Millisecond) }, testPace},
		{"or too late", func(s *reportStream) { s.asks(); s.answered(time.Minute) }, testPace},
		{"no answer yet: a new ask would make it worthless", func(s *reportStream) { s.asks() }, 2 * testPace},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, asked := &reportStream{replan: make(chan struct{}, 1)}, time.Now()
				tc.prepare(s)
				if got := s.due(asked, testPace).Sub(asked); got != tc.want {
					t.Errorf("got %v, want %v", got, tc.want)
				}
			})
		})
	}
	for name, prepare := range map[string]func(*reportStream){
		"nobody is known to lead": func(s *reportStream) { s.term.Store(0) },
		"its state differs":       func(s *reportStream) { s.n.diverged.Store(true) },
		"the lease goes back":     func(s *reportStream) { s.n.reporter.giving.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoneNode(t)
			l.reporter = newReporter(l.Node)
			s := &reportStream{n: l.Node}
			s.term.Store(1)
			if got := s.untilAsk(time.Time{}); got > 0 {
				t.Fatalf("a stream that never asked: got %v, want at once", got)
			}
			if prepare(s); s.untilAsk(time.Time{}) <= reportInterval {
				t.Error("it asks")
			}
		})
	}
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
				s.begin()
				time.Sleep(10 * time.Second)
				n := s.nodes[0].now().n
				before, began := n.raft.LastIndex(), time.Now()
				for time.Since(began) < time.Minute {
					time.Sleep(20 * time.Millisecond)
					if s.holders() < simVoters {
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
