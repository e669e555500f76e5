package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A puppet plays Raft's main loop: it says that its term is over, that it leads in the next, and takes a
// change then.
type puppet struct {
	h       *herald
	changes chan struct{}
	took    bool // a change, in the later term
}

func (p *puppet) loseAndWin(ctx context.Context) {
	for _, leads := range []bool{false, true} {
		select {
		case p.h.says <- leads:
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-p.changes:
		p.took = true
	case <-ctx.Done():
	}
}

// hand is RemoveServer as Raft has it.
func (p *puppet) hand(wait time.Duration) raft.IndexFuture {
	select {
	case p.changes <- struct{}{}:
		return doneFuture{errors.New("taken")}
	case <-time.After(wait):
		return doneFuture{raft.ErrEnqueueTimeout}
	}
}

type doneFuture struct{ err error }

func (f doneFuture) Error() error  { return f.err }
func (f doneFuture) Response() any { return nil }
func (f doneFuture) Index() uint64 { return 0 }

// A removal waits until its server can hold no lease, by the books of a term. Then it stalls, over two
// elections of this very node, until it is handed to Raft: the later leader may have granted the server a
// lease meanwhile, and takes the removal not.
func TestARemovalThatStallsIsNotTakenInALaterTerm(t *testing.T) {
	l := newLoneNode(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		l.Node.ctx, l.herald = ctx, newHerald()
		l.open()
		p := &puppet{h: l.herald, changes: make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() { l.herald.run(ctx, l.leases.end) })
		stalls := func(wait time.Duration) raft.IndexFuture { // the books have been looked at
			wg.Go(func() { p.loseAndWin(ctx) })
			synctest.Wait()
			return p.hand(wait)
		}
		if _, err := l.change(ctx, loneTerm, stalls); !errors.Is(err, revoked.ErrNoLeader) {
			t.Errorf("got %v, want %v", err, revoked.ErrNoLeader)
		}
		synctest.Wait()
		if p.took {
			t.Error("the removal was taken in a later term than its wait was of")
		}
		for _, want := range []word{{false, 1}, {true, 2}} {
			if got := <-l.herald.news; got != want {
				t.Errorf("the herald passes on %+v, want %+v", got, want)
			}
		}
		cancel()
		wg.Wait()
	})
}

// What the herald rests on: Raft takes no change before its word that it leads was taken.
func TestRaftWaitsUntilItsWordIsTaken(t *testing.T) {
	h := newHerald()
	r := startSingleRaft(t, h.says)
	await(t, "it leads", func() bool { return r.State() == raft.Leader })
	remove := func(wait time.Duration) error { return r.RemoveServer("nobody", 0, wait).Error() }
	if err := remove(handOverWait); !errors.Is(err, raft.ErrEnqueueTimeout) {
		t.Errorf("before its word was taken: got %v, want %v", err, raft.ErrEnqueueTimeout)
	}
	if leads := <-h.says; !leads {
		t.Error("got the word that it does not lead")
	}
	if err := remove(longStop); errors.Is(err, raft.ErrEnqueueTimeout) {
		t.Errorf("afterwards: got %v, want the change taken", err)
	}
}
