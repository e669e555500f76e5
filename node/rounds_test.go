package node

import (
	"testing"
	"testing/synctest"
	"time"
)

// The setting may have become longer or shorter than the lease that is held.
func TestRenewEvery_QuarterOfShorterLength(t *testing.T) {
	l := newLoneNode(t)
	setting := l.Settings().LeaseDuration
	if got := l.leases.renewEvery(); setting <= 0 || got != setting/4 {
		t.Errorf("without a lease: got %v, want a quarter of %v", got, setting)
	}
	for _, tc := range []struct{ held, want time.Duration }{{setting / 6, setting / 6 / 4}, {setting, setting / 4},
		{6 * setting, setting / 4}} {
		l.leases.take(l.reply(tc.held))
		if got := l.leases.renewEvery(); got != tc.want {
			t.Errorf("lease of %v, setting of %v: got %v, want %v", tc.held, setting, got, tc.want)
		}
	}
}

// An idle cluster writes one entry for each round, regardless of the network delay between its
// members, and no lease ends.
func TestRounds_IdleCluster_OneEntryEach(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration
	}{{"near", 200 * time.Microsecond}, {"long network delay", 40 * time.Millisecond}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 5, t.TempDir(), newSimCounts())
				s.net.Delay = tc.delay
				defer s.end()
				s.begin()
				time.Sleep(10 * time.Second)
				n := s.nodes[0].now().n
				before, began := n.raft.LastIndex(), time.Now()
				for time.Since(began) < time.Minute {
					time.Sleep(20 * time.Millisecond)
					if s.holders() < simVoters {
						t.Fatalf("lease lost in an idle cluster after %v\n%s", time.Since(began), s.o.lastNotes())
					}
				}
				rounds := uint64(time.Minute / n.leases.renewEvery())
				if got := n.raft.LastIndex() - before; got > rounds+rounds/10 {
					t.Errorf("got %d entries in %d rounds, want one each", got, rounds)
				}
				if s.o.failed() {
					t.Error(s.o.err)
				}
			})
		})
	}
}
