package node

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
	"revoked/internal/mutant"
)

// Bounds of one log entry and of what waits for one.
const (
	maxEntryOps    = 1024
	maxEntryBytes  = 512 << 10
	maxQueue       = 16 << 10 // submissions
	proposalsAhead = 1        // in flight: an entry carries the commit index of the one before it, see DESIGN.md
)

// A proposer turns submissions into log entries during one term of this node's leadership. It exists
// only after the first command of that term has been applied here, so what Settled reads is at least
// as new as everything acknowledged before.
type proposer struct {
	n    *Node
	term uint64

	gather gatherer
	rhythm *rhythm
	queue  chan *submission
	slots  chan struct{}
	wanted chan struct{} // a tick would carry the commit index to the followers
	busy   atomic.Int32  // proposals in flight

	mu     sync.Mutex // guards closed against sends on queue
	closed bool
	wg     sync.WaitGroup
}

func newProposer(n *Node, term uint64) *proposer {
	return &proposer{
		n: n, term: term,
		rhythm: newRhythm(),
		queue:  make(chan *submission, maxQueue),
		slots:  make(chan struct{}, proposalsAhead),
		wanted: make(chan struct{}, 1),
	}
}

// submit queues s and waits for its outcome. The leader looks each operation up first: one that
// would change nothing is left out of the entry, and its result is told once a later entry has
// committed, which proves that the look-up was current.
func (p *proposer) submit(ctx context.Context, s *submission) error {
	s.settled = make([]bool, len(s.ops))
	for i, op := range s.ops {
		if err := p.n.admitOp(op); err != nil {
			s.settled[i], s.results[i] = true, opResult{err: err}
			continue
		}
		if !p.mayBeSettled(op) {
			continue
		}
		if r, ok := p.n.fsm.Settled(op); ok {
			s.settled[i], s.results[i] = true, localResult(r)
		}
	}
	if mutant.On(mutant.RepeatAckedAtOnce) && s.changesNothing() {
		s.finish(p.n.fsm.Applied(), nil)
		return nil
	}
	p.gather.enter(s)
	defer p.gather.leave(s)
	if err := p.enqueue(s); err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: no answer in time", revoked.ErrOutcomeUnknown)
	}
}

// mayBeSettled spares registrations, which are nearly always new, a look-up that Apply repeats. What
// names no client may be anything, a token too, and stays out of the log.
func (p *proposer) mayBeSettled(op *fsm.Op) bool {
	r := op.GetRegister()
	if r == nil {
		return true
	}
	_, known := p.n.fsm.Client(r.ClientId)
	return !known
}

func localResult(r fsm.Result) opResult {
	return opResult{err: r.Err, index: r.Index, created: r.Register.Created, revoked: r.Register.Revoked, grantID: r.Register.GrantID, ended: r.Ended}
}

func (p *proposer) enqueue(s *submission) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("%w: leadership has ended", revoked.ErrNoLeader)
	}
	select {
	case p.queue <- s:
		return nil
	default:
		return fmt.Errorf("%w: %d calls wait for the log", revoked.ErrOverloaded, maxQueue)
	}
}

// run proposes until ctx ends, then answers what is left: it was never proposed.
func (p *proposer) run(ctx context.Context) {
	defer p.stop()
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		b, ok := p.gather.next(ctx, p.queue, p.wanted)
		if !ok {
			return
		}
		p.propose(ctx, b.subs)
	}
}

func (p *proposer) stop() {
	p.mu.Lock()
	p.closed = true
	close(p.queue)
	p.mu.Unlock()
	for s := range p.queue {
		s.finish(0, fmt.Errorf("%w: leadership has ended", revoked.ErrNoLeader))
	}
	p.wg.Wait()
}

func (p *proposer) propose(ctx context.Context, batch []*submission) {
	cmd := &fsm.Batch{Stamp: int64(p.n.stamps.stamp())}
	for _, s := range batch {
		for i, op := range s.ops {
			if !s.settled[i] {
				cmd.Ops = append(cmd.Ops, op)
			}
		}
	}
	var (
		data []byte
		err  error
	)
	if len(cmd.Ops) == 0 {
		data, err = fsm.Encode(fsm.TypeTick, &fsm.Tick{Stamp: cmd.Stamp})
	} else {
		data, err = fsm.Encode(fsm.TypeBatch, cmd)
	}
	if err != nil {
		<-p.slots
		for _, s := range batch {
			s.finish(0, fmt.Errorf("%w: %v", revoked.ErrInvalid, err))
		}
		return
	}
	p.n.metrics.entryOps.Observe(float64(len(cmd.Ops)))
	p.busy.Add(1)
	started := time.Now()
	future := p.n.raft.Apply(data, p.n.cfg.RequestTimeout)
	p.wg.Go(func() {
		err := future.Error()
		p.busy.Add(-1)
		<-p.slots
		if err != nil {
			p.fail(batch, err)
			return
		}
		out, ok := future.Response().(*fsm.Outcome)
		if !ok { // the state could not apply it: this node is about to end
			p.fail(batch, fmt.Errorf("apply: %v", future.Response()))
			return
		}
		p.n.metrics.commit.Observe(time.Since(started).Seconds())
		p.succeed(ctx, batch, out)
	})
}

// fail answers a batch whose entry did not come back.
func (p *proposer) fail(batch []*submission, err error) {
	for _, s := range batch {
		s.finish(0, applyError(err))
	}
}

// applyError tells what is known of an entry after an error of Raft: certainly not proposed, or
// unknown. See hashicorp/raft api.go; everything not listed is unknown.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %v", revoked.ErrNoLeader, err)
	}
	return fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
}

// succeed hands out the results of a committed entry. Submissions that are final only when every
// member has applied them wait for that without holding up the rest.
func (p *proposer) succeed(ctx context.Context, batch []*submission, out *fsm.Outcome) {
	// The entry was proposed when the term was at least p.term; if it is no higher now, that is the
	// entry's own term.
	term := p.n.raft.CurrentTerm()
	next := 0
	var final []*submission
	for _, s := range batch {
		s.term = term
		for i := range s.ops {
			if !s.settled[i] {
				s.results[i] = localResult(out.Results[next])
				next++
			}
		}
		if s.mustBeFinal() {
			final = append(final, s)
			continue
		}
		s.finish(out.Index, nil)
	}
	if slices.ContainsFunc(batch, func(s *submission) bool { return !s.lease }) && len(p.queue) == 0 && p.busy.Load() == 0 && !p.n.peers.alone() {
		select {
		case p.wanted <- struct{}{}:
		default:
		}
	}
	if len(final) == 0 {
		return
	}
	committed := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.n.cfg.RequestTimeout)
	defer cancel()
	err := fmt.Errorf("%w: committed at index %d in a later term than it was proposed for", revoked.ErrOutcomeUnknown, out.Index)
	if term == p.term { // else the books of p.term know nothing of the leases granted since
		err = p.n.leases.acknowledge(ctx, p.term, out.Index)
	}
	p.n.metrics.propagation.Observe(time.Since(committed).Seconds())
	for _, s := range final {
		s.finish(out.Index, err)
	}
}
