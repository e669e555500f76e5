package revoked_test

import (
	"testing"
	"time"

	"revoked"
)

// A token may expire in the year 9999. Its lifetime must not wrap around to a short one.
func TestTime_Sub_IsCapped(t *testing.T) {
	const last = revoked.Time(253402300799 * 1e6)
	const most = 292 * 365 * 24 * time.Hour
	for _, tt := range []struct {
		a, b revoked.Time
		ok   func(time.Duration) bool
	}{
		{5e6, 2e6, func(d time.Duration) bool { return d == 3*time.Second }},
		{2e6, 5e6, func(d time.Duration) bool { return d == -3*time.Second }},
		{last, 0, func(d time.Duration) bool { return d > most }},
		{0, last, func(d time.Duration) bool { return d < -most }},
		{revoked.MaxTime, 1, func(d time.Duration) bool { return d > most }},
		{last, 1_790_000_000e6, func(d time.Duration) bool { return d > most }},
	} {
		if got := tt.a.Sub(tt.b); !tt.ok(got) {
			t.Errorf("%d - %d: got %v", tt.a, tt.b, got)
		}
	}
}
