package node

import (
	"testing"
	"testing/synctest"
	"time"

	"revoked/node/lease"
)

// A member whose clock rate is out of bounds holds no lease and reports the reason; the others hold
// one. If the leader's clock is out of bounds, no node holds a lease.
func TestLease_ClockTooSlow_Refused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		leads   bool
		holders int
	}{{"a follower", false, simVoters - 1}, {"the leader", true, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { rateApart(t, tc.leads, tc.holders) })
		})
	}
}

func rateApart(t *testing.T, leads bool, holders int) {
	s := newSim(t, 5, t.TempDir(), newSimCounts())
	defer s.end()
	for range simVoters {
		s.add()
	}
	for _, m := range s.nodes {
		m.clock.rate = 1
		m.start(false)
	}
	held := func() (n int) {
		for _, m := range s.nodes {
			if m.now().n.leases.valid() {
				n++
			}
		}
		return n
	}
	all := func() bool { return held() == simVoters }
	if !s.until("every node holds a lease", time.Minute, all) {
		t.Fatal(s.o.err)
	}
	var slow *simNode
	for _, m := range s.nodes {
		if (m.now().n.leadership.proposer() != nil) == leads {
			slow = m
		}
	}
	slow.clock.turn(0.90)
	refused := func() bool {
		l := slow.now().n.leases
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.reason == string(lease.RefusedRate)
	}
	if !s.until("the node with the slow clock is refused", time.Minute, refused) {
		t.Fatal(s.o.err)
	}
	time.Sleep(10 * time.Second)
	for range 100 {
		if time.Sleep(100 * time.Millisecond); held() != holders || slow.now().n.leases.valid() {
			t.Fatalf("got %d nodes with a lease, want %d; the slow node holds one: %v", held(), holders,
				slow.now().n.leases.valid())
		}
	}
	slow.clock.turn(1)
	if !s.until("every node holds a lease again", time.Minute, all) {
		t.Error(s.o.err)
	}
}
