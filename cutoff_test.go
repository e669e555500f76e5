package revoked_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"revoked"
)

// A cut-off may be in the future by up to max_clock_skew. The API and Apply reject a later one with
// the same text, which names the tolerance.
func TestCheckIssuedBefore_Future_NamesTheTolerance(t *testing.T) {
	s := revoked.Settings{MaxClockSkew: 5 * time.Second}
	now := revoked.TimeOf(time.Unix(1_790_000_000, 0))
	for _, before := range []revoked.Time{1, now, now.Add(s.MaxClockSkew)} {
		if err := s.CheckIssuedBefore(before, now); err != nil {
			t.Errorf("%v after now: got %v, want no error", before.Sub(now), err)
		}
	}
	const want = "issued_before is in the future by more than max_clock_skew, 5s"
	for _, before := range []revoked.Time{now.Add(s.MaxClockSkew) + 1, now.Add(time.Hour)} {
		err := s.CheckIssuedBefore(before, now)
		if !errors.Is(err, revoked.ErrUnprocessable) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%v after now: got %v, want %q", before.Sub(now), err, want)
		}
	}
}
