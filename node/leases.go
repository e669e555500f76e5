package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/internal/broadcast"
	"revoked/node/datadir"
	"revoked/node/lease"
	"revoked/node/propose"
	"revoked/node/rounds"
)

// leases holds both sides of this node's read leases: the member's side always, the leader's side
// while a term is open. All methods may be called concurrently.
//
// One lock guards both sides, so a reservation and an acknowledgement never interleave. DESIGN.md
// describes the protocol and explains why it is safe.
type leases struct {
	server      string
	boot        string
	now         func() lease.Instant
	wall        func() time.Time
	settings    func() revoked.Settings
	observation observation

	// steady is a clock for the intake. It may stop while the machine is suspended.
	steady func() lease.Instant

	mu     sync.Mutex
	intake lease.Intake
	holder *leaseHolder
	term   *leaseTerm // nil unless this node's term is open
	held   bool       // whether watch last saw a lease
	reason string     // reason for the refusal of the last request

	run      atomic.Uint64       // number of the current unbroken run of leases, for mark
	everHeld atomic.Bool         // whether this process has held a lease, and so had a current copy
	kick     chan struct{}       // wakes the expire goroutine
	reported broadcast.Broadcast // announces that this leader received a report
}

// A leaseTerm is the leader's side in one term.
type leaseTerm struct {
	table   *leaseTable
	barrier barrier
	rounds  *rounds.Rounds
}

// A barrier commits an entry that is proposed after the call. It reports false unless the entry is
// known to have committed in the term that the barrier belongs to. It blocks until the outcome is
// known, or until ctx or the term ends.
type barrier func(ctx context.Context) bool

// newLeases returns the leases of a node that holds none. The function settings may be called at
// any time and must not block.
func newLeases(cfg Config, id *datadir.Identity, settings func() revoked.Settings) *leases {
	server, boot := string(id.Server), string(id.Boot)
	steady := steadyClock()
	return &leases{
		server: server, boot: boot, now: cfg.BootClock, wall: cfg.Now, settings: settings,
		steady: steady, intake: lease.NewIntake(steady()), observation: cfg.hooks.observation,
		holder: newLeaseHolder(server, boot, cfg.hooks.observation), kick: make(chan struct{}, 1),
	}
}

// skew returns the wall clock minus the boot clock. A step of the wall clock changes the skew, and
// ends the lease.
func (l *leases) skew(now lease.Instant) time.Duration {
	return time.Duration(l.wall().UnixNano() - int64(now))
}

// valid reports whether a lease is in force. To answer a read, use covers instead.
func (l *leases) valid() bool { return l.remaining() > 0 }

// remaining returns how long this node may still answer from its own copy.
func (l *leases) remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return l.holder.Remaining(now, l.skew(now))
}

// mark returns the number of the current run of leases. Call it before you read this node's copy of
// the state.
func (l *leases) mark() uint64 { return l.run.Load() }

// covers reports whether the lease covers an answer from this node's copy of the state. The caller
// must have read the copy after the method mark returned the given mark. This call must be the last
// step before the answer, because a later step could run after the lease has ended.
func (l *leases) covers(mark uint64) bool {
	now := l.now() // outside the lock: it may be a system call
	skew := l.skew(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder.Covers(now, skew, mark)
}

// adopt sets the highest term that this node has adopted, unless term is lower. A newer term ends
// this node's lease.
func (l *leases) adopt(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder.Adopt(term)
}

// adopted returns the highest term adopted and the nonce up to which replies are rejected.
func (l *leases) adopted() (term, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder.Adopted()
}

// request starts a new request for a lease. The caller must set Applied.
func (l *leases) request() lease.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return l.holder.Request(now, l.skew(now))
}

// take passes a reply of the leader to the holder. A reply that the holder rejects has no effect,
// for example one to an earlier request.
func (l *leases) take(r lease.Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.holder.Take(now, l.skew(now), r) {
		l.reason = ""
		l.run.Store(l.holder.Run())
		l.everHeld.Store(true)
	}
}

