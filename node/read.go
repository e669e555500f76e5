package node

import (
	"context"
	"fmt"

	"revoked"
	"revoked/internal/mutant"
)

// Peek implements api.StatusReader: this node's own copy, proven by nothing.
func (n *Node) Peek(d revoked.Digest) (revoked.Record, error) {
	r, err := n.cache.Lookup(d)
	if err != nil {
		return revoked.Record{}, fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	return *r, nil
}

// Status implements api.StatusReader.
//
// Dead may be said by any copy at any time. Everything else that the copy holds may be said under a
// read lease. Without one, and for a token that it does not hold, the copy must be proven current: by
// the leader's word, given through an entry that was proposed after the question, and applied here
// before the record is read again. One call serves all questions that wait when it is sent.
func (n *Node) Status(ctx context.Context, d revoked.Digest) (revoked.Status, error) {
	mark := n.leases.mark()
	early := mutant.On(mutant.CheckBeforeRead) && n.leases.covers(mark)
	st, err := n.judge(d)
	if err != nil {
		return revoked.Status{}, err
	}
	n.cfg.seams.trace(traceEvent{kind: traceRead, node: n.self})
	// The record has been read: only now is the clock compared with the end of the lease, of a lease
	// that was in force without a break since before the record was read.
	switch {
	case st.Verdict == revoked.Dead:
		n.metrics.lookups.dead.Inc()
		return st, nil
	case st.Verdict != revoked.Unknown && (early || n.leases.covers(mark)):
		n.cfg.seams.trace(traceEvent{kind: traceLeased, node: n.self})
		n.metrics.lookups.leased.Inc()
		return st, nil
	case st.Verdict == revoked.Unknown:
		n.metrics.lookups.unknown.Inc()
	default:
		n.metrics.lookups.unleased.Inc()
	}
	if err := n.prove(ctx); err != nil {
		n.metrics.proofs.WithLabelValues("failed").Inc()
		return revoked.Status{}, err
	}
	n.metrics.proofs.WithLabelValues("proven").Inc()
	return n.judge(d)
}

// judge reads the record and decides on this node's copy.
func (n *Node) judge(d revoked.Digest) (revoked.Status, error) {
	if n.diverged.Load() {
		return revoked.Status{}, fmt.Errorf("%w: its state differs from the leader's", revoked.ErrNotCurrent)
	}
	r, err := n.cache.Lookup(d)
	if err != nil {
		return revoked.Status{}, fmt.Errorf("%w: %v", revoked.ErrNotCurrent, err)
	}
	v := revoked.Decide(r, n.fsm.Circumstances(r.Grant.ClientID, revoked.TimeOf(n.cfg.Now())))
	return revoked.Status{Verdict: v, Record: *r}, nil
}
