package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

const testPace = 500 * time.Millisecond

func TestRounds_Request_JoinsOnlyNextRound(t *testing.T) {
	for _, tc := range []struct {
		name  string
		at    time.Duration // time of the request since the last round began
		joins bool
	}{
		{"just before the next round", testPace - window(testPace)/2, true},
		{"the next round is late", testPace + window(testPace)/2, true},
		{"just after the last round, whose entry may precede the reservation", 0, false},
		{"long before the next round", testPace / 2, false},
		{"the next round is overdue", 2 * testPace, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRounds()
				r.begin(time.Now().Add(testPace)).finish(true)
				time.Sleep(tc.at)
				got := make(chan bool, 1)
				go func() { got <- r.join(t.Context(), testPace) }()
				synctest.Wait()
				if waits := len(got) == 0; waits != tc.joins {
					t.Fatalf("waits for the round: got %v, want %v", waits, tc.joins)
				}
				r.begin(time.Now().Add(testPace)).finish(true)
				if ok := <-got; ok != tc.joins {
					t.Errorf("got %v, want %v", ok, tc.joins)
				}
			})
		})
	}
}

func TestRounds_Stopped_JoinFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRounds()
		r.begin(time.Now().Add(window(testPace))).finish(true)
		got := make(chan bool, 1)
		go func() { got <- r.join(t.Context(), testPace) }()
		synctest.Wait()
		r.stop()
		if <-got {
			t.Error("joined before the stop: got true, want false")
		}
		if r.join(t.Context(), testPace) {
			t.Error("joined after the stop: got true, want false")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r.begin(time.Now())
		if r.join(ctx, testPace) {
			t.Error("canceled: got true, want false")
		}
	})
}

// The entry of a round under way may precede a reservation made meanwhile.
func TestRounds_RoundUnderWay_JoinsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRounds()
		slow := r.begin(time.Now().Add(window(testPace) / 2))
		got := make(chan bool, 1)
		go func() { got <- r.join(t.Context(), testPace) }()
		synctest.Wait()
		slow.finish(false)
		synctest.Wait()
		r.begin(time.Now().Add(testPace)).finish(true)
		if !<-got {
			t.Error("got the result of the round under way, want that of the next one")
		}
	})
}

func TestRounds_Next_IsHalfAWindowBeforeARound(t *testing.T) {
	for _, tc := range []struct {
		name          string
		arrived, next time.Duration // from now
		late, want    time.Duration // want is half a window, 25 ms, before a round
	}{
		{"a round just passed", -30 * time.Millisecond, 495 * time.Millisecond, 0, 470 * time.Millisecond},
		{"a round just passed, far away", -110 * time.Millisecond, 415 * time.Millisecond, 80 * time.Millisecond,
			310 * time.Millisecond},
		{"shortly before a round: the one after it", -10 * time.Millisecond, 100 * time.Millisecond, 0,
			575 * time.Millisecond},
		{"a slow barrier", -325 * time.Millisecond, 200 * time.Millisecond, 20 * time.Millisecond, 155 * time.Millisecond},
		{"a barrier slower than a round", -510 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRounds()
				r.plan(time.Now().Add(tc.next))
				if got := r.next(testPace, tc.late, time.Now().Add(tc.arrived)); got != tc.want {
					t.Errorf("got %v, want %v", got, tc.want)
				}
			})
		})
	}
	if got := newRounds().next(testPace, 0, time.Now()); got != 0 {
		t.Errorf("without a round: got %v, want 0", got)
	}
}

// The setting may have become longer or shorter than the lease that is held.
func TestRenewEvery_QuarterOfShorterLength(t *testing.T) {
	l := newLoneNode(t)
	setting := l.Settings().LeaseDuration
	if got := l.leases.renewEvery(); setting <= 0 || got != setting/4 {
		t.Errorf("without a lease: got %v, want a quarter of %v", got, setting)
	}
	for _, tc := range []struct{ held, want time.Duration }{{setting / 6, setting / 6 / 4}, {setting, setting / 4},
		{6 * setting, setting / 4}} {
		l.leases.take(l.reply(tc.held))
		if got := l.leases.renewEvery(); got != tc.want {
			t.Errorf("lease of %v, setting of %v: got %v, want %v", tc.held, setting, got, tc.want)
		}
	}
}

// An idle cluster writes one entry for each round, however far away its members are, and no lease
// ends.
func TestRounds_IdleCluster_OneEntryEach(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration
	}{{"near", 200 * time.Microsecond}, {"far away", 40 * time.Millisecond}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 5, t.TempDir(), newSimCounts())
				s.net.Delay = tc.delay
				defer s.end()
				s.begin()
				time.Sleep(10 * time.Second)
				n := s.nodes[0].now().n
				before, began := n.raft.LastIndex(), time.Now()
				for time.Since(began) < time.Minute {
					time.Sleep(20 * time.Millisecond)
					if s.holders() < simVoters {
						t.Fatalf("lease lost in an idle cluster after %v\n%s", time.Since(began), s.o.lastNotes())
					}
				}
				rounds := uint64(time.Minute / n.leases.renewEvery())
				if got := n.raft.LastIndex() - before; got > rounds+rounds/10 {
					t.Errorf("got %d entries in %d rounds, want one each", got, rounds)
				}
				if s.o.failed() {
					t.Error(s.o.err)
				}
			})
		})
	}
}
