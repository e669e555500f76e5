package node

import (
	"context"
	"errors"
	"fmt"
	"io"

	"revoked"
	"revoked/node/bearer"
)

// Peek implements api.Backend: it reads this node's copy of the state, which may be stale. Use it
// for hints and views, never to answer that a token is active.
func (n *Node) Peek(d revoked.Digest) (revoked.Record, error) {
	r, err := n.tokens.Cache.Lookup(d)
	if err != nil {
		return revoked.Record{}, fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	return *r, nil
}

// Status returns the status of the token with digest d, see StatusOf.
func (n *Node) Status(ctx context.Context, d revoked.Digest, caller string) (revoked.TokenStatus, error) {
	return n.status(ctx, &revoked.PresentedToken{Digest: d, Caller: caller})
}

// StatusOf implements api.Backend.
//
// An inactive token stays inactive, so any copy may report it. An active token needs a read lease
// that covers the read. Without a lease, and for an unknown token, the copy is read again behind a
// read barrier. The barriers for unknown tokens are paced per caller.
func (n *Node) StatusOf(ctx context.Context, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	return n.status(ctx, &p)
}

func (n *Node) status(ctx context.Context, p *revoked.PresentedToken) (revoked.TokenStatus, error) {
	mark := n.leases.mark()
	look := n.tokens.Look(p)
	st, err := n.evaluate(ctx, &look)
	if err != nil {
		return revoked.TokenStatus{}, err
	}
	n.cfg.hooks.afterRead()
	// The lease is checked after the read, and must have been in force without a break since mark.
	switch {
	case st.Verdict == revoked.Dead:
		n.metrics.lookups.dead.Inc()
		return st, nil
	case st.Verdict != revoked.Unknown && n.leases.covers(mark):
		n.cfg.hooks.answered()
		n.metrics.lookups.leased.Inc()
		return st, nil
	case st.Verdict == revoked.Unknown:
		n.metrics.lookups.unknown.Inc()
		if p.KnownOnly {
			return st, nil
		}
		err = n.propose.PacedBarrier(ctx, p.Caller) // anyone can make up unknown tokens
	default:
		n.metrics.lookups.unleased.Inc()
		err = n.propose.ReadBarrier(ctx)
	}
	if err != nil {
		n.metrics.barriers.failed.Inc()
		return revoked.TokenStatus{}, err
	}
	n.metrics.barriers.proven.Inc()
	return n.evaluate(ctx, &look)
}

// Explain implements api.Backend. The index and the reason why the token is inactive may be newer
// than the status.
func (n *Node) Explain(ctx context.Context, p revoked.PresentedToken) (revoked.Explanation, error) {
	st, err := n.status(ctx, &p)
	if err != nil {
		return revoked.Explanation{}, err
	}
	x, err := n.tokens.Explain(&p, st)
	if err != nil {
		return revoked.Explanation{}, fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	x.NodeID, x.AppliedIndex, x.LeaseLeft = n.cfg.NodeID, n.fsm.Applied(), max(0, n.leases.remaining())
	return x, nil
}

// AsOf implements api.Backend. A read barrier makes the answer final for every time up to the stamp
// of the barrier's entry: no later entry has an earlier stamp.
func (n *Node) AsOf(ctx context.Context, d revoked.Digest, at revoked.Time) (revoked.PastAnswer, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return revoked.PastAnswer{}, err
	}
	if n.roster.Diverged() {
		return revoked.PastAnswer{}, fmt.Errorf("%w: state differs from the leader's", revoked.ErrNotCurrent)
	}
	if at == 0 {
		at = min(revoked.TimeOf(n.cfg.Now()), n.fsm.Stamp())
	}
	answer, err := n.fsm.AsOf(d, at)
	if err != nil {
		return revoked.PastAnswer{}, fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	return answer, nil
}

// evaluate returns the status of a token in this node's copy. Every error except ErrOverloaded
// wraps ErrNotCurrent: a node that cannot read its store cannot determine whether the token is
// known.
func (n *Node) evaluate(ctx context.Context, l *bearer.Lookup) (revoked.TokenStatus, error) {
	if n.roster.Diverged() {
		return revoked.TokenStatus{}, fmt.Errorf("%w: state differs from the leader's", revoked.ErrNotCurrent)
	}
	st, err := l.Status(ctx)
	if err != nil && !errors.Is(err, revoked.ErrOverloaded) && !errors.Is(err, revoked.ErrNotCurrent) {
		err = fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	return st, err
}

// Grant implements api.Backend. The view is current as of the call.
func (n *Node) Grant(ctx context.Context, id string) (revoked.GrantView, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return revoked.GrantView{}, err
	}
	return n.fsm.View(id, revoked.TimeOf(n.cfg.Now()))
}

// Grants implements api.Backend. The page is current as of the call.
func (n *Node) Grants(ctx context.Context, q revoked.GrantQuery) (revoked.GrantPage, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return revoked.GrantPage{}, err
	}
	return n.fsm.Grants(ctx, &q, revoked.TimeOf(n.cfg.Now()))
}

// Era implements api.Backend.
func (n *Node) Era() string { return revoked.EraOf(n.fsm.ClusterID()) }

// Events implements api.Backend: the events that this node has applied.
func (n *Node) Events(_ context.Context, after uint64, limit int) ([]revoked.Event, uint64, error) {
	return n.fsm.Events(after, limit)
}

// Audit implements api.Backend: the entries that this node has applied.
func (n *Node) Audit(_ context.Context, after uint64, limit int) ([]revoked.AuditEntry, uint64, error) {
	return n.fsm.Audit(after, limit)
}

// WaitAudit implements api.Backend.
func (n *Node) WaitAudit(ctx context.Context, after uint64) error { return n.fsm.WaitAudit(ctx, after) }

// AuditBefore implements api.Backend.
func (n *Node) AuditBefore(at revoked.Time) (uint64, error) { return n.fsm.AuditBefore(at) }

// Newest implements api.Backend. Every event acknowledged before the call has at most the returned
// index. Use it as the start of a feed that must not miss later events.
func (n *Node) Newest(ctx context.Context) (uint64, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return 0, err
	}
	return n.fsm.Applied(), nil
}

