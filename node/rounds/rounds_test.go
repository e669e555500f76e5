package rounds

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
				r := New()
				r.Begin(time.Now().Add(testPace)).Finish(true)
				time.Sleep(tc.at)
				got := make(chan bool, 1)
				go func() { got <- r.Join(t.Context(), testPace) }()
				synctest.Wait()
				if waits := len(got) == 0; waits != tc.joins {
					t.Fatalf("waits for the round: got %v, want %v", waits, tc.joins)
				}
				r.Begin(time.Now().Add(testPace)).Finish(true)
				if ok := <-got; ok != tc.joins {
					t.Errorf("got %v, want %v", ok, tc.joins)
				}
			})
		})
	}
}

func TestRounds_Stopped_JoinFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		r.Begin(time.Now().Add(window(testPace))).Finish(true)
		got := make(chan bool, 1)
		go func() { got <- r.Join(t.Context(), testPace) }()
		synctest.Wait()
		r.Stop()
		if <-got {
			t.Error("joined before the shutdown: got true, want false")
		}
		if r.Join(t.Context(), testPace) {
			t.Error("joined after the shutdown: got true, want false")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r.Begin(time.Now())
		if r.Join(ctx, testPace) {
			t.Error("canceled: got true, want false")
		}
	})
}

// The entry of a round in progress may precede a reservation that is made during the round.
func TestRounds_RequestDuringRound_JoinsNextRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		slow := r.Begin(time.Now().Add(window(testPace) / 2))
		got := make(chan bool, 1)
		go func() { got <- r.Join(t.Context(), testPace) }()
		synctest.Wait()
		slow.Finish(false)
		synctest.Wait()
		r.Begin(time.Now().Add(testPace)).Finish(true)
		if !<-got {
			t.Error("got the result of the round in progress, want that of the next one")
		}
	})
}

func TestRounds_Next_IsHalfAWindowBeforeARound(t *testing.T) {
	for _, tc := range []struct {
		name          string
		arrived, next time.Duration // time from now
		late, want    time.Duration // want is half a window, 25 ms, before a round
	}{
		{"a round just passed", -30 * time.Millisecond, 495 * time.Millisecond, 0, 470 * time.Millisecond},
		{"a round just passed, member far away", -110 * time.Millisecond, 415 * time.Millisecond, 80 * time.Millisecond,
			310 * time.Millisecond},
		{"shortly before a round: the wait ends at the round after it", -10 * time.Millisecond, 100 * time.Millisecond, 0,
			575 * time.Millisecond},
		{"a slow barrier", -325 * time.Millisecond, 200 * time.Millisecond, 20 * time.Millisecond, 155 * time.Millisecond},
		{"a barrier slower than a round", -510 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New()
				r.Plan(time.Now().Add(tc.next))
				if got := r.Next(testPace, tc.late, time.Now().Add(tc.arrived)); got != tc.want {
					t.Errorf("got %v, want %v", got, tc.want)
				}
			})
		})
	}
	if got := New().Next(testPace, 0, time.Now()); got != 0 {
		t.Errorf("without a round: got %v, want 0", got)
	}
}
