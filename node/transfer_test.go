package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A wish for a transfer that Raft did not come to stays where the next one blocks. If leadership ended then,
// the node would refuse every entry whenever it leads again (hashicorp/raft#696).
func TestATransferIsNotWishedForTwice(t *testing.T) {
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
		for range 2 { // as an operator would
			if _, err := lead.n.TransferLeader(ctx, target.of.id); err == nil {
				t.Fatal("leadership went to a member that is behind")
			}
		}
		if lead.n.raft.State() != raft.Leader {
			t.Fatal("it leads no more: the test proves nothing")
		}
		var heals []func()
		for _, m := range s.nodes {
			if m != first {
				heals = append(heals, s.net.cut(m.k, first.k), s.net.cut(first.k, m.k))
			}
		}
		s.until("another leads", time.Minute, func() bool {
			l := (&simNemesis{s: s}).leader()
			return l != nil && l != first && l.now().n.proposer.Load() != nil
		})
		for _, heal := range heals {
			heal()
		}
		lead.raft.behind.Store(raft.ServerID(""))
		if !s.until("every node holds a lease again", time.Minute, s.allHold) {
			t.Fatal(s.o.err)
		}
		if _, err := (&simNemesis{s: s}).leader().now().n.TransferLeader(ctx, first.id); err != nil {
			t.Fatal(err)
		}
		_, err := lead.n.Register(ctx, lead.actor("issuer"), []revoked.Registration{s.newGrant().registration()})
		if err != nil {
			t.Errorf("the first leader leads again, and a registration: %v", err)
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}

// A Raft that is shut down takes wishes and answers none.
func TestNothingIsWishedForOfARaftThatEnds(t *testing.T) {
	n := &Node{} // no Raft: a wish would be a panic
	n.wishes.close()
	if err := n.wish(raft.Server{ID: "b"}); !errors.Is(err, raft.ErrRaftShutdown) {
		t.Errorf("got %v, want %v", err, raft.ErrRaftShutdown)
	}
}
