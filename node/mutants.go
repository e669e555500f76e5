package node

import (
	"context"
	"slices"
	"sync"

	"revoked/fsm"
)

// What some mutants (package mutant) need beyond a line. Nothing here is reached in a build that ships.

// bookLate books the holder of a grant that is about to be sent.
func (l *leases) bookLate(t *leaseTable, a leaseAsk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := t.books[a.server]; b != nil {
		t.book(l.now(), b, a.nonce)
	}
}

// changesNothing reports whether s has operations, all of which were settled before.
func (s *submission) changesNothing() bool {
	return len(s.ops) > 0 && !slices.Contains(s.settled, false)
}

// A sentProof is one that was asked for and has not been answered.
type sentProof struct {
	mu   sync.Mutex
	call *sentCall
}

type sentCall struct {
	done chan struct{}
	s    *submission
	err  error
}

// joinSent is submit for a proof that joins one already sent, if there is one.
func (n *Node) joinSent(ctx context.Context, ops []*fsm.Op, final bool) (*submission, error) {
	n.sent.mu.Lock()
	c := n.sent.call
	if c != nil {
		n.sent.mu.Unlock()
		<-c.done
		return c.s, c.err
	}
	c = &sentCall{done: make(chan struct{})}
	n.sent.call = c
	n.sent.mu.Unlock()
	c.s, c.err = n.submit(ctx, ops, final)
	n.sent.mu.Lock()
	n.sent.call = nil
	n.sent.mu.Unlock()
	close(c.done)
	return c.s, c.err
}
