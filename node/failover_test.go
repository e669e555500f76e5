package node

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/node/lease"
)

// A simFailover is the failure of a leader in virtual time. It has the times of the protocol,
// without those of the machine.
type simFailover struct {
	elected time.Duration // until another node may propose
	revoked time.Duration // until a revocation is acknowledged
}

// failOver crashes the leader of an idle cluster and restarts it.
func (s *sim) failOver() (f simFailover) {
	leads := func() *simLife {
		for _, m := range s.nodes {
			if l := m.now(); l != nil && l.n.leadership.proposer() != nil {
				return l
			}
		}
		return nil
	}
	g := s.newGrant()
	old := leads()
	pairs := []revoked.Registration{g.registration()}
	if _, err := old.n.Register(context.Background(), old.actor("issuer"), pairs); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(time.Duration(s.intn(int(2 * time.Second)))) // any phase of the renewals
	old.of.crash(false)
	killed := time.Now()
	for leads() == nil {
		time.Sleep(time.Millisecond)
	}
	f.elected = time.Since(killed)
	if _, err := leads().n.Revoke(context.Background(), leads().actor("app"), g.access); err != nil {
		s.t.Fatal(err)
	}
	f.revoked = time.Since(killed)
	old.of.start(false)
	s.until("every node holds a lease", time.Minute, s.allHold)
	return f
}

// A new leader is usually elected within one and a half heartbeat timeouts. The wait for the lost
// leader's lease overlaps the election: it began with the last entry, before the failure. FAILOVERS
// is the number of failures, and the log has the figures.
func TestFailover_LeaderLost_WaitsOverlap(t *testing.T) {
	kills := 5
	if v := os.Getenv("FAILOVERS"); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, length := range []time.Duration{revoked.DefaultSettings().LeaseDuration, 1200 * time.Millisecond} {
		t.Run(length.String(), func(t *testing.T) { failOvers(t, kills, length) })
	}
}

func failOvers(t *testing.T, kills int, length time.Duration) {
	const slack = 100 * time.Millisecond // votes, the first command, the poll
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 6, t.TempDir(), newSimCounts())
		defer s.end()
		s.timeout, s.settings.LeaseDuration = defaultTimeout, length
		s.begin()
		var elected, acked []time.Duration
		for range kills {
			f := s.failOver()
			elected, acked = append(elected, f.elected), append(acked, f.revoked)
			if most := max(f.elected, lease.ReservedFor(s.settings.LeaseDuration)) + slack; f.revoked > most {
				t.Errorf("elected after %v, revoked after %v, want at most %v", f.elected, f.revoked, most)
			}
		}
		for name, took := range map[string][]time.Duration{"elected": elected, "revoked": acked} {
			slices.Sort(took)
			t.Logf("%s: median %v, worst %v", name, took[len(took)/2], took[len(took)-1])
		}
		// In about one of a hundred failures both followers become candidates concurrently, and the
		// election is repeated.
		if got, most := elected[len(elected)/2], s.timeout*3/2+slack; got > most {
			t.Errorf("elected: got %v in the median, want at most %v", got, most)
		}
	})
}
