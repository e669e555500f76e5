package propose_test

import (
	"testing"
	"time"

	"revoked"
	"revoked/node/propose"
)

func TestClock_Stamp_FollowsMedianOfVoters(t *testing.T) {
	type offsets = map[string]time.Duration
	const start = revoked.Time(1_700_000_000_000_000)
	for name, tc := range map[string]struct {
		voters  []string
		offsets map[string]time.Duration
		want    time.Duration // time since start; negative: the clock does not advance
	}{
		"alone":                         {[]string{"self"}, nil, 0},
		"no majority yet":               {[]string{"self", "a", "b"}, nil, -1},
		"two of three":                  {[]string{"self", "a", "b"}, offsets{"a": 2 * time.Second}, 0},
		"one wrong clock of three":      {[]string{"self", "a", "b"}, offsets{"a": time.Hour, "b": time.Second}, time.Second},
		"our clock is wrong":            {[]string{"self", "a", "b"}, offsets{"a": time.Hour, "b": time.Hour}, time.Hour},
		"non-voters are ignored":        {[]string{"self", "a", "b"}, offsets{"c": time.Hour}, -1},
		"even number takes the earlier": {[]string{"self", "a"}, offsets{"a": time.Second}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := propose.NewClock(func() time.Time { return time.UnixMicro(int64(start)) }, "self")
			floor := start.Add(-time.Minute)
			c.Reset(floor)
			c.SetVoters(tc.voters)
			for id, off := range tc.offsets {
				c.Observe(id, start.Add(off))
			}
			want := floor
			if tc.want >= 0 {
				want = start.Add(tc.want)
			}
			if got := c.Stamp(); got != want || c.HasMajority() != (tc.want >= 0) {
				t.Errorf("got %v, majority %t, want %v, %t", got, c.HasMajority(), want, tc.want >= 0)
			}
		})
	}
}

func TestClock_Stamp_NeverGoesBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := propose.NewClock(func() time.Time { return now }, "self")
	c.SetVoters([]string{"self"})
	first := c.Stamp()
	now = now.Add(-time.Hour)
	if got := c.Stamp(); got != first {
		t.Errorf("got %v after the clock went back, want %v", got, first)
	}
}
