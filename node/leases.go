package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/mutant"
)

// leases joins the two sides of the read leases to this node: the holder always, the table while
// this node leads. One lock guards both, so booking and acknowledging never interleave.
type leases struct {
	n   *Node
	now func() instant

	mu       sync.Mutex
	holder   leaseHolder
	run      atomic.Uint64 // of the holder, for mark
	everHeld atomic.Bool   // a grant was taken since the start: the copy was current then
	table    *leaseTable   // nil unless this node's term is open
	kick     chan struct{}
	reported broadcast // a member has said what it has applied
	lost     bool      // the loss of the lease has been logged
	reason   string    // why the last ask was refused
}

func newLeases(n *Node) *leases {
	return &leases{n: n, now: n.cfg.BootClock, holder: leaseHolder{boot: string(n.boot)}, kick: make(chan struct{}, 1), lost: true}
}

// trace tells the simulation of an event of this node.
func (l *leases) trace(e traceEvent) {
	e.node = l.n.self
	l.n.cfg.seams.trace(e)
}

// skew is the wall clock minus the boot clock.
func (l *leases) skew(now instant) time.Duration {
	return time.Duration(l.n.cfg.Now().UnixNano() - int64(now))
}

// valid reports whether a lease is in force now. Answers rest on covers.
func (l *leases) valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return l.holder.valid(now, l.skew(now))
}

// mark names the run of leases that is under way. Take it before the copy is read.
func (l *leases) mark() uint64 { return l.run.Load() }

// covers reports whether this node may answer from what it has read of its own copy since mark. Call
// it after the copy was read.
func (l *leases) covers(mark uint64) bool {
	now := l.now() // outside of the lock: it may be a system call
	skew := l.skew(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	if mutant.On(mutant.TimerFlag) {
		return !l.lost // as watch saw it last
	}
	return l.holder.covers(now, skew, mark)
}

// left is how long this node may still answer from its own copy.
func (l *leases) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return l.holder.left(now, l.skew(now))
}

// adopt follows the leader of a term.
func (l *leases) adopt(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder.adopt(term)
	l.trace(traceEvent{kind: traceAdopted, term: term})
}

// ask notes a new ask and returns what goes with it.
func (l *leases) ask() leaseAsk {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	nonce := l.holder.ask(now, l.skew(now))
	a := leaseAsk{server: l.n.self, boot: l.holder.boot, nonce: nonce, adopted: l.holder.adopted, dropped: l.holder.dropped}
	l.trace(traceEvent{kind: traceAsked, ask: a})
	return a
}

// adopted returns the term last followed and the nonce up to which grants are refused.
func (l *leases) adopted() (term, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder.adopted, l.holder.dropped
}

// take takes a grant of the leader.
func (l *leases) take(g leaseGrant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	took := l.holder.grant(now, l.skew(now), g)
	l.trace(traceEvent{kind: traceTaken, g: g, took: took})
	if took {
		l.reason = ""
		l.run.Store(l.holder.run)
		l.everHeld.Store(true)
	}
}

// refused notes why the leader did not admit an ask.
func (l *leases) refused(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reason = reason
}

// drop ends this node's lease for good; grants that are under way are refused.
func (l *leases) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder.drop()
	l.trace(traceEvent{kind: traceDropped})
}

// watch logs when the lease is lost and when it is back, and why.
func (l *leases) watch(ctx context.Context) {
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
		held, reason, was := l.holder.valid(now, l.skew(now)), l.reason, !l.lost
		l.lost = !held
		l.mu.Unlock()
		switch {
		case held && !was:
			l.n.log.Info("read lease held: answers are local")
		case !held && was:
			if reason == "" {
				reason = "no grant came in time"
			}
			l.n.metrics.leaseLosses.Inc()
			l.n.log.Warn("read lease lost: the leader is asked for every answer", "reason", reason)
		}
	}
}

// begin opens the table of a term, whose first command is at index epoch and has been applied here.
func (l *leases) begin(term, epoch uint64, members []raft.ServerID) {
	settings := l.n.Settings()
	l.mu.Lock()
	defer l.mu.Unlock()
	longest := max(settings.LeaseDuration, settings.LeaseCeiling)
	l.table = newLeaseTable(term, epoch, l.now(), settings.LeaseDuration, longest, members)
	l.trace(traceEvent{kind: traceOpened, term: term, index: epoch, longest: longest})
}

// end closes it: nothing is granted or acknowledged any more.
func (l *leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table != nil {
		l.table = nil
		l.trace(traceEvent{kind: traceClosed})
	}
}

// isOpen reports whether the books of this term are open.
func (l *leases) isOpen(term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table != nil && l.table.term == term
}

