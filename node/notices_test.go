package node

import (
	"testing"
	"testing/synctest"
	"time"

	"revoked"
)

// A single revocation is one entry. Its notice reaches every member, so no member waits for another
// entry. If the notices are lost, Raft's own message follows.
func TestNotices_SingleRevocation_OneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 5, t.TempDir(), newSimCounts())
		defer s.end()
		s.begin()
		lead := s.leader(t)
		token := byte(0)
		revoke := func() (index uint64, took time.Duration) {
			t.Helper()
			token++
			began := time.Now()
			res, err := lead.n.Revoke(t.Context(), lead.actor("app"), revoked.DigestToken(string(token)))
			if err != nil {
				t.Fatal(err)
			}
			return res.Index, time.Since(began)
		}
		// Raft's own messages have arrived, and the acknowledgement is recorded.
		wait := func() { time.Sleep(1700 * time.Millisecond) }

		const calls = 20
		alone := 0
		for range calls {
			wait()
			before := lead.n.raft.LastIndex()
			index, took := revoke()
			if took > 20*time.Millisecond {
				t.Errorf("got the answer after %v, want it after a notice", took)
			}
			if before+1 == index && lead.n.raft.LastIndex() == index { // else a round of leases came between
				alone++
			}
			for _, m := range s.nodes {
				if got := m.now().n.fsm.Applied(); got < index {
					t.Errorf("%s: got index %d applied, want the revocation's %d", m.id, got, index)
				}
			}
		}
		if alone < calls/2 {
			t.Errorf("got %d of %d revocations that were one entry, want most", alone, calls)
		}
		waited := 0
		for range calls {
			wait()
			for _, m := range s.nodes {
				m.now().raft.notices.lose.Store(2) // the first may be about the entry before
			}
			_, took := revoke()
			if took > time.Second {
				t.Errorf("got the answer after %v, want it after Raft's own message", took)
			}
			if took > 20*time.Millisecond { // else another message was lost
				waited++
			}
		}
		if waited < calls/2 {
			t.Errorf("got %d of %d revocations that waited for a lost notice, want most", waited, calls)
		}
		if s.o.failed() {
			t.Error(s.o.err)
		}
	})
}

// leader returns the process that leads.
func (s *sim) leader(t *testing.T) *simLife {
	t.Helper()
	for _, m := range s.nodes {
		if l := m.now(); l != nil && l.n.leadership.proposer() != nil {
			return l
		}
	}
	t.Fatal("got no leader, want one")
	return nil
}
