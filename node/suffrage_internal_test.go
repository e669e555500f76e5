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

// A demotion is committed, but a member has not applied it, so its outcome is unknown. A promotion
// at that member must undo it, or else the leader demotes the node after the answer.
func TestPromote_AtMemberBehindDemotion_UndoesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 7, t.TempDir(), newSimCounts())
		defer s.end()
		s.begin()
		time.Sleep(5 * time.Second)
		m := &simNemesis{s: s, ctx: t.Context()}
		var behind, other *simLife
		lead := m.leading()
		for _, n := range s.nodes {
			switch l := n.now(); {
			case l == lead:
			case behind == nil:
				behind = l
			default:
				other = l
			}
		}
		open := behind.gate.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := lead.n.Demote(ctx, lead.actor("admin"), other.of.id)
		cancel()
		if !errors.Is(err, revoked.ErrOutcomeUnknown) {
			t.Fatalf("demotion that a member has not applied: got %v, want an unknown outcome", err)
		}
		promoted := make(chan error, 1)
		go func() {
			_, err := behind.n.Promote(t.Context(), behind.actor("admin"), other.of.id)
			promoted <- err
		}()
		time.Sleep(100 * time.Millisecond)
		open()
		if err := <-promoted; err != nil {
			t.Fatalf("promotion: %v", err)
		}
		for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
			conf, err := lead.n.roster.Configuration()
			if err != nil {
				t.Fatal(err)
			}
			for _, srv := range conf.Servers {
				if srv.ID == other.self && srv.Suffrage != raft.Voter {
					t.Fatalf("%v after the promotion: got %s without a vote, want a voter", time.Since(began), other.of.id)
				}
			}
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}
