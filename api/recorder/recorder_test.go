package recorder_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"revoked"
	"revoked/api/recorder"
)

// A fakeLog records entries. Note blocks while the log is stopped.
type fakeLog struct {
	mu      sync.Mutex
	stopped chan struct{} // nil: it runs
	fail    func(call int) error
	calls   int
	details []string
}

func (f *fakeLog) note(ctx context.Context, _ revoked.Actor, e revoked.AuditEntry) error {
	f.mu.Lock()
	f.calls++
	call, stopped := f.calls, f.stopped
	f.mu.Unlock()
	if stopped != nil {
		select {
		case <-stopped:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", revoked.ErrOutcomeUnknown, ctx.Err())
		}
	}
	if f.fail != nil {
		if err := f.fail(call); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.details = append(f.details, e.Detail)
	return nil
}

func (f *fakeLog) recorded() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.details, "|")
}

func open(f *fakeLog) (*recorder.Recorder, *prometheus.CounterVec) {
	lost := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lost"}, []string{"cause"})
	return recorder.New(recorder.Config{Note: f.note, Now: time.Now, Log: slog.New(slog.DiscardHandler), Lost: lost}), lost
}

var actor = revoked.Actor{ClientID: "admin", RequestID: "r1"}

func entry(detail string) revoked.AuditEntry { return revoked.AuditEntry{Detail: detail} }

// An attempt continues after its call has returned. The entry is recorded if it commits within
// attemptTime.
func TestRecord_SlowCommit_EntryFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLog{stopped: make(chan struct{})}
		r, lost := open(f)
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		r.Record(ctx, actor, entry("a"))
		cancel() // the request has ended
		if took, got := time.Since(start), f.recorded(); took != 2*time.Second || got != "" {
			t.Errorf("got %q after %v, want a return without an entry after 2s", got, took)
		}
		time.Sleep(10 * time.Second)
		close(f.stopped)
		r.Close(t.Context())
		if got := f.recorded(); got != "a" || testutil.CollectAndCount(lost) != 0 {
			t.Errorf("got entries %q, %d causes of loss, want a and none", got, testutil.CollectAndCount(lost))
		}
	})
}

func TestRecord_Failures_RetriedOnlyIfNotProposed(t *testing.T) {
	for _, tt := range []struct {
		name     string
		err      error
		failures int
		want     string // entries after the next call
		calls    int
		lost     float64
	}{
		{"no leader for a while", revoked.ErrNoLeader, 5, "a|b", 7, 0},
		{"no leader", revoked.ErrNoLeader, 1000, "b; 1 earlier entries are missing", 0, 1},
		{"unknown outcome", revoked.ErrOutcomeUnknown, 1, "b; 1 earlier entries are missing", 2, 1},
		{"a member is too old", revoked.ErrUnprocessable, 1, "b", 2, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeLog{}
			f.fail = func(call int) error {
				if call <= tt.failures {
					return fmt.Errorf("%w: test", tt.err)
				}
				return nil
			}
			r, lost := open(f)
			r.Record(t.Context(), actor, entry("a"))
			time.Sleep(time.Minute) // longer than an attempt
			synctest.Wait()
			calls := f.calls
			f.fail = nil
			r.Record(t.Context(), actor, entry("b"))
			r.Close(t.Context())
			if got := f.recorded(); got != tt.want || testutil.ToFloat64(lost.WithLabelValues("error")) != tt.lost {
				t.Errorf("%s: got %q, want %q and %v lost", tt.name, got, tt.want, tt.lost)
			}
			if tt.calls != 0 && calls != tt.calls-1 {
				t.Errorf("%s: got %d calls for the first entry, want %d", tt.name, calls, tt.calls-1)
			}
		})
	}
}

// When its context ends, Close gives up. It counts every entry that is lost then or later.
func TestClose_NoQuorum_EndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLog{stopped: make(chan struct{})}
		r, lost := open(f)
		r.Record(t.Context(), actor, entry("a"))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		r.Close(ctx)
		if took := time.Since(start); took != 3*time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("got a return after %v, want 3s", took)
		}
		r.Record(t.Context(), actor, entry("b"))
		if got := testutil.ToFloat64(lost.WithLabelValues("error")); got != 2 || f.recorded() != "" {
			t.Errorf("got %v lost entries, recorded %q, want 2 and none", got, f.recorded())
		}
	})
}

// Attempts in progress are bounded, so that refusals without a quorum do not fill the memory.
func TestRecord_ManyAttempts_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLog{stopped: make(chan struct{})}
		r, lost := open(f)
		var calls sync.WaitGroup
		for range 1001 {
			calls.Go(func() { r.Record(t.Context(), actor, entry("")) })
		}
		calls.Wait()
		if got := testutil.ToFloat64(lost.WithLabelValues("limit")); got != 1 {
			t.Errorf("got %v lost entries of 1001, want 1", got)
		}
		close(f.stopped)
		r.Close(t.Context())
	})
}
