package propose_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/node/propose"
)

// counts returns how many entries were proposed, and how many of them have committed.
func (l *fakeLog) counts() (proposed, committed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proposed, l.proposed - len(l.pending)
}

// commitAfter commits each entry after a random time, until ctx ends.
func (l *fakeLog) commitAfter(ctx context.Context, rng *rand.Rand, most time.Duration) {
	for index := uint64(1); ctx.Err() == nil; index++ {
		time.Sleep(time.Duration(rng.Int64N(int64(most)))) // virtual time
		l.commit(index)
	}
}

// A request needs the commit of an entry that was proposed after the request arrived. An earlier
// barrier does not suffice.
func TestPacedBarrier_ManyRequests_ShareLaterBarriers(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r, log := newRouter(t)
			ctx, cancel := context.WithCancel(context.Background())
			var committing, asking sync.WaitGroup
			rng := rand.New(rand.NewPCG(seed, 1))
			committing.Go(func() { log.commitAfter(ctx, rng, 120*time.Millisecond) })
			const requests, length = 2000, 4 * time.Second
			for i := range requests {
				caller, at := fmt.Sprint("c", i%2), time.Duration(i)*length/requests
				asking.Go(func() {
					time.Sleep(at)
					before, _ := log.counts()
					if err := r.PacedBarrier(ctx, caller); err != nil {
						t.Errorf("got %v, want no error", err)
					}
					if _, committed := log.counts(); committed <= before {
						t.Errorf("got an answer with %d entries committed, want more than the %d proposed before", committed, before)
					}
				})
			}
			asking.Wait()
			cancel()
			committing.Wait()
			// Each of the two callers may begin a burst of ten barriers, and then one barrier every 50 ms.
			if proposed, _ := log.counts(); proposed > 2*(10+80+10) {
				t.Errorf("got %d entries for %d requests, want at most 200", proposed, requests)
			}
		})
	}
}

// asks starts n paced barriers for a caller, and returns a channel that receives their results.
func asks(r *propose.Router, caller string, n int) <-chan error {
	answers := make(chan error, n)
	for range n {
		go func() { answers <- r.PacedBarrier(context.Background(), caller) }()
	}
	synctest.Wait()
	return answers
}

func TestPacedBarrier_AfterBurst_DelaysOnlyThatCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRouter(t)
		commit := func() (n int) {
			for synctest.Wait(); log.commit(7); synctest.Wait() {
				n++
			}
			return n
		}
		flood := asks(r, "flood", 100)
		if commit(); len(flood) != 10 {
			t.Fatalf("got %d answers immediately, want a burst of 10", len(flood))
		}
		other := asks(r, "other", 1)
		if commit(); len(other) != 1 || len(flood) != 10 {
			t.Errorf("another caller: got %d answers, and %d of the first caller, want 1 and 10", len(other), len(flood))
		}
		time.Sleep(time.Second)
		if n := commit(); n != 1 || len(flood) != 100 {
			t.Errorf("got %d entries and %d answers, want one entry for the other 90", n, len(flood))
		}
		time.Sleep(time.Second)
		again := asks(r, "flood", 1)
		if commit(); len(again) != 1 {
			t.Errorf("after a pause: got %d answers immediately, want 1", len(again))
		}
	})
}

func TestPacedBarrier_NodeStops_EndsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopping := make(chan struct{})
		r, log := newRouter(t, func(c *propose.Config) { c.Stopping = stopping })
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		answers := asks(r, "rs", 20)
		for log.commit(7); len(answers) < 10; log.commit(7) {
			synctest.Wait()
		}
		close(stopping)
		cancel()
		running.Wait()
		synctest.Wait()
		failed := 0
		for range 20 {
			if errors.Is(<-answers, revoked.ErrClosed) {
				failed++
			}
		}
		if failed != 10 {
			t.Errorf("got %d requests that ended with %v, want 10", failed, revoked.ErrClosed)
		}
		if err := r.PacedBarrier(context.Background(), "rs"); !errors.Is(err, revoked.ErrClosed) {
			t.Errorf("after Run: got %v, want %v", err, revoked.ErrClosed)
		}
	})
}

func TestPacedBarrier_RequestEnds_ReturnsNotCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRouter(t)
		answers := asks(r, "rs", 10)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.PacedBarrier(ctx, "rs"); !errors.Is(err, revoked.ErrNotCurrent) {
			t.Errorf("got %v, want %v", err, revoked.ErrNotCurrent)
		}
		for log.commit(7); len(answers) < 10; log.commit(7) {
			synctest.Wait()
		}
		time.Sleep(time.Second) // in this time, the barrier of the request that has ended begins
	})
}
