package node

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"revoked/node/lease"
	"revoked/node/lease/leasecheck"
)

// watchElections counts the elections that an incarnation wins.
func (o *simOracle) watchElections(l *simLife) {
	l.n.raft.RegisterObserver(raft.NewObserver(nil, false, func(e *raft.Observation) bool {
		if state, ok := e.Data.(raft.RaftState); ok && state == raft.Leader && !l.dead.Load() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.count.add("events: elected")
			if l.n.fsm.Applied() < l.lastCommand {
				o.count.add("race: new leader's state behind its log")
			}
		}
		return false
	}))
}

// repeat delivers an old message of the leases again. A report or a request goes to the leader of
// its term, a reply to any incarnation of its server. Only a build with the tag sim has old
// messages.
func (s *sim) repeat(ctx context.Context) {
	s.o.mu.Lock()
	es := [][]leasecheck.Event{s.o.reports, s.o.requests, s.o.replies}[s.intn(3)]
	s.o.mu.Unlock()
	if len(es) == 0 {
		return
	}
	e := es[s.intn(len(es))]
	to := raft.ServerID(e.Node)
	if e.Kind == leasecheck.Granted {
		to = raft.ServerID(e.Server)
	}
	l := s.lifeOf(to)
	if l == nil {
		return
	}
	r := lease.Request{Server: e.Server, Boot: e.Boot, Nonce: e.Nonce, Applied: e.Applied, Adopted: e.Adopted,
		Dropped: e.Dropped}
	switch {
	case e.Kind == leasecheck.Granted:
		s.o.count.add("nemesis: replies repeated")
		l.n.leases.take(lease.Reply{Term: e.Term, Nonce: e.Nonce, Boot: e.Boot, Length: e.Length})
	case l.n.leadership.term() != e.Term:
	case e.Kind == leasecheck.Reported:
		s.o.count.add("nemesis: reports repeated")
		l.n.leases.report(raft.ServerID(r.Server), r.Boot, r.Applied, r.Adopted)
	default:
		s.o.count.add("nemesis: requests repeated")
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			g, refusal := l.n.leases.grant(ctx, e.Term, r)
			if x := s.lifeOf(raft.ServerID(r.Server)); refusal == lease.Admitted && x != nil {
				x.n.leases.take(g)
			}
		})
	}
}

func (s *sim) lifeOf(id raft.ServerID) *simLife {
	for _, m := range s.nodes {
		if l := m.now(); l != nil && l.self == id && l.frozen.Load() == nil {
			return l
		}
	}
	return nil
}
