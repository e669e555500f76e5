package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/broadcast"
	"revoked/node/jwks"
	"revoked/node/liveness"
	"revoked/node/propose"
	"revoked/node/raftstore"
)

// A leadershipWatcher numbers the changes that raft.Config.NotifyCh reports.
//
// NotifyCh is unbuffered: Raft neither starts nor ends a term of this node's leadership before run
// has received the change. run receives no change while withLock runs f. If the last change made
// this node the leader, Raft accepts an entry that f proposes in that term, or rejects it. It never
// accepts the entry in a later term.
//
// The lock is held for microseconds, except while changeInTerm passes a configuration change to
// Raft.
type leadershipWatcher struct {
	notifyCh chan bool // from Raft
	changes  chan leadershipChange
	lock     chan struct{} // used as a mutex; waiting on a channel does not stop the simulation's clock
	number   uint64        // number of the last change; guarded by lock
}

// A leadershipChange is a change that Raft reported. A later change has a higher number.
type leadershipChange struct {
	leads  bool
	number uint64
}

func newLeadershipWatcher() *leadershipWatcher {
	return &leadershipWatcher{notifyCh: make(chan bool), changes: make(chan leadershipChange, 64),
		lock: make(chan struct{}, 1)}
}

// run receives Raft's changes until ctx ends. Before it passes on a change it calls end, which
// stops everything that relies on the previous change.
func (w *leadershipWatcher) run(ctx context.Context, end func()) {
	for {
		var c leadershipChange
		select {
		case c.leads = <-w.notifyCh:
		case <-ctx.Done():
			return
		}
		w.withLock(func() {
			w.number++
			c.number = w.number
			end()
		})
		select {
		case w.changes <- c:
		case <-ctx.Done():
			return
		}
	}
}

// withLock calls f while no change is received. Raft may block until f returns: f must be short,
// and may wait for Raft only with a timeout.
func (w *leadershipWatcher) withLock(f func()) {
	w.lock <- struct{}{}
	defer func() { <-w.lock }()
	f()
}

// leadership tracks whether this node leads, and runs its terms one at a time. All methods may be
// called concurrently.
type leadership struct {
	watcher *leadershipWatcher
	leases  *leases
	life    context.Context // ends when the node starts to stop
	outage  *liveness.Outage
	changed broadcast.Broadcast // announces a change of the leader that Raft reports, or of the result of proposer
	current atomic.Pointer[propose.Proposer]
	keys    *jwks.Runner // fetches key sets while this node leads
	finals  *finals
	futures *raftstore.Futures // of Raft; stopRaft ends them
}

// newLeadership returns the leadership of a node that does not lead. The caller must set the field
// keys before it calls run.
func newLeadership(l *leases, life context.Context, o *liveness.Outage) *leadership {
	return &leadership{watcher: newLeadershipWatcher(), leases: l, life: life, outage: o, finals: newFinals(),
		futures: raftstore.NewFutures()}
}

// proposer returns the proposer of this node's term, or nil if this node may not propose. A
// proposer rejects operations after the end of its term, so no lock is needed here.
func (l *leadership) proposer() *propose.Proposer { return l.current.Load() }

// term returns the term in which this node may propose, or 0.
func (l *leadership) term() uint64 {
	if p := l.proposer(); p != nil {
		return p.Term()
	}
	return 0
}

// followLeader returns a function that announces each leader change that r reports, until ctx ends.
// The function misses no change after the call to followLeader.
func (l *leadership) followLeader(r *raft.Raft) func(ctx context.Context) {
	observed := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	l.outage.Follow(r.Leader() != "")
	return func(ctx context.Context) {
		defer r.DeregisterObserver(observer)
		for {
			select {
			case <-observed:
				l.outage.Follow(r.Leader() != "")
				l.changed.Announce()
			case <-ctx.Done():
				return
			}
		}
	}
}

// run follows the changes of leadership until ctx ends. It calls lead in a goroutine for each term,
// with a context that ends with the term. Terms never overlap. A change that comes before the last
// term has ended waits in the channel of the watcher.
func (l *leadership) run(ctx context.Context, lead func(ctx context.Context, change uint64)) {
	var running sync.WaitGroup
	defer running.Wait()
	cancel := func() {}
	for {
		select {
		case c := <-l.watcher.changes:
			cancel()
			running.Wait()
			if c.leads {
				var term context.Context
				term, cancel = context.WithCancel(ctx)
				running.Go(func() { lead(term, c.number) })
			}
			l.changed.Announce()
		case <-ctx.Done():
			cancel()
			return
		}
	}
}

// enqueueTimeout is how long Raft may take to accept a configuration change. It must be finite,
// because Raft itself may be waiting for the watcher.
const enqueueTimeout = 100 * time.Millisecond

// changeInTerm passes a configuration change to Raft: it calls the function change until Raft has
// accepted or rejected the configuration change, or ctx ends. Raft accepts it in the given term or
// not at all, because leadership cannot change while the function runs. If this node no longer
// grants leases in the term, changeInTerm returns ErrNoLeader, and Raft has not accepted the
// configuration change.
func (l *leadership) changeInTerm(ctx context.Context, term uint64,
	change func(wait time.Duration) raft.IndexFuture) (raft.IndexFuture, error) {
	for {
		var f raft.IndexFuture
		l.watcher.withLock(func() {
			if l.life.Err() == nil && l.leases.isOpen(term) {
				f = l.futures.Index(change(enqueueTimeout))
			}
		})
		if f == nil {
			return nil, fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
		}
		if !errors.Is(f.Error(), raft.ErrEnqueueTimeout) || ctx.Err() != nil {
			return f, nil
		}
	}
}

// commitInTerm commits an operation that no client requested. It returns ErrNoLeader, without
// proposing the operation, unless this node may propose in the given term.
func (l *leadership) commitInTerm(ctx context.Context, term uint64, op *command.Op) error {
	p := l.proposer()
	if p == nil || p.Term() != term {
		return fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
	}
	return p.Commit(ctx, op)
}

// open calls begin if the last leadership change has the number change, and reports whether it
// called begin.
func (l *leadership) open(change uint64, begin func()) (ran bool) {
	l.watcher.withLock(func() {
		if ran = l.watcher.number == change; ran {
			begin()
		}
	})
	return ran
}

// setProposer sets the result of proposer. It announces the change, so that calls that wait for a
// leader check again.
func (l *leadership) setProposer(p *propose.Proposer) {
	l.current.Store(p)
	l.changed.Announce()
}

// awaitEnd blocks until this node may no longer propose, or ctx ends.
func (l *leadership) awaitEnd(ctx context.Context) {
	for {
		changed := l.changed.Wait()
		if l.proposer() == nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// noLeader returns an OutageError if waiting for a leader is useless. It does not block.
func (n *Node) noLeader() error {
	return n.leadership.outage.Check(n.roster.Configuration, n.transport.ContactOf)
}
