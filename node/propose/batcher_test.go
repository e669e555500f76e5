package propose

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBatcher_ExpectedCallers_ShareABatch(t *testing.T) {
	const never = time.Hour
	for _, tt := range []struct {
		name     string
		callers  int           // number of calls that were outstanding at once before the first proposal
		inFlight int           // number of these calls in an earlier batch
		idle     time.Duration // time before the first proposal
		late     int           // number of proposals after the first
		interval time.Duration // time between these proposals
		took     time.Duration // time that earlier batches were in flight
		want     int           // number of proposals in the batch
		wait     time.Duration // time that the batch waits after the first proposal
	}{
		{"a single caller is not delayed", 1, 0, 0, 0, never, time.Second, 1, 0},
		{"a few callers are not delayed", minExpected - 1, 0, 0, 0, never, time.Second, 1, 0},
		{"waits for all expected callers", 16, 0, 0, 20, time.Millisecond / 10, time.Second, 16, 1500 * time.Microsecond},
		{"nearly all callers suffice", 100, 0, 0, 99, time.Millisecond / 100, time.Second, 95, 940 * time.Microsecond},
		{"does not wait for callers in flight", 16, 10, 0, 20, time.Millisecond / 10, time.Second, 6, 500 * time.Microsecond},
		{"a pause ends the wait", 16, 0, 0, 3, time.Millisecond, time.Second, 4, 3*time.Millisecond + maxPause},
		{"a long wait ends", 64, 0, 0, 60, time.Millisecond, time.Second, 8, maxGather},
		{"half of a batch's time", 64, 0, 0, 60, time.Millisecond, 5 * time.Millisecond, 3, 2500 * time.Microsecond},
		{"after a load", 64, 0, 4 * halfLife, 0, never, time.Second, 1, 0},
		{"soon after a load", 64, 0, halfLife, 0, never, time.Second, 1, maxPause},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBatcher()
				b.demand.took = tt.took
				gone := newProposal(nil, false)
				for range tt.callers {
					b.enter(gone)
				}
				b.demand.end(0)
				b.demand.begin(0) // the callers are expected from now on
				for range tt.callers - tt.inFlight {
					b.leave(gone)
				}
				if tt.idle > 0 { // the newest batch came from a single caller that sends rarely
					b.demand.end(0)
				}
				send := func() {
					p := newProposal(nil, false)
					b.enter(p)
					if err := b.push(p); err != nil {
						t.Error(err)
					}
				}
				stop := make(chan struct{})
				go func() {
					time.Sleep(tt.idle)
					send()
					for range tt.late {
						select {
						case <-time.After(tt.interval):
							send()
						case <-stop:
							return
						}
					}
				}()
				began := time.Now()
				got, ok := b.next(context.Background(), nil, maxGather)
				wait := time.Since(began) - tt.idle
				if !ok || len(got.proposals) != tt.want || wait != tt.wait {
					t.Errorf("got %d proposals after %v, want %d after %v", len(got.proposals), wait, tt.want, tt.wait)
				}
				close(stop)
			})
		})
	}
}

// The batcher stops expecting callers that left after some batches.
func TestBatcher_CallersLeave_AreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher()
		b.demand.took = time.Second
		gone := newProposal(nil, false)
		for range 64 {
			b.enter(gone)
		}
		b.demand.end(0)
		b.demand.begin(0)
		for range 64 {
			b.leave(gone)
		}
		b.demand.end(0)
		waits := 0
		for range 40 {
			p := newProposal(nil, false)
			b.enter(p)
			if err := b.push(p); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			b.next(context.Background(), nil, maxGather)
			if time.Since(began) > 0 {
				waits++
			}
			b.leave(p)
		}
		// 64 * (7/8)^16 < 8
		if waits > 16 {
			t.Errorf("got %d batches that waited for callers that left, want at most 16", waits)
		}
	})
}
