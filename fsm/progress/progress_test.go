package progress_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"revoked/fsm/progress"
)

var errEnd = errors.New("the end")

// wait starts a Wait for index and returns its future result.
func wait(ctx context.Context, p *progress.Index, index uint64) <-chan error {
	result := make(chan error, 1)
	go func() { result <- p.Wait(ctx, index) }()
	synctest.Wait()
	return result
}

func TestIndex_Advance_WakesWaitersUpToIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress.Index
		five, again, six := wait(t.Context(), &p, 5), wait(t.Context(), &p, 5), wait(t.Context(), &p, 6)
		p.Advance(4)
		synctest.Wait()
		if len(five)+len(again)+len(six) != 0 {
			t.Error("at 4: a waiter for 5 or 6 was woken")
		}
		p.Advance(5)
		p.Advance(3) // never decreases
		synctest.Wait()
		if len(five) != 1 || len(again) != 1 || len(six) != 0 || p.Load() != 5 {
			t.Errorf("at 5: got %d, %d and %d woken and index %d, want 1, 1, 0 and 5", len(five), len(again), len(six), p.Load())
		}
		p.Close(errEnd)
		if err := <-five; err != nil {
			t.Errorf("reached before the end: got %v, want nil", err)
		}
		if err := <-six; !errors.Is(err, errEnd) {
			t.Errorf("not reached: got %v, want %v", err, errEnd)
		}
		if err := p.Wait(t.Context(), 5); err != nil {
			t.Errorf("reached, after the end: got %v, want nil", err)
		}
		if err := p.Wait(t.Context(), 6); !errors.Is(err, errEnd) {
			t.Errorf("not reached, after the end: got %v, want %v", err, errEnd)
		}
	})
}

func TestIndex_CanceledWait_KeepsOtherWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress.Index
		cause := errors.New("canceled by the test")
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient, patient := wait(ctx, &p, 2), wait(t.Context(), &p, 2)
		cancel(cause)
		if err := <-impatient; !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		p.Advance(2)
		if err := <-patient; err != nil {
			t.Errorf("other waiter: got %v, want nil", err)
		}
		if err := p.Wait(ctx, 2); err != nil {
			t.Errorf("reached, with an ended context: got %v, want nil", err)
		}
	})
}

func TestIndex_Next_ClosesOnAdvance(t *testing.T) {
	var p progress.Index
	first := p.Next()
	if p.Next() != first {
		t.Error("got two channels for one advance, want one")
	}
	p.Advance(1)
	<-first
	second := p.Next()
	select {
	case <-second:
		t.Error("after the advance: got a closed channel, want an open one")
	default:
	}
	p.Close(errEnd)
	<-second
	<-p.Next()
}
