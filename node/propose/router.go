package propose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/fair"
	"revoked/internal/tracing"
	"revoked/node/nodepb"
)

// A Router sends proposals to the leader, which may be this node. All methods may be called
// concurrently.
type Router struct {
	cfg       Config
	leading   func() *Proposer
	forwarder *forwarder
	bulk      *fair.Gate
	pacer     pacer
}

// NewRouter returns a router, whose Run method must be started. The function leading returns the
// proposer of this node's term, or nil if the node may not propose. It may be called concurrently.
func NewRouter(cfg Config, leading func() *Proposer) *Router {
	return &Router{cfg: cfg, leading: leading, forwarder: newForwarder(cfg), bulk: fair.NewGate(bulkCalls)}
}

// Run forwards proposals until ctx ends. Config.Stopping must be closed by then.
func (r *Router) Run(ctx context.Context) {
	r.forwarder.run(ctx)
	r.pacer.close()
}

// NewProposer returns the proposer of a term, whose Run method must be started.
func (r *Router) NewProposer(term uint64) *Proposer {
	return &Proposer{
		cfg: r.cfg, term: term, batcher: newBatcher(), bulk: newBulkQueue(),
		slots: make(chan struct{}, inFlight),
	}
}

// Propose commits ops and blocks until the outcome is known. If final is set, it returns only when
// no node can still report the old state. It retries after ErrNoLeader, which means that nothing
// was proposed. It also retries a read barrier whose outcome is unknown. It gives up once
// Config.NoLeader returns an error.
//
// Errors: ErrNoLeader (nothing was proposed), ErrOutcomeUnknown, ErrOverloaded, ErrClosed. The
// errors of single operations are in the results.
func (r *Router) Propose(ctx context.Context, ops []*command.Op, final bool) (fsm.Outcome, error) {
	for _, op := range ops {
		command.Via(op, r.cfg.NodeID)
	}
	return r.submit(ctx, r.cfg.Timeout, func() *proposal { return newProposal(ops, final) })
}

// ProposeBulk is like Propose with final false, for registrations that may wait. Their order is
// kept, but they may be spread over several entries, between the entries of other callers. Each
// result has the index of its entry. The wait for the client's turn has no timeout except ctx.
// After that wait, the call takes at most six times the timeout of other calls.
func (r *Router) ProposeBulk(ctx context.Context, ops []*command.Op) (fsm.Outcome, error) {
	switch err := r.bulk.Enter(ctx, r.cfg.Stopping, clientOf(ops)); {
	case errors.Is(err, fair.ErrStopped):
		return fsm.Outcome{}, revoked.ErrClosed
	case err != nil: // nothing was proposed
		return fsm.Outcome{}, fmt.Errorf("%w: %w", revoked.ErrNoLeader, err)
	}
	defer r.bulk.Leave()
	return r.submit(ctx, bulkTries*r.cfg.Timeout, func() *proposal {
		s := newProposal(ops, false)
		s.bulk = true
		return s
	})
}

// submit calls attempt and records a span for it.
func (r *Router) submit(ctx context.Context, timeout time.Duration, propose func() *proposal) (fsm.Outcome, error) {
	ctx, span := r.cfg.Tracer.Start(ctx, "propose")
	out, err := r.attempt(ctx, timeout, propose)
	if span.IsSampled() {
		span.Set(tracing.Int(attrIndex, out.Index), tracing.Int(attrOps, len(out.Results)))
	}
	span.End(failure(err))
	return out, err
}

// attempt makes proposals until one is answered or the timeout has passed.
func (r *Router) attempt(ctx context.Context, timeout time.Duration, propose func() *proposal) (fsm.Outcome, error) {
	ctx, cancel := limit(ctx, timeout)
	defer cancel()
	if err := r.cfg.NoLeader(); err != nil {
		return fsm.Outcome{}, err
	}
	for {
		changed := r.cfg.LeaderChanged()
		s := propose()
		s.parents = r.cfg.Tracer.Parents(ctx)
		err := r.try(ctx, s)
		if err == nil && len(s.ops) == 1 && errors.Is(s.results[0].Err, revoked.ErrNoLeader) {
			err = s.results[0].Err // Config.Admit cannot decide yet: the leader is new
		}
		if err == nil {
			return fsm.Outcome{Index: s.index, Results: s.results}, nil
		}
		retry := errors.Is(err, revoked.ErrNoLeader) || len(s.ops) == 0 && errors.Is(err, revoked.ErrOutcomeUnknown)
		if !retry {
			return fsm.Outcome{}, err
		}
		if useless := r.cfg.NoLeader(); useless != nil {
			return fsm.Outcome{}, useless
		}
		select {
		case <-ctx.Done():
			return fsm.Outcome{}, err
		case <-r.cfg.Stopping:
			return fsm.Outcome{}, revoked.ErrClosed
		case <-changed:
		case <-time.After(RetryPause):
		}
	}
}

