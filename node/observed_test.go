//go:build sim

package node

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked/node/lease/leasecheck"
)

// observed: this build checks every step of the leases.
const observed = true

// observation connects the leases of an incarnation with the checker.
func (o *simOracle) observation(l *simLife) observation {
	return observation{event: func(e leasecheck.Event) { o.take(l, e) }, read: func() { o.pauseRead(l) }}
}

// take checks an event of an incarnation and keeps the messages among the events, to be repeated.
func (o *simOracle) take(l *simLife, e leasecheck.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.dead.Load() || l.n == nil && e.Kind != leasecheck.Requested {
		return
	}
	e.Node = string(l.self)
	switch e.Kind {
	case leasecheck.Opened:
		if e.Term > o.checker.MaxOpened {
			if o.openedBy != l.self {
				o.count.add("nemesis: leader changes")
			}
			o.openedBy = l.self
		}
		o.noteLocked(fmt.Sprintf("%s opens term %d at index %d", l.self, e.Term, e.Index))
	case leasecheck.Reported:
		if e.Server != e.Node && e.Nonce == 0 {
			o.reports = remember(o.reports, e)
		}
	case leasecheck.Reserved:
		o.requests = remember(o.requests, e)
	case leasecheck.Granted:
		o.replies = remember(o.replies, e)
	case leasecheck.Answered:
		if l.n.raft.State() == raft.Leader && l.life.Term() < o.checker.MaxOpened {
			o.count.add("race: deposed leader serves itself")
		}
	}
	o.checker.Take(l.life, e)
}

// remember keeps the newest events. It never modifies a returned slice.
func remember(es []leasecheck.Event, e leasecheck.Event) []leasecheck.Event {
	if len(es) >= 64 {
		es = append([]leasecheck.Event(nil), es[32:]...)
	}
	return append(es, e)
}

// pauseRead delays an answer between the read of the copy and the check of the lease, without a
// lock.
func (o *simOracle) pauseRead(l *simLife) {
	d := l.pauses.Swap(nil)
	if d == nil && l.frozen.Load() == nil {
		return
	}
	o.mu.Lock()
	held, acked := l.life.Valid(), o.checker.Acked
	o.mu.Unlock()
	if d != nil {
		time.Sleep(*d)
	}
	for f := l.frozen.Load(); f != nil; f = l.frozen.Load() {
		<-*f
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.checker.Acked > acked {
		o.count.add("race: acknowledged between read and lease check")
	}
	if held && !l.life.Valid() {
		o.count.add("race: lease check after the lease ended")
	}
}
