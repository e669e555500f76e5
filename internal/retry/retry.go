// Package retry retries a call with growing delays.
package retry

import (
	"context"
	"time"
)

// Sleep waits for d. It returns ctx.Err() if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do calls f until it returns nil, has been called tries(err) times, or ctx ends. It returns the
// last error. Do waits step before the second call, 2*step before the third, and so on.
func Do(ctx context.Context, step time.Duration, tries func(error) int, f func() error) error {
	for calls := 1; ; calls++ {
		err := f()
		if err == nil || calls >= tries(err) || Sleep(ctx, time.Duration(calls)*step) != nil {
			return err
		}
	}
}
