package propose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// inFlight limits the number of entries that are proposed but not committed. It is one, because an
// entry carries the commit index of the entry before it. DESIGN.md lists the measurements.
const inFlight = 1

// A Proposer turns proposals into log entries during one term of this node's leadership. Create a
// Proposer only after this node has applied the first command of the term. Then the state that
// proposals are checked against includes every change acknowledged in earlier terms.
type Proposer struct {
	cfg  Config
	term uint64

	batcher batcher
	bulk    *bulkQueue
	pace    Pace
	others  time.Time // when the last entry from a non-bulk caller was proposed
	skips   int       // number of entries since the last bulk entry, while bulk proposals were ready
	slots   chan struct{}
	busy    atomic.Int32 // number of entries in flight

	mu     sync.Mutex // held for sends to the queue of batcher, and to set closed
	closed bool
	wg     sync.WaitGroup
}

// Term returns the term that the proposer was created for.
func (p *Proposer) Term() uint64 { return p.term }

// Barrier commits an entry proposed after the call. It reports false unless the entry is known to
// have committed in the proposer's term.
func (p *Proposer) Barrier(ctx context.Context) bool {
	s := newProposal(nil, false)
	s.lease = true
	return p.propose(ctx, s) == nil && s.term == p.term
}

// propose queues s and blocks until s is answered or ctx ends. The entry omits operations that
// would change nothing, not even the audit log. Their results are returned only once the entry is
// committed. The commit proves that these results are based on current state.
func (p *Proposer) propose(ctx context.Context, s *proposal) error {
	p.check(s)
	if s.bulk {
		if err := p.bulk.push(s); err != nil {
			return err
		}
	} else {
		p.batcher.enter(s)
		defer p.batcher.leave(s)
		if err := p.enqueue(s); err != nil {
			return err
		}
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: wait for the commit: %v", revoked.ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// check fills in the results of operations that need no entry: refused operations, and no-ops that
// leave no audit entry.
func (p *Proposer) check(s *proposal) {
	s.noop = make([]bool, len(s.ops))
	audits := len(s.ops) > 0 && p.cfg.Audits()
	for i, op := range s.ops {
		if err := p.cfg.Admit(op); err != nil {
			s.noop[i], s.results[i] = true, fsm.Result{Err: err}
			continue
		}
		if !p.mayBeNoop(op) {
			continue
		}
		r, ok := p.cfg.State.DryRun(op)
		if ok && (r.Err != nil || !audits || !command.IsAlwaysAudited(op)) {
			s.noop[i], s.results[i] = true, r
		}
	}
}

// mayBeNoop returns false only for a registration with a known client. Registrations are nearly
// always new, and Apply repeats the lookup. The client id of a registration for an unknown client
// could be anything, even a token, so that registration must not enter the log.
func (p *Proposer) mayBeNoop(op *command.Op) bool {
	r := op.GetRegister()
	if r == nil {
		return true
	}
	_, known := p.cfg.State.Client(r.ClientId)
	return !known
}

func (p *Proposer) enqueue(s *proposal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errLeadershipEnded
	}
	return p.batcher.push(s)
}

// Run proposes until ctx ends. Then it answers the proposals that are still queued with
// ErrNoLeader, because they were never proposed. It returns after every proposal has been answered.
func (p *Proposer) Run(ctx context.Context) {
	defer p.stop()
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		shares, ok := p.next(ctx)
		if !ok {
			return
		}
		p.commit(ctx, shares)
	}
}

// next blocks until there is something to propose, and returns the content of the next entry. Bulk
// proposals have separate entries. A bulk entry comes next if no other proposal waits, or after
// maxSkips entries of other callers.
func (p *Proposer) next(ctx context.Context) ([]share, bool) {
	for {
		if waits := p.bulk.isReady(); !waits || p.skips < maxSkips {
			b, ok := p.nextOfOthers(ctx)
			if !ok {
				return nil, false
			}
			if b != nil {
				if waits {
					p.skips++
				}
				return wholes(b), true
			}
		}
		p.skips = 0
		target := applyTargetAlone
		if p.hasOthers() {
			target = applyTarget
		}
		if s := p.bulk.take(p.pace.Ops(target, minBulkOps, maxEntryOps)); len(s) > 0 {
			return s, true
		}
	}
}

// hasOthers reports whether callers made other than bulk proposals recently. Only Run may call it.
func (p *Proposer) hasOthers() bool { return time.Since(p.others) < aloneAfter }

