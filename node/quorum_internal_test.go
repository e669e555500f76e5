package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/retry"
)

// A voter has not stored the entry that gave the leader its vote. If the leader then removes the
// third voter and fails before the removal commits, the first voter rejects every candidate with
// the removal. The others reject the first voter.
func TestRemove_VoterMissesPromotion_StaysElectable(t *testing.T) {
	for name, healAfter := range map[string]time.Duration{
		"voter returns late":  20 * time.Second,
		"voter returns early": 300 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 11, t.TempDir(), newSimCounts())
				defer s.end()
				s.begin()
				time.Sleep(5 * time.Second)
				m := &simNemesis{s: s, ctx: t.Context()}
				first := m.leading()
				others := s.others(first)
				second, behind := others[0], others[1]
				heal := s.promoteWithout(t, first, second, behind)
				s.transfer(t, first, second)
				s.wg.Go(func() {
					time.Sleep(healAfter)
					heal()
				})

				_, err := second.n.Remove(t.Context(), second.actor("admin"), first.of.id, true, "a test")
				if late := healAfter > time.Second; late != errors.Is(err, revoked.ErrNoLeader) {
					t.Errorf("removal: got %v, want %v: %v", err, revoked.ErrNoLeader, late)
				}
				time.Sleep(healAfter)
				for began := time.Now(); m.leading() == nil; time.Sleep(100 * time.Millisecond) {
					if time.Since(began) > time.Minute {
						t.Fatal("a minute after the fault: got no leader, want one")
					}
				}
				if s.o.failed() {
					t.Error(s.o.err)
				}
			})
		})
	}
}

// A voter has not stored the entry that gave a second one its vote, and the leader is lost. Only
// the second can win, because its log is newer, and only with the vote of the first.
func TestElection_VoterMissesPromotion_VotesForNewerLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 12, t.TempDir(), newSimCounts())
		defer s.end()
		s.begin()
		time.Sleep(5 * time.Second)
		m := &simNemesis{s: s, ctx: t.Context()}
		lost := m.leading()
		others := s.others(lost)
		promoted, behind := others[0], others[1]
		heal := s.promoteWithout(t, lost, promoted, behind)
		lost.of.crash(false)
		heal()
		for began := time.Now(); promoted.n.leadership.proposer() == nil; time.Sleep(100 * time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatal("a minute after the leader was lost: the promoted node does not lead, want it to")
			}
		}
		g := s.newGrant()
		pairs := []revoked.Registration{g.registration()}
		if _, err := behind.n.Register(t.Context(), behind.actor("issuer"), pairs); err != nil {
			t.Error(err)
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}

// others lists the running nodes except one.
func (s *sim) others(l *simLife) (out []*simLife) {
	for _, n := range s.nodes {
		if o := n.now(); o != nil && o != l {
			out = append(out, o)
		}
	}
	return out
}

// promoteWithout demotes the second node, and promotes it again while the third is cut off. heal
// reconnects the third.
func (s *sim) promoteWithout(t *testing.T, first, second, third *simLife) (heal func()) {
	t.Helper()
	must(t, first.n.raft.DemoteVoter(second.self, 0, 0))
	for third.n.fsm.Applied() < first.n.fsm.Applied() {
		time.Sleep(10 * time.Millisecond)
	}
	var heals []func()
	for _, o := range []*simLife{first, second} {
		heals = append(heals, s.net.Cut(o.of.k, third.of.k), s.net.Cut(third.of.k, o.of.k))
	}
	must(t, first.n.raft.AddVoter(second.self, first.addressOf(second.self), 0, 0))
	return func() {
		for _, h := range heals {
			h()
		}
	}
}

// transfer makes the second node the leader instead of the first.
func (s *sim) transfer(t *testing.T, first, second *simLife) {
	t.Helper()
	must(t, first.n.raft.LeadershipTransferToServer(second.self, first.addressOf(second.self)))
	for second.n.leadership.term() == 0 {
		if retry.Sleep(t.Context(), 10*time.Millisecond); t.Context().Err() != nil {
			t.Fatal("the second node does not lead")
		}
	}
}

// addressOf returns the address of a server in the node's newest configuration, or "".
func (l *simLife) addressOf(id raft.ServerID) raft.ServerAddress {
	for _, s := range l.n.raft.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

func must(t *testing.T, f raft.Future) {
	t.Helper()
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
}
