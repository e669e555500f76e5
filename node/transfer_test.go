package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A second request would block Raft's goroutine until leadership ends, and the node would reject
// all entries in its next term (hashicorp/raft#696).
func TestTransfer_TargetBehind_IsRequestedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 5, t.TempDir(), newSimCounts())
		defer s.end()
		s.begin()
		ctx := context.Background()
		first := (&simNemesis{s: s}).leader()
		lead, target := first.now(), s.nodes[(first.k+1)%simVoters].now()
		lead.raft.behind.Store(target.self)
		s.until("the target falls behind", time.Minute, func() bool {
			return lead.n.fsm.Applied() > target.n.fsm.Applied()+3
		})
		for range 2 {
			if _, err := lead.n.TransferLeader(ctx, lead.actor("admin"), target.of.id); err == nil {
				t.Fatal("transfer to a member that is behind: got no error, want one")
			}
		}
		if lead.n.raft.State() != raft.Leader {
			t.Fatal("got another leader, want the first one")
		}
		var heals []func()
		for _, m := range s.nodes {
			if m != first {
				heals = append(heals, s.net.Cut(m.k, first.k), s.net.Cut(first.k, m.k))
			}
		}
		s.until("another node leads", time.Minute, func() bool {
			l := (&simNemesis{s: s}).leader()
			return l != nil && l != first && l.now().n.leadership.proposer() != nil
		})
		for _, heal := range heals {
			heal()
		}
		lead.raft.behind.Store(raft.ServerID(""))
		if !s.until("every node holds a lease again", time.Minute, s.allHold) {
			t.Fatal(s.o.err)
		}
		next := (&simNemesis{s: s}).leader().now()
		if _, err := next.n.TransferLeader(ctx, next.actor("admin"), first.id); err != nil {
			t.Fatal(err)
		}
		_, err := lead.n.Register(ctx, lead.actor("issuer"), []revoked.Registration{s.newGrant().registration()})
		if err != nil {
			t.Errorf("registration under the first leader: got %v, want nil", err)
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}