// members tells the table the newest configuration. Servers that are gone were free when they went.
func (l *leases) members(conf raft.Configuration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return
	}
	now := l.now()
	l.table.setLength(l.n.Settings().LeaseDuration)
	for _, s := range conf.Servers {
		l.table.addMember(s.ID, now)
	}
	for id := range l.table.books {
		if ok, _ := l.table.free(id, now); ok && !inConfiguration(conf, id) {
			l.table.forget(id)
		}
	}
	l.table.release(now)
}

// report notes what a member has applied.
func (l *leases) report(id raft.ServerID, boot string, applied, adopted uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return
	}
	now := l.now()
	l.table.adopt(leaseAsk{server: id, adopted: adopted})
	l.table.report(now, id, boot, applied)
	l.trace(traceEvent{kind: traceReport, term: l.table.term, ask: leaseAsk{server: id, boot: boot, applied: applied, adopted: adopted}})
	l.table.release(now)
	l.reported.announce()
}

// giveBack takes a member off the books, which refuses every grant up to the nonce dropped.
func (l *leases) giveBack(id raft.ServerID, boot string, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table != nil {
		l.table.giveBack(id, boot, dropped)
		l.trace(traceEvent{kind: traceGivenBack, term: l.table.term, ask: leaseAsk{server: id, boot: boot, dropped: dropped}})
		l.table.release(l.now())
	}
}

// acknowledge waits until index, which has been applied here, is final: no member can answer from an
// older copy any more.
func (l *leases) acknowledge(ctx context.Context, term, index uint64) error {
	l.mu.Lock()
	t := l.table
	if t == nil || t.term != term {
		l.mu.Unlock()
		return fmt.Errorf("%w: committed at index %d, leadership ended before everybody had applied it", revoked.ErrOutcomeUnknown, index)
	}
	t.report(l.now(), l.n.self, l.holder.boot, index)
	w := t.wait(l.now(), index)
	l.mu.Unlock()
	select { // nearly always final at once when alone
	case <-w.done:
		l.trace(traceEvent{kind: traceAcknowledged, term: term, index: index})
		return nil
	default:
	}
	l.trace(traceEvent{kind: traceWaits, term: term, index: index})
	l.nudge()
	select {
	case <-w.done:
		l.trace(traceEvent{kind: traceAcknowledged, term: term, index: index})
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		t.abandon(w)
		return fmt.Errorf("%w: committed at index %d, not everybody has applied it yet", revoked.ErrOutcomeUnknown, index)
	}
}

func (l *leases) nudge() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// expire releases what waits for bookings that run out. It lives as long as the term.
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
		l.mu.Lock()
		pause := time.Hour
		if l.table != nil {
			now := l.now()
			l.table.release(now)
			if next := l.table.nextBound(now); next != 0 {
				pause = next.sub(now) + time.Millisecond
			}
		}
		l.mu.Unlock()
		timer.Reset(pause)
	}
}

// clear waits until a member can hold no lease any more, and keeps it from new ones: nobody leaves
// the configuration while booked. It returns the term whose books say so; the wait is worth nothing in
// another. The bar falls when the change has failed.
func (l *leases) clear(ctx context.Context, id raft.ServerID) (term uint64, err error) {
	for {
		l.mu.Lock()
		if l.table == nil {
			l.mu.Unlock()
			return 0, fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
		}
		l.table.bar(id, true)
		term = l.table.term
		now := l.now()
		free, until := l.table.free(id, now)
		l.mu.Unlock()
		if free {
			return term, nil
		}
		select {
		case <-ctx.Done():
			l.bar(id, false)
			return 0, fmt.Errorf("%w: %s may hold a read lease for %v still", revoked.ErrNoLeader, nodeOf(id), until.sub(now))
		case <-time.After(min(until.sub(now)+time.Millisecond, 50*time.Millisecond)):
		}
	}
}

func (l *leases) bar(id raft.ServerID, barred bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table != nil {
		l.table.bar(id, barred)
	}
}

// leftOf is how long a member may still answer from its own copy, as this leader must assume.
func (l *leases) leftOf(id raft.ServerID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return 0
	}
	return l.table.left(id, l.now())
}

// holdingUp names the nodes that revocations are waiting for at this leader.
func (l *leases) holdingUp() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return nil
	}
	var nodes []string
	for _, id := range l.table.holdingUp(l.now()) {
		nodes = append(nodes, nodeOf(id))
	}
	return nodes
}

// renewEvery is the pace of the asks: four in a lease, of the one that is held and of those to come. When
// the setting has just become longer, the lease that is held is as short as it was.
func (n *Node) renewEvery() time.Duration {
	length := n.Settings().LeaseDuration
	n.leases.mu.Lock()
	defer n.leases.mu.Unlock()
	if held := n.leases.holder.length; held > 0 {
		length = min(length, held)
	}
	return length / 4
}
