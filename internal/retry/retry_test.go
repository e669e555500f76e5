package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"revoked/internal/retry"
)

var errBusy = errors.New("busy")

func TestDo_Failures_AreRetriedUntilLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name      string
			failures  int
			timeout   time.Duration
			err       error
			wantCalls int
			wantTime  time.Duration
		}{
			{"first call succeeds", 0, time.Hour, nil, 1, 0},
			{"third call succeeds", 2, time.Hour, nil, 3, 3 * time.Second},
			{"tries used up", 9, time.Hour, errBusy, 4, 6 * time.Second},
			{"context ends", 9, 2 * time.Second, errBusy, 2, 2 * time.Second},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
			start, calls := time.Now(), 0
			err := retry.Do(ctx, time.Second, func(error) int { return 4 }, func() error {
				if calls++; calls <= tt.failures {
					return errBusy
				}
				return nil
			})
			cancel()
			if err != tt.err || calls != tt.wantCalls || time.Since(start) != tt.wantTime {
				t.Errorf("%s: got %v after %d calls in %v, want %v, %d, %v", tt.name, err, calls, time.Since(start), tt.err,
					tt.wantCalls, tt.wantTime)
			}
		}
	})
}
