package clientauth_test

import (
	"testing"
	"time"

	"revoked/api/clientauth"
)

var start = time.Unix(1_790_000_000, 0)

// Requests do not end in the order in which they began, so a call may have an earlier time than the
// call before it.
func TestLimiter_TimeGoesBack_CreditsOnce(t *testing.T) {
	l := clientauth.NewLimiter(10, 10)
	for range 10 {
		l.Take("caller", start)
	}
	taken := 0
	for i := range 1000 { // all within 100 ms, which credit one unit
		if l.Take("caller", start.Add(time.Duration(i%2)*100*time.Millisecond)) == 0 {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("got %d units in 100 ms, want 1", taken)
	}
}

func TestLimiter_Charge_LeavesDebt(t *testing.T) {
	l := clientauth.NewLimiter(10, 10)
	for range 30 {
		l.Charge("caller", start)
	}
	for _, row := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {2 * time.Second, true}, {2050 * time.Millisecond, true}, {2150 * time.Millisecond, false}} {
		if got := l.Empty("caller", start.Add(row.after)); got != row.want {
			t.Errorf("after %v: got empty %t, want %t", row.after, got, row.want)
		}
	}
	if l.Empty("another", start) {
		t.Error("another caller: got empty, want a full budget")
	}
}

func TestLimiter_RefusedTake_CostsNothing(t *testing.T) {
	l := clientauth.NewLimiter(10, 10)
	for range 1000 {
		l.Take("caller", start)
	}
	if l.Empty("caller", start.Add(150*time.Millisecond)) {
		t.Error("got empty after the time of one unit, want a unit")
	}
}
