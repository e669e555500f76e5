package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/internal/mutant"
)

// A submission is what one caller wants in the log: any number of operations, decided together but
// each for itself. With none it asks only for proof: an entry that was proposed after it came in and
// committed, whose index is a point that reads must have reached.
type submission struct {
	ops   []*fsm.Op
	final bool // answer only when no node can still say "active" against it
	lease bool // proves a lease: no follower waits until it has applied the entry
	bytes int

	settled []bool // by the leader: the op changes nothing, its result stands
	results []opResult
	index   uint64
	term    uint64 // of the entry, known to the leader only
	err     error
	done    chan struct{}
}

// An opResult is the outcome of one operation, local or told by the leader.
type opResult struct {
	err     error
	index   uint64
	created bool
	revoked bool
	grantID string // of a registration: where its tokens are
	ended   bool   // known to the leader only: of a registration that made an older token inactive
}

func newSubmission(ops []*fsm.Op, final bool) *submission {
	s := &submission{ops: ops, final: final, results: make([]opResult, len(ops)), done: make(chan struct{})}
	for _, op := range ops {
		s.bytes += proto.Size(op) + 4
	}
	return s
}

// mustBeFinal reports whether the answer waits until every node knows: that is asked for, or one of its
// registrations ended something.
func (s *submission) mustBeFinal() bool {
	return s.final || slices.ContainsFunc(s.results, func(r opResult) bool { return r.ended })
}

// finish answers the caller, once.
func (s *submission) finish(index uint64, err error) {
	s.index, s.err = index, err
	close(s.done)
}

// submit brings ops to whoever leads and waits for the outcome. Attempts that are known not to have
// been proposed are repeated with the next leader until ctx ends; so is a mere question, whatever
// became of it: the leader may have died over it, and asking again changes nothing.
//
// Errors: ErrNoLeader (nothing was proposed), ErrOutcomeUnknown, ErrOverloaded, ErrClosed.
func (n *Node) submit(ctx context.Context, ops []*fsm.Op, final bool) (*submission, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
	defer cancel()
	for {
		changed := n.leaderChange.wait()
		s := newSubmission(ops, final)
		err := n.route(ctx, s)
		if err == nil {
			return s, nil
		}
		again := errors.Is(err, revoked.ErrNoLeader) || len(ops) == 0 && errors.Is(err, revoked.ErrOutcomeUnknown)
		if !again {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-n.ctx.Done():
			return nil, revoked.ErrClosed
		case <-changed:
		case <-time.After(retryPause): // a leader may be known to Raft before it is known to be open
		}
	}
}

const retryPause = 50 * time.Millisecond

// route tries once: this node's proposer when it leads, else the leader as Raft knows it.
func (n *Node) route(ctx context.Context, s *submission) error {
	if p := n.proposer.Load(); p != nil {
		return p.submit(ctx, s)
	}
	return n.forward.submit(ctx, s)
}

// prove returns an index that was committed by an entry proposed after the call, once this node has
// applied it: what is read from now on is current as of the call.
func (n *Node) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
	defer cancel()
	submit := n.submit
	if mutant.On(mutant.JoinSentCall) {
		submit = n.joinSent
	}
	s, err := submit(ctx, nil, false)
	if err != nil {
		if errors.Is(err, revoked.ErrOutcomeUnknown) {
			return fmt.Errorf("%w: the leader's word did not come", revoked.ErrNotCurrent)
		}
		return err
	}
	if err := n.fsm.Wait(ctx, s.index); err != nil {
		return fmt.Errorf("%w: this node is behind index %d", revoked.ErrNotCurrent, s.index)
	}
	return nil
}
