package node

import (
	"context"
	"time"
)

// A gatherer takes submissions from a queue in batches: one that waits, and whatever else is there.
//
// Under load the callers of one batch come back one after the other, and the first of them would get
// an entry of its own, so a gatherer whose batches were large lately waits a moment for the others. A
// lone caller is never delayed: batches of one teach it not to wait.
type gatherer struct {
	usual float64 // size of late batches, smoothed
}

const (
	patience = 400 * time.Microsecond // far below a commit
	crowd    = 8                      // usual size from which waiting pays
)

// A batch is what one entry, or one call to the leader, is made of. With no submissions it is a tick.
type batch struct {
	subs  []*submission
	ops   int
	bytes int
}

func (b *batch) add(s *submission) {
	b.subs = append(b.subs, s)
	b.ops += len(s.ops)
	b.bytes += s.bytes
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
	if want := int(g.usual / 2); len(b.subs) > 0 && g.usual >= crowd && len(b.subs) < want && !b.full() {
		g.linger(ctx, b, queue, want)
	}
	if len(b.subs) > 0 {
		g.usual += (float64(len(b.subs)) - g.usual) / 4
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

// linger waits a moment until the batch has the size that it usually has by half.
func (g *gatherer) linger(ctx context.Context, b *batch, queue <-chan *submission, want int) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(b.subs) < want && !b.full() {
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
