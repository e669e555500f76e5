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
	"revoked/node/liveness"
)

// A fakeRaft simulates Raft's main loop: it reports that its term ended, that it leads the next
// one, and accepts a configuration change then.
type fakeRaft struct {
	notifyCh chan<- bool
	requests chan struct{}
	accepted bool // a change, in the later term
}

func (r *fakeRaft) loseAndWin(ctx context.Context) {
	for _, leads := range []bool{false, true} {
		select {
		case r.notifyCh <- leads:
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-r.requests:
		r.accepted = true
	case <-ctx.Done():
	}
}

// remove behaves like RemoveServer of Raft.
func (r *fakeRaft) remove(wait time.Duration) raft.IndexFuture {
	select {
	case r.requests <- struct{}{}:
		return finished{errors.New("accepted")}
	case <-time.After(wait):
		return finished{raft.ErrEnqueueTimeout}
	}
}

type finished struct{ err error }

func (f finished) Error() error  { return f.err }
func (f finished) Response() any { return nil }
func (f finished) Index() uint64 { return 0 }

// A removal waits until its server can no longer hold a lease of a term. Then it stalls during two
// elections of this node before it reaches Raft. By then, the later leader may have granted the
// server a lease, so Raft must not accept the removal.
func TestChangeInTerm_Stalled_NotInLaterTerm(t *testing.T) {
	l := newLoneNode(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		l.leadership = newLeadership(l.Node.leases, ctx, liveness.NewOutage("self", time.Second, time.Minute))
		l.open()
		w := l.leadership.watcher
		r := &fakeRaft{notifyCh: w.notifyCh, requests: make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() { w.run(ctx, l.leases.end) })
		stall := func(wait time.Duration) raft.IndexFuture {
			wg.Go(func() { r.loseAndWin(ctx) })
			synctest.Wait()
			return r.remove(wait)
		}
		if _, err := l.leadership.changeInTerm(ctx, loneTerm, stall); !errors.Is(err, revoked.ErrNoLeader) {
			t.Errorf("got %v, want %v", err, revoked.ErrNoLeader)
		}
		synctest.Wait()
		if r.accepted {
			t.Error("got the removal accepted in a later term, want it rejected")
		}
		for _, want := range []leadershipChange{{false, 1}, {true, 2}} {
			if got := <-w.changes; got != want {
				t.Errorf("change: got %+v, want %+v", got, want)
			}
		}
		cancel()
		wg.Wait()
	})
}

// The watcher relies on this: Raft accepts no change before its notification was received.
func TestRaft_Notification_PrecedesChanges(t *testing.T) {
	w := newLeadershipWatcher()
	r := startSingleRaft(t, w.notifyCh)
	await(t, "the node leads", func() bool { return r.State() == raft.Leader })
	remove := func(wait time.Duration) error { return r.RemoveServer("other", 0, wait).Error() }
	if err := remove(enqueueTimeout); !errors.Is(err, raft.ErrEnqueueTimeout) {
		t.Errorf("before the notification: got %v, want %v", err, raft.ErrEnqueueTimeout)
	}
	select {
	case leads := <-w.notifyCh:
		if !leads {
			t.Error("notification: got false, want true")
		}
	case <-time.After(longStop):
		t.Fatal("got no notification, want one")
	}
	if err := remove(longStop); errors.Is(err, raft.ErrEnqueueTimeout) {
		t.Errorf("after the notification: got %v, want the change accepted", err)
	}
}