// limit returns a context that ends after timeout, or with ctx if that is earlier. Requests of the
// API end earlier, so they do not pay for a second context.
func limit(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// try proposes s once. It forwards s to the leader that Raft knows, unless this node leads.
func (r *Router) try(ctx context.Context, s *proposal) error {
	if p := r.leading(); p != nil {
		return p.propose(ctx, s)
	}
	return r.forwarder.propose(ctx, s)
}

// Commit proposes one operation that must be final and returns the index of its entry.
func (r *Router) Commit(ctx context.Context, op *command.Op) (uint64, error) {
	res, err := r.CommitResult(ctx, op)
	return res.Index, err
}

// CommitResult is like Commit, but returns the whole result, with the index of the entry as its
// Index.
func (r *Router) CommitResult(ctx context.Context, op *command.Op) (fsm.Result, error) {
	out, err := r.Propose(ctx, []*command.Op{op}, true)
	if err == nil {
		err = out.Results[0].Err
	}
	if err != nil {
		return fsm.Result{}, err
	}
	res := out.Results[0]
	res.Index = out.Index
	return res, nil
}

// CommitHere is like Commit, but also blocks until this node has applied the entry.
func (r *Router) CommitHere(ctx context.Context, op *command.Op) (uint64, error) {
	index, err := r.Commit(ctx, op)
	if err != nil {
		return 0, err
	}
	if err := r.cfg.State.Wait(ctx, index); err != nil {
		return 0, fmt.Errorf("%w: committed at index %d, not yet applied on this node", revoked.ErrOutcomeUnknown, index)
	}
	return index, nil
}

// ReadBarrier blocks until this node has applied an entry that was proposed after the call and
// committed. Reads after it returns are current as of the call. It returns ErrNotCurrent if the
// entry may not have committed, or if this node does not apply the entry in time.
func (r *Router) ReadBarrier(ctx context.Context) error {
	ctx, cancel := limit(ctx, r.cfg.Timeout)
	defer cancel()
	out, err := r.Propose(ctx, nil, false)
	if errors.Is(err, revoked.ErrOutcomeUnknown) {
		return fmt.Errorf("%w: no answer from the leader", revoked.ErrNotCurrent)
	}
	if err != nil {
		return err
	}
	if err := r.cfg.State.Wait(ctx, out.Index); err != nil {
		return fmt.Errorf("%w: index %d is not applied on this node", revoked.ErrNotCurrent, out.Index)
	}
	return nil
}

// PacedBarrier is like ReadBarrier, for a caller that may need many barriers. Requests of the
// caller beyond a burst wait for at most 50 ms and then share one barrier. A request joins only a
// barrier that has not begun yet.
func (r *Router) PacedBarrier(ctx context.Context, caller string) error {
	shared, err := r.pacer.enter(caller, r.cfg.Stopping, func() error { return r.ReadBarrier(context.Background()) })
	switch {
	case err != nil:
		return err
	case shared == nil:
		return r.ReadBarrier(ctx)
	}
	ctx, cancel := limit(ctx, r.cfg.Timeout)
	defer cancel()
	select {
	case <-shared.done:
		return shared.err
	case <-ctx.Done():
		return fmt.Errorf("%w: no answer from the leader", revoked.ErrNotCurrent)
	}
}

// Serve proposes the operations that another member, named via, has forwarded. It never forwards
// them again, and returns ErrNoLeader if this node does not lead. Apply checks the actor of each
// operation against the state.
func (r *Router) Serve(ctx context.Context, via string, req *nodepb.SubmitRequest) *nodepb.SubmitResponse {
	s := newProposal(req.Ops, req.Final)
	s.bulk = req.Bulk
	spans := r.traceServed(via, req)
	s.parents = spans.Parents()
	err := r.serve(ctx, via, req, s)
	spans.End(failure(err))
	return s.response(err)
}

func (r *Router) serve(ctx context.Context, via string, req *nodepb.SubmitRequest, s *proposal) error {
	p := r.leading()
	if p == nil {
		return revoked.ErrNoLeader
	}
	for _, op := range req.Ops {
		if op.GetActor().GetClientId() == "" || op.Kind == nil { // only the leader proposes operations without a client
			return fmt.Errorf("%w: operation without actor or kind", revoked.ErrInvalid)
		}
		if op.Origin != nil {
			op.Origin.Node = "" // command.Via sets it to via, the name in the member's certificate
		}
		command.Via(op, via)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout(r.cfg.Timeout))
	defer cancel()
	err := p.propose(ctx, s)
	for i, op := range req.Ops {
		if command.IsAdministrative(op) {
			r.cfg.Forwarded(via, op, outcomeOf(s, i, err))
		}
	}
	return err
}

// outcomeOf returns the outcome of the i-th operation of s, whose proposal ended with err.
func outcomeOf(s *proposal, i int, err error) fsm.Result {
	if err != nil { // the results may not be complete
		return fsm.Result{Err: err}
	}
	res := s.results[i]
	res.Index = cmp.Or(res.Index, s.index)
	return res
}
