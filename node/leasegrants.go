package node

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/mutant"
)

// serve admits an ask, books it, proves that this node still leads its term by an entry proposed
// afterwards, and returns the grant; or the reason why there is none.
func (l *leases) serve(ctx context.Context, p *proposer, a leaseAsk) (leaseGrant, refusalReason) {
	t, length, reason := l.admitSoon(ctx, p, a)
	if reason != admitted {
		return leaseGrant{}, reason
	}
	index, ok := p.rhythm.join(ctx, l.n.renewEvery())
	if !ok {
		if index, ok = l.proven(ctx, p); !ok {
			return leaseGrant{}, refusedSilent
		}
	}
	return l.granted(t, p, a, index, length), admitted
}

func (l *leases) granted(t *leaseTable, p *proposer, a leaseAsk, index uint64, length time.Duration) leaseGrant {
	if mutant.On(mutant.BookAtGrant) {
		l.bookLate(t, a)
	}
	g := leaseGrant{term: p.term, nonce: a.nonce, boot: a.boot, length: length}
	l.trace(traceEvent{kind: traceGranted, term: p.term, index: index, ask: a, g: g})
	return g
}

// admitSoon admits an ask. A member for which a place is kept may be behind by as much as is on its way here:
// its next reports are waited for, until it would ask again.
func (l *leases) admitSoon(ctx context.Context, p *proposer, a leaseAsk) (*leaseTable, time.Duration, refusalReason) {
	ctx, cancel := context.WithTimeout(ctx, l.n.renewEvery())
	defer cancel()
	for {
		reported := l.reported.wait()
		t, length, reason, kept := l.admit(p, a)
		if reason != refusedBehind || !kept {
			return t, length, reason
		}
		select {
		case <-reported:
		case <-ctx.Done():
			return t, length, reason
		}
	}
}

// admit decides on an ask once, under the lock, and says whether a place is kept for the member.
func (l *leases) admit(p *proposer, a leaseAsk) (t *leaseTable, length time.Duration, reason refusalReason, kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t = l.table
	if t == nil || t.term != p.term {
		return nil, 0, refusedSilent, false
	}
	now := l.now()
	reason = t.admit(now, a)
	if reason == admitted {
		a.applied = t.books[a.server].applied // by its newest report
		l.trace(traceEvent{kind: traceBooked, term: t.term, ask: a, g: leaseGrant{length: t.length}})
	}
	t.release(now)
	return t, t.length, reason, t.kept(a.server, now)
}

// proven reports whether an entry that is proposed from now on has been committed in the proposer's
// term, and at which index.
func (l *leases) proven(ctx context.Context, p *proposer) (index uint64, ok bool) {
	switch {
	case mutant.On(mutant.GrantOnState):
		return 0, l.n.raft.State() == raft.Leader
	case mutant.On(mutant.VerifyLeader):
		return 0, l.n.raft.VerifyLeader().Error() == nil
	}
	s := newSubmission(nil, false)
	s.lease = true
	if p.submit(ctx, s) != nil || s.term != p.term {
		return 0, false
	}
	return s.index, true
}

// leaseSelf keeps the leader's own lease: it reads by the same path as everybody. Its proofs are shared
// by the members' asks, and show that entries commit.
func (n *Node) leaseSelf(ctx context.Context, p *proposer, w *watchdog) {
	l := n.leases
	l.adopt(p.term)
	defer p.rhythm.stop()
	for ctx.Err() == nil {
		began := time.Now()
		a := l.ask()
		a.applied = n.fsm.Applied()
		t, length, reason := l.admitSoon(ctx, p, a)
		r := p.rhythm.beat(began.Add(n.renewEvery()))
		index, ok := l.proven(ctx, p)
		r.finish(index, ok)
		if ok {
			w.feed()
		}
		switch {
		case !ok:
			reason = refusedSilent
		case reason == admitted && n.peers.alien():
			reason = refusedRate
		case reason == admitted:
			l.take(l.granted(t, p, a, index, length))
		}
		if reason != admitted && ctx.Err() == nil {
			l.refused(string(reason))
			n.metrics.leaseRefusals.WithLabelValues(string(reason)).Inc()
		}
		n.rest(ctx, p, began)
	}
}

// rest waits until the leader's next ask is due, in steps: the interval may become shorter.
func (n *Node) rest(ctx context.Context, p *proposer, began time.Time) {
	for ctx.Err() == nil {
		next := began.Add(n.renewEvery())
		p.rhythm.plan(next)
		left := time.Until(next)
		if left <= 0 {
			return
		}
		n.pause(ctx, min(left, reportInterval))
	}
}