// refused records why the leader refused the last request.
func (l *leases) refused(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reason = reason
}

// drop ends this node's lease and rejects the replies to all requests so far.
func (l *leases) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder.Drop()
}

// renewEvery returns the interval between requests: a quarter of a lease. The shorter of the
// setting and the held lease counts, because a setting that has grown does not extend that lease.
func (l *leases) renewEvery() time.Duration {
	length := l.settings().LeaseDuration
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := l.holder.Length(); held > 0 {
		length = min(length, held)
	}
	return length / 4
}

// watch logs when the lease is lost or acquired, until ctx ends. It only observes: between two
// ticks a lease may end and begin again unseen.
func (l *leases) watch(ctx context.Context, log *slog.Logger, losses prometheus.Counter) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		now := l.now()
		held, reason, was := l.holder.Valid(now, l.skew(now)), l.reason, l.held
		l.held = held
		l.mu.Unlock()
		switch {
		case held && !was:
			log.Info("read lease acquired")
		case !held && was:
			if reason == "" {
				reason = "no reply in time"
			}
			losses.Inc()
			log.Warn("read lease lost", "reason", reason)
		}
	}
}

// begin opens a term. The caller sets the fields of n that depend on the log and the configuration:
// Number, First, Members, Leader and Previous.
func (l *leases) begin(n lease.Term, barrier barrier) {
	settings := l.settings()
	l.mu.Lock()
	defer l.mu.Unlock()
	n.Since, n.Length = l.lastIntake(n.Number), settings.LeaseDuration
	n.Longest = max(settings.LeaseDuration, settings.LeaseCeiling)
	l.term = &leaseTerm{table: observeTable(lease.NewTable(n), n.First, l.observation), barrier: barrier,
		rounds: rounds.New()}
}

// end closes the term: no further lease is granted and no further index acknowledged.
func (l *leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = nil
}

// isOpen reports whether leases are granted in a term. The answer may be outdated immediately,
// unless the caller holds the lock of the leadershipWatcher.
func (l *leases) isOpen(term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != nil && l.term.table.Term() == term
}

// withTable calls f with the open term's table, under the lock. It reports whether a term is open.
func (l *leases) withTable(f func(t *leaseTable, now lease.Instant)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		return false
	}
	f(l.term.table, l.now())
	return true
}

// setMembers passes a new configuration to the table. A server leaves the configuration only after
// its reservations have ended.
func (l *leases) setMembers(conf raft.Configuration) {
	length := l.settings().LeaseDuration
	l.withTable(func(t *leaseTable, now lease.Instant) { t.Update(now, serverIDs(conf), length) })
}

// report records a member's report.
func (l *leases) report(id raft.ServerID, boot string, applied, adopted uint64) {
	r := lease.Request{Server: string(id), Boot: boot, Applied: applied, Adopted: adopted}
	if l.withTable(func(t *leaseTable, now lease.Instant) { t.Report(now, r) }) {
		l.reported.Announce()
	}
}

// returned ends the reservation of a member that has returned its lease. The member rejects every
// reply whose nonce is not above dropped.
func (l *leases) returned(id raft.ServerID, boot string, dropped uint64) {
	l.withTable(func(t *leaseTable, now lease.Instant) { t.Return(now, string(id), boot, dropped) })
}

// remainingOf returns how long the leader must assume that a member answers from its own copy.
func (l *leases) remainingOf(id raft.ServerID) (d time.Duration) {
	l.withTable(func(t *leaseTable, now lease.Instant) { d = t.Remaining(string(id), now) })
	return d
}

// blockedBy returns the nodes that acknowledgements wait for at this leader. The list is empty on a
// node that does not lead.
func (l *leases) blockedBy() (nodes []string) {
	l.withTable(func(t *leaseTable, now lease.Instant) {
		for _, id := range t.BlockedBy(now) {
			nodes = append(nodes, datadir.NodeOf(raft.ServerID(id)))
		}
	})
	return nodes
}

