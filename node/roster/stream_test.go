package roster

import (
	"testing"
	"testing/synctest"
	"time"
)

const (
	testInterval = 500 * time.Millisecond
	planned      = 470 * time.Millisecond
)

func TestSchedule_Next_FollowsLeaderWithinLimits(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*schedule)
		want    time.Duration // after the last request
	}{
		{"no plan of the leader", func(s *schedule) { s.requested(); s.answered(0) }, testInterval},
		{"plan of the leader", func(s *schedule) { s.requested(); s.answered(planned) }, planned},
		{"plan too early", func(s *schedule) { s.requested(); s.answered(10 * time.Millisecond) }, testInterval},
		{"plan too late", func(s *schedule) { s.requested(); s.answered(time.Minute) }, testInterval},
		{"open request", func(s *schedule) { s.requested() }, 2 * testInterval},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s schedule
				requested := time.Now()
				tc.prepare(&s)
				if got := s.next(requested, testInterval).Sub(requested); got != tc.want {
					t.Errorf("got %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestReportStream_Ineligible_RequestsNoLease(t *testing.T) {
	for name, prepare := range map[string]func(*reportStream){
		"unknown leader": func(s *reportStream) { s.term.Store(0) },
		"diverged state": func(s *reportStream) { s.diverged.Store(true) },
		"lease returned": func(s *reportStream) { s.returning.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			l := &local{Config: Config{Holder: Holder{RenewEvery: func() time.Duration { return testInterval }}}}
			s := newReportStream(newReporter(l), "", nil)
			s.term.Store(1)
			if got := s.untilRenewal(time.Time{}); got > 0 {
				t.Fatalf("before the first request: got %v, want 0 or less", got)
			}
			if prepare(s); s.untilRenewal(time.Time{}) <= ReportInterval {
				t.Errorf("got %v, want never", s.untilRenewal(time.Time{}))
			}
		})
	}
}