// nextOfOthers returns the next batch without bulk proposals. It returns nil if no such proposal
// waits and a bulk entry may be proposed. It waits briefly for the next operations of callers that
// were just answered.
func (p *Proposer) nextOfOthers(ctx context.Context) (*batch, bool) {
	most := maxGather
	if p.bulk.isReady() {
		most = gatherWait
	}
	b, ok := p.batcher.next(ctx, p.bulk.ready, most)
	if ok && b == nil && time.Since(p.others) < gatherWindow {
		over := make(chan struct{})
		timer := time.AfterFunc(gatherWait, func() { close(over) })
		b, ok = p.batcher.next(ctx, over, gatherWait)
		timer.Stop()
	}
	if b != nil && slices.ContainsFunc(b.proposals, func(s *proposal) bool { return !s.lease }) {
		p.others = time.Now()
	}
	return b, ok
}

func (p *Proposer) stop() {
	p.mu.Lock()
	p.closed = true
	close(p.batcher.queue)
	p.mu.Unlock()
	for s := range p.batcher.queue {
		s.finish(0, errLeadershipEnded)
	}
	for _, s := range p.bulk.close() {
		s.fail(errLeadershipEnded)
	}
	p.wg.Wait()
}

// commit passes one entry to Raft, and answers its proposals in a goroutine.
func (p *Proposer) commit(ctx context.Context, shares []share) {
	data, ops, err := p.encode(shares)
	if err != nil {
		<-p.slots
		p.fail(shares, fmt.Errorf("%w: %v", revoked.ErrInvalid, err))
		return
	}
	p.cfg.Metrics.entryOps.Observe(float64(ops))
	p.busy.Add(1)
	lag := maxLagAlone
	if p.hasOthers() {
		lag = maxLag
	}
	paused := time.Since(p.others) < fewWithin && p.batcher.demand.isSmall()
	started := time.Now()
	future := p.cfg.Log.Apply(data, p.cfg.Timeout)
	p.wg.Go(func() {
		err := future.Error()
		p.busy.Add(-1)
		var out *fsm.Outcome
		if err == nil {
			out, _ = future.Response().(*fsm.Outcome)
		}
		bulk := len(shares) > 0 && shares[0].bulk
		if bulk && out != nil && !isRecord(shares) {
			p.pace.Observe(ops, out.Took) // before the slot is free: the next entry needs it
		}
		if !bulk && err == nil {
			p.batcher.demand.observe(time.Since(started))
		}
		alone := p.isAlone() // evaluated before Run gets the slot and takes the queued proposals
		<-p.slots
		p.traceCommit(shares, ops, started, out, err)
		switch {
		case err != nil:
			p.fail(shares, ApplyError(err))
			return
		case out == nil: // the state machine has failed and will stop this node
			p.fail(shares, fmt.Errorf("%w: apply: %v", revoked.ErrOutcomeUnknown, future.Response()))
			return
		}
		p.cfg.Metrics.commit.Observe(time.Since(started).Seconds())
		final, term := p.distribute(shares, out)
		if alone {
			p.announce(shares, term, out.Index)
		}
		if bulk { // from now on the next entry may have shares of the same proposals
			earlier := p.bulk.committed(out.Index, lag)
			p.wg.Go(func() {
				committed := time.Now()
				p.cfg.KeepUp(ctx, p.term, earlier)
				p.cfg.Metrics.bulkPause.Observe(time.Since(committed).Seconds())
				pause := time.Duration(0)
				if paused {
					pause = min((pauseParts-1)*out.Took, maxPaused)
				}
				p.bulk.reopenAfter(ctx, pause-time.Since(committed))
			})
		}
		p.acknowledge(ctx, final, term, out.Index, ops > 0)
	})
}