// acknowledge blocks until every node that may answer from its own copy has applied index. This
// node must have applied it already. It returns ErrOutcomeUnknown if the term or ctx ends first.
// The returned wait names the nodes that blocked the acknowledgement.
func (l *leases) acknowledge(ctx context.Context, term, index uint64) (wait propose.Wait, err error) {
	l.mu.Lock()
	if l.term == nil || l.term.table.Term() != term {
		l.mu.Unlock()
		return wait, fmt.Errorf("%w: committed at index %d, but leadership ended before the acknowledgement",
			revoked.ErrOutcomeUnknown, index)
	}
	t, now := l.term.table, l.now()
	t.Report(now, lease.Request{Server: l.server, Boot: l.boot, Applied: index})
	w := t.Wait(now, index)
	blockers := t.Blockers(now, index)
	l.mu.Unlock()
	wait.Began = time.Now()
	select { // a cluster of one node never waits
	case <-w.Done():
		return wait, nil
	default:
	}
	for _, id := range blockers {
		wait.For = append(wait.For, datadir.NodeOf(raft.ServerID(id)))
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
	select {
	case <-w.Done():
		return wait, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		t.Cancel(w)
		return wait, fmt.Errorf("%w: committed at index %d, not applied on all nodes yet", revoked.ErrOutcomeUnknown, index)
	}
}

// Limits of keepUp.
const (
	keepUpTime = time.Second // longest wait of one call
	highLoad   = 60          // load of a store, in percent, from which on bulk work waits
)

// keepUp blocks until every member with a lease of the term has applied index, and until no store
// is under high load. The function load returns the highest load of a store in percent. keepUp
// gives up after a second, so a stalled member slows bulk work down but does not stop it.
func (l *leases) keepUp(ctx context.Context, term, index uint64, load func() int) {
	ctx, cancel := context.WithTimeout(ctx, keepUpTime)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond) // no channel announces a change of the load
	defer poll.Stop()
	for {
		reported := l.reported.Wait()
		behind := false
		open := l.withTable(func(t *leaseTable, now lease.Instant) {
			behind = t.Term() == term && t.IsBehind(now, l.server, index)
		})
		if !open || !behind && load() < highLoad {
			return
		}
		select {
		case <-reported:
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// expire releases each acknowledgement once the reservations that block it have expired. It runs
// until ctx ends with the term.
func (l *leases) expire(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.kick:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		pause := time.Hour
		l.withTable(func(t *leaseTable, now lease.Instant) {
			t.Release(now)
			if next := t.NextExpiry(now); next != 0 {
				pause = next.Sub(now) + time.Millisecond
			}
		})
		timer.Reset(pause)
	}
}

// clear blocks new leases of a member and waits until the member can no longer hold one. Only then
// may the member be removed from the configuration, and only in the returned term. If the
// configuration change fails, call unblock. If leadership or ctx ends first, clear allows new
// leases again and returns ErrNoLeader.
func (l *leases) clear(ctx context.Context, id raft.ServerID) (term uint64, err error) {
	for {
		var free bool
		var wait time.Duration
		open := l.withTable(func(t *leaseTable, now lease.Instant) {
			t.Block(string(id), true)
			term, wait = t.Term(), t.Remaining(string(id), now)
			free, _ = t.IsFree(string(id), now)
		})
		switch {
		case !open:
			return 0, fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
		case free:
			return term, nil
		}
		select {
		case <-ctx.Done():
			l.unblock(id)
			return 0, fmt.Errorf("%w: %s may still hold a read lease for %v", revoked.ErrNoLeader, datadir.NodeOf(id), wait)
		case <-time.After(min(wait+time.Millisecond, 50*time.Millisecond)):
		}
	}
}

// unblock allows new leases of a member again.
func (l *leases) unblock(id raft.ServerID) {
	l.withTable(func(t *leaseTable, _ lease.Instant) { t.Block(string(id), false) })
}
