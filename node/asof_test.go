package node

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// A simPast is an earlier answer. It was read from a copy with a stamp between from and to.
type simPast struct {
	token    revoked.Digest
	from, to revoked.Time
	verdict  revoked.Verdict
}

// simPastAnswers is the number of answers that the oracle remembers for each grant: the first and
// the newest.
const simPastAnswers = 6

// remember stores an answer, to compare it with AsOf at the end.
func (o *simOracle) remember(g *simGrant, p simPast) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(g.past) == simPastAnswers {
		g.past = slices.Delete(g.past, simPastAnswers/2, simPastAnswers/2+1)
	}
	g.past = append(g.past, p)
}

// pastAnswers returns the remembered answers about grants. The caller holds the lock.
func (o *simOracle) pastAnswers(grants []*simGrant) (all []simPast) {
	for _, g := range grants {
		all = append(all, g.past...)
	}
	return all
}

// checkPast compares the answers of a node about the past with the answers that were given then.
// The node's copy must be current. Times are stamps of the log, because the clocks of the nodes may
// jump.
func (o *simOracle) checkPast(l *simLife, past []simPast) {
	for _, p := range past {
		at := p.to
		if p.verdict == revoked.Unknown {
			at = p.from - 1 // it was not registered yet when the call began
		}
		got, err := l.n.fsm.AsOf(p.token, at)
		if err != nil {
			o.fail("store", "%s: as of: %v", l.self, err)
			return
		}
		h, err := l.n.fsm.History(p.token)
		if err != nil {
			o.fail("store", "%s: history: %v", l.self, err)
			return
		}
		// The state of a removed record is not_held, and so is any state before the history began.
		ok := got.State == revoked.PastNotHeld && (h.Since == 0 || at < h.Since || at < h.Reaped && !h.Record.Found ||
			at < h.Undenied)
		switch p.verdict {
		case revoked.Active: // it may have ended since the answer began
			ok = ok || got.State == revoked.PastActive || got.State == revoked.PastInactive && got.Since >= p.from
		case revoked.Unknown:
			ok = ok || got.State == revoked.PastUnknown || got.Reason == revoked.ReasonDenied
		default:
			ok = ok || got.State == revoked.PastInactive
		}
		if !ok {
			o.fail("as of", "%s reports %+v about a token for which a node answered %v between %d and %d", l.self, got,
				p.verdict, p.from, p.to)
			return
		}
		o.count.add("checks: answers of the past")
	}
}

// Every node reports when a revoked token became inactive, when that became final, and for which
// nodes the leader waited. One entry records this. An idle cluster does not write such entries.
func TestAsOf_Revocation_AllNodesReportFinalTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 11, t.TempDir(), newSimCounts())
		defer s.end()
		s.begin()
		lead := s.leader(t)
		wait := func() { time.Sleep(3 * finalsEvery) }
		wait()
		if _, err := lead.n.Revoke(t.Context(), lead.actor("app"), s.newGrant().access); err != nil {
			t.Fatal(err)
		}
		wait()
		if !lead.n.fsm.KeepsHistory() {
			t.Fatal("got no history after a revocation, want one")
		}
		g := s.newGrant()
		regs := []revoked.Registration{g.registration()}
		if _, err := lead.n.Register(t.Context(), lead.actor("issuer"), regs); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		active := lead.n.roster.Clock.Stamp()
		time.Sleep(time.Second)
		called := lead.n.roster.Clock.Stamp()
		res, err := lead.n.Revoke(t.Context(), lead.actor("app"), g.access)
		if err != nil {
			t.Fatal(err)
		}
		answered := lead.n.roster.Clock.Stamp()
		wait()
		for _, m := range s.nodes {
			n := m.now().n
			if got, err := n.AsOf(t.Context(), g.access, active); err != nil || got.State != revoked.PastActive ||
				got.Until < called || got.Until > answered {
				t.Errorf("%s before: got %+v, %v, want active until the revocation", m.id, got, err)
			}
			got, err := n.AsOf(t.Context(), g.refresh, 0)
			if err != nil || got.State != revoked.PastInactive || got.Reason != revoked.ReasonRevoked ||
				got.Index != res.Index || got.Final == nil {
				t.Fatalf("%s after: got %+v, %v, want inactive by index %d", m.id, got, err, res.Index)
			}
			f := got.Final
			if got.Since < called || f.AppliedAt < got.Since || f.At < f.AppliedAt || f.At > answered {
				t.Errorf("%s: got times %d, %d, %d, want them in order between %d and %d", m.id, got.Since, f.AppliedAt, f.At,
					called, answered)
			}
			if len(f.WaitedFor) == 0 || slices.Contains(f.WaitedFor, lead.of.id) {
				t.Errorf("%s: got a wait for %v, want only members other than the leader", m.id, f.WaitedFor)
			}
		}
		before := s.o.commands()
		time.Sleep(time.Minute)
		if got := s.o.commands(); got != before {
			t.Errorf("idle for a minute: got %d entries with operations, want none", got-before)
		}
		for range 40 { // within one second: one more entry holds all their records
			if _, err := lead.n.Revoke(t.Context(), lead.actor("app"), s.newGrant().access); err != nil {
				t.Fatal(err)
			}
		}
		wait()
		if got := s.o.commands() - before; got != 42 && got != 41 {
			t.Errorf("40 revocations: got %d entries with operations, want one or two more", got)
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}

// commands returns the number of entries with operations in any log.
func (o *simOracle) commands() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.batches
}

// isBatch reports whether the bytes of an entry are a command with operations.
func isBatch(data []byte) bool {
	c, err := command.Decode(data)
	_, batch := c.(*command.Batch)
	return err == nil && batch
}
