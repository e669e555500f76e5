package node

import (
	"context"
	"sync/atomic"
	"time"
)

// A gatherer takes submissions from a queue in batches: one that waits, and whatever else is there.
//
// Under load the callers of one batch come back one after the other, and the first of them would get
// an entry of its own. So while many are outstanding, a batch waits a moment until it holds its share
// of them. A lone caller is never delayed.
type gatherer struct {
	outstanding atomic.Int64 // operations that were submitted and have not been answered
}

const (
	patience = time.Millisecond // less than a commit
	crowd    = 8                // outstanding operations from which waiting pays
	share    = 3                // a batch should hold one in so many of what is outstanding
)

// weight is what a submission counts for: one that asks for proof alone counts as well.
func (s *submission) weight() int { return max(1, len(s.ops)) }

// enter and leave are called around the life of a submission.
func (g *gatherer) enter(s *submission) { g.outstanding.Add(int64(s.weight())) }
func (g *gatherer) leave(s *submission) { g.outstanding.Add(-int64(s.weight())) }

// A batch is what one entry, or one call to the leader, is made of. With no submissions it is a tick.
type batch struct {
	subs   []*submission
	ops    int
	bytes  int
	weight int
}

func (b *batch) add(s *submission) {
	b.subs = append(b.subs, s)
	b.ops += len(s.ops)
	b.bytes += s.bytes
	b.weight += s.weight()
}

func (b *batch) full() bool { return b.ops >= maxEntryOps || b.bytes >= maxEntryBytes }

// next waits for a submission, or for tick, and returns it with what else is there. It reports false
// when ctx has ended.
func (g *gatherer) next(ctx context.Context, queue <-chan *submission, tick <-chan struct{}) (*batch, bool) {
	b := &batch{}
	select {
	case s := <-queue:
		b.add(s)
	case <-tick:
	case <-ctx.Done():
		return nil, false
	}
	g.drain(b, queue)
	if all := int(g.outstanding.Load()); len(b.subs) > 0 && all >= crowd && b.weight < all/share {
		g.linger(ctx, b, queue, all/share)
	}
	return b, true
}

func (g *gatherer) drain(b *batch, queue <-chan *submission) {
	for !b.full() {
		select {
		case s := <-queue:
			b.add(s)
		default:
			return
		}
	}
}

// linger waits a moment until the batch weighs want.
func (g *gatherer) linger(ctx context.Context, b *batch, queue <-chan *submission, want int) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for b.weight < want && !b.full() {
		select {
		case s := <-queue:
			b.add(s)
		case <-timer.C:
			g.drain(b, queue)
			return
		case <-ctx.Done():
			return
		}
	}
	g.drain(b, queue)
}
