package node

import (
	"context"
	"time"

	"revoked/internal/retry"
	"revoked/node/lease"
	"revoked/node/rounds"
)

// grant answers a request in the given term: it reserves the lease, waits for a barrier, and
// returns the reply or a refusal. It may block for one renewal interval and the barrier.
func (l *leases) grant(ctx context.Context, term uint64, r lease.Request) (lease.Reply, lease.Refusal) {
	t, a, refusal := l.admitSoon(ctx, term, r)
	if refusal != lease.Admitted {
		return lease.Reply{}, refusal
	}
	if !t.rounds.Join(ctx, l.renewEvery()) && !t.barrier(ctx) {
		return lease.Reply{}, lease.RefusedSilent
	}
	return t.table.Grant(a), lease.Admitted
}

// admitSoon admits a request. If the member is behind but has a reservation, its next reports may
// lead to its admission. admitSoon waits for them until the member's next renewal is due. Without
// the wait a member under load would be refused, and would retry only a quarter of a lease later.
func (l *leases) admitSoon(ctx context.Context, term uint64, r lease.Request) (*leaseTerm, lease.Admission,
	lease.Refusal) {
	ctx, cancel := context.WithTimeout(ctx, l.renewEvery())
	defer cancel()
	for {
		reported := l.reported.Wait()
		t, a, refusal, retry := l.admit(term, r)
		if !retry {
			return t, a, refusal
		}
		select {
		case <-reported:
		case <-ctx.Done():
			return t, a, refusal
		}
	}
}

// admit decides on a request without waiting. retry reports whether the member is behind but has a
// reservation.
func (l *leases) admit(term uint64, r lease.Request) (t *leaseTerm, a lease.Admission, refusal lease.Refusal,
	retry bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t = l.term
	if t == nil || t.table.Term() != term {
		return nil, a, lease.RefusedSilent, false
	}
	now := l.now()
	a, refusal = t.table.Admit(now, r)
	return t, a, refusal, refusal == lease.RefusedBehind && t.table.IsReserved(r.Server, now)
}

// nextRenewal returns how long a member should wait before its next request, see Rounds.Next.
func (l *leases) nextRenewal(late time.Duration, arrived time.Time) time.Duration {
	l.mu.Lock()
	t := l.term
	l.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.rounds.Next(l.renewEvery(), late, arrived)
}

// A renewal connects renewOwn to the rest of the node. The functions must not block.
type renewal struct {
	applied   func() uint64
	committed func()      // called after a renewal has committed an entry
	outlier   func() bool // whether this node's clock rate is wrong, so that it must not hold a lease
	refused   func(lease.Refusal)
}

// renewOwn keeps the leader's own lease until ctx ends with the term. Each renewal is a round: its
// barrier also serves the members' requests that joined the round. A leader whose clock is an
// outlier does not hold a lease, but still runs the rounds for the others.
func (l *leases) renewOwn(ctx context.Context, term uint64, own renewal) {
	l.mu.Lock()
	t := l.term
	l.mu.Unlock()
	if t == nil {
		return
	}
	defer t.rounds.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		r := l.request()
		r.Applied = own.applied()
		_, a, refusal := l.admitSoon(ctx, term, r)
		round := t.rounds.Begin(began.Add(l.renewEvery()))
		ok := t.barrier(ctx)
		round.Finish(ok)
		if ok {
			own.committed()
		}
		switch {
		case !ok:
			refusal = lease.RefusedSilent
		case refusal == lease.Admitted && own.outlier():
			refusal = lease.RefusedRate
		case refusal == lease.Admitted:
			l.take(t.table.Grant(a))
		}
		if refusal != lease.Admitted && ctx.Err() == nil {
			l.refused(string(refusal))
			own.refused(refusal)
		}
		l.awaitRound(ctx, t.rounds, began)
	}
}

// awaitRound waits until the leader's next renewal. It checks every 200 ms whether the interval
// between renewals has become shorter.
func (l *leases) awaitRound(ctx context.Context, r *rounds.Rounds, began time.Time) {
	for ctx.Err() == nil {
		next := began.Add(l.renewEvery())
		r.Plan(next)
		wait := time.Until(next)
		if wait <= 0 {
			return
		}
		_ = retry.Sleep(ctx, min(wait, 200*time.Millisecond))
	}
}
