package node

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// This file brings the lease events of the simulated nodes to the checker that holds them to the rules of the
// model (leasespec_test.go), holds reads up between copy and lease, and has messages come again.

// trace hears an event of a life.
func (o *simOracle) trace(l *simLife, e traceEvent) {
	if e.kind == traceRead {
		o.read(l)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.dead.Load() || l.n == nil && e.kind != traceAsked {
		return
	}
	switch e.kind {
	case traceElected:
		o.count.add("events: elected")
		if l.n.fsm.Applied() < l.lastCommand {
			o.count.add("race: fresh leader's state behind its log")
		}
	case traceOpened:
		if e.term > o.spec.maxOpened {
			if o.openedBy != l.self {
				o.count.add("nemesis: leader changes")
			}
			o.openedBy = l.self
		}
		o.noteLocked(fmt.Sprintf("%s opens term %d at index %d", l.self, e.term, e.index))
	case traceReport:
		o.reports = remember(o.reports, e)
	case traceBooked:
		o.asks = remember(o.asks, e)
	case traceGranted:
		o.grantsSent = remember(o.grantsSent, e)
	case traceLeased:
		if l.n.raft.State() == raft.Leader && l.spec.term < o.spec.maxOpened {
			o.count.add("race: a deposed leader serves itself")
		}
	}
	o.spec.hear(l.spec, e)
}

// read holds a question between the copy and the lease, without any lock.
func (o *simOracle) read(l *simLife) {
	d := l.pauses.Swap(nil)
	if d == nil && l.frozen.Load() == nil {
		return
	}
	o.mu.Lock()
	held, acked := l.spec.valid(), o.spec.acked
	o.mu.Unlock()
	if d != nil {
		time.Sleep(*d)
	}
	for f := l.frozen.Load(); f != nil; f = l.frozen.Load() {
		<-*f
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.spec.acked > acked {
		o.count.add("race: acknowledged between a read and its look at the lease")
	}
	if held && !l.spec.valid() {
		o.count.add("race: resumed after the end of the lease")
	}
}

// remember keeps the newest events; the slices that were handed out stay as they are.
func remember(es []traceEvent, e traceEvent) []traceEvent {
	if len(es) >= 64 {
		es = append([]traceEvent(nil), es[32:]...)
	}
	return append(es, e)
}

// repeat delivers a message of the leases once more: a report or an ask to who leads, if it is still the
// term that it was for, or a grant to whoever it was for, in whatever life.
func (s *sim) repeat(ctx context.Context) {
	s.o.mu.Lock()
	es := [][]traceEvent{s.o.reports, s.o.asks, s.o.grantsSent}[s.intn(3)]
	s.o.mu.Unlock()
	if len(es) == 0 {
		return
	}
	e := es[s.intn(len(es))]
	to := e.node
	if e.kind == traceGranted {
		to = e.ask.server
	}
	l := s.lifeOf(to)
	if l == nil {
		return
	}
	p := l.n.proposer.Load()
	switch {
	case e.kind == traceGranted:
		s.o.count.add("nemesis: grants repeated")
		l.n.leases.take(e.g)
	case p == nil || p.term != e.term:
	case e.kind == traceReport:
		s.o.count.add("nemesis: reports repeated")
		l.n.leases.report(e.ask.server, e.ask.boot, e.ask.applied, e.ask.adopted)
	default:
		s.o.count.add("nemesis: asks repeated")
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			g, reason := l.n.leases.serve(ctx, p, e.ask)
			if x := s.lifeOf(e.ask.server); reason == admitted && x != nil {
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