// encode returns the command of an entry and the number of operations in it. A command without
// operations is a tick. While a member does not support the newest rules, or has not reported, the
// entry has older rules. In that case encode itself refuses the registrations that the newest rules
// would refuse. While a member does not support the audit log, the entry is not audited and its
// operations have no origin.
func (p *Proposer) encode(shares []share) (data []byte, ops int, err error) {
	cmd := &command.Batch{Stamp: int64(p.cfg.Stamps.Stamp()), Rules: p.cfg.Rules()}
	audits := p.cfg.Audits()
	for _, s := range shares {
		for i := s.from; i < s.to; i++ {
			op := s.ops[i]
			if !s.noop[i] && cmd.Rules < command.RegisterRules && op.GetRegister() != nil {
				if err := p.cfg.State.Review(op); err != nil {
					s.noop[i], s.results[i] = true, fsm.Result{Err: err}
				}
			}
			if s.noop[i] {
				continue
			}
			if audits {
				cmd.Audited = cmd.Audited || command.IsAudited(op)
			} else {
				op = command.WithoutOrigin(op)
			}
			cmd.Ops = append(cmd.Ops, op)
		}
	}
	if len(cmd.Ops) == 0 {
		data, err = command.Encode(&command.Tick{Stamp: cmd.Stamp, Marks: p.cfg.Marks()})
	} else {
		data, err = command.Encode(cmd)
	}
	return data, len(cmd.Ops), err
}

// fail answers the proposals of an entry that failed. Their remaining operations are not proposed.
func (p *Proposer) fail(shares []share, err error) {
	if len(shares) > 0 && shares[0].bulk {
		p.bulk.drop(shares)
		p.bulk.reopen()
	}
	for _, s := range shares {
		s.fail(err)
	}
}

// fail answers a proposal whose operations from s.from on failed or were not proposed.
func (s *share) fail(err error) {
	if s.from > 0 && errors.Is(err, revoked.ErrNoLeader) {
		err = fmt.Errorf("%w: %d of %d operations committed: %v", revoked.ErrOutcomeUnknown, s.from, len(s.ops), err)
	}
	s.finish(0, err)
}

// ApplyError translates an error of raft.Apply: ErrNoLeader if the entry was certainly not
// proposed, else ErrOutcomeUnknown. See hashicorp/raft api.go. Every error that is not listed here
// means an unknown outcome.
func ApplyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %v", revoked.ErrNoLeader, err)
	}
	return fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
}

// distribute copies the results of a committed entry to its proposals and answers the proposals
// that are complete. It returns the proposals whose answer must wait for the leases, and the term
// of the entry.
func (p *Proposer) distribute(shares []share, out *fsm.Outcome) (final []*proposal, term uint64) {
	// The entry was proposed when Raft's term was at least p.term. So if the current term is p.term,
	// it is the term of the entry.
	term = p.cfg.Log.CurrentTerm()
	next := 0
	for _, s := range shares {
		s.term = term
		for i := s.from; i < s.to; i++ {
			if !s.noop[i] {
				s.results[i] = out.Results[next]
				next++
			}
		}
		switch {
		case !s.last():
		case s.mustBeFinal():
			final = append(final, s.proposal)
		default:
			s.finish(out.Index, nil)
		}
	}
	return final, term
}

// acknowledge answers the proposals of the entry at index once no node can still answer from an
// older state. The argument changed reports whether the entry has operations.
func (p *Proposer) acknowledge(ctx context.Context, final []*proposal, term, index uint64, changed bool) {
	if len(final) == 0 {
		return
	}
	committed := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	err := fmt.Errorf("%w: committed at index %d, but term %d has ended", revoked.ErrOutcomeUnknown, index, p.term)
	var wait Wait
	if term == p.term { // the reservations of p.term do not cover leases granted in a later term
		wait, err = p.cfg.Acknowledge(ctx, p.term, index)
	}
	ended := time.Now()
	p.cfg.Metrics.propagation.Observe(ended.Sub(committed).Seconds())
	p.traceWait(final, index, wait, committed, ended, err)
	for _, s := range final {
		s.finish(index, err)
	}
	if err == nil && changed {
		now := p.cfg.Stamps.Stamp()
		p.cfg.Final(revoked.Acknowledgement{Index: index, AppliedAt: now.Add(-time.Since(wait.Began)),
			At: now.Add(-time.Since(ended)), WaitedFor: wait.For})
	}
}

// isAlone reports whether no entry is in flight and no proposal is queued.
func (p *Proposer) isAlone() bool {
	return len(p.batcher.queue) == 0 && p.busy.Load() == 0 && !p.bulk.isReady()
}

// announce notifies the members of a commit, unless the next entry will do so. Barriers of leases
// need no announcement. The leader of a later term notifies the members of its own entries.
func (p *Proposer) announce(shares []share, term, index uint64) {
	lease := !slices.ContainsFunc(shares, func(s share) bool { return !s.lease })
	if term != p.term || lease || !p.isAlone() {
		return
	}
	p.cfg.Announce(term, index)
}