// WaitEvent implements api.Backend.
func (n *Node) WaitEvent(ctx context.Context, after uint64) error { return n.fsm.WaitEvent(ctx, after) }

// Client implements api.Backend. Until this node is in a cluster, it returns the bootstrap clients.
func (n *Node) Client(id string) (*revoked.Client, bool) {
	if n.roster.ClusterID() != "" {
		return n.fsm.Client(id)
	}
	for i := range n.cfg.BootstrapClients {
		if c := &n.cfg.BootstrapClients[i]; c.ID == id {
			return c, true
		}
	}
	return nil, false
}

// ClientsCurrent implements api.Backend. After a crash the state may lack the end of the log until
// the node holds its first lease. Until then, the state may not show that a client was disabled. A
// node that is not in a cluster has only its bootstrap clients.
func (n *Node) ClientsCurrent() bool { return n.roster.ClusterID() != "" && n.leases.everHeld.Load() }

// Current implements api.Backend. It needs no barrier under a lease, because this node has then
// applied every acknowledged change. It returns ErrNoCluster if this node is not in a cluster.
func (n *Node) Current(ctx context.Context) error {
	if n.roster.ClusterID() == "" {
		return revoked.ErrNoCluster
	}
	if n.leases.valid() && !n.roster.Diverged() {
		return nil
	}
	return n.propose.ReadBarrier(ctx)
}

// Clients implements api.Backend. The records are current as of the call.
func (n *Node) Clients(ctx context.Context) ([]*revoked.Client, error) {
	if err := n.Current(ctx); err != nil {
		return nil, err
	}
	return n.fsm.Clients(), nil
}

// Settings implements api.Backend. It reads this node's copy, which may be stale, and never blocks.
func (n *Node) Settings() revoked.Settings {
	if n.fsm.ClusterID() == "" {
		return n.cfg.Defaults
	}
	return n.fsm.Settings()
}

// Snapshot implements api.Backend. A read barrier ensures that the backup contains every change
// acknowledged before the call. The node continues to serve while the backup is written. After an
// error w contains an incomplete backup.
func (n *Node) Snapshot(ctx context.Context, w io.Writer) error {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return err
	}
	_, err := n.fsm.WriteSnapshot(ctx, w)
	return err
}
