//go:build sim

package node

import (
	"time"

	"revoked/node/lease"
	"revoked/node/lease/leasecheck"
)

// observation is the part of the hooks that observes the leases. Both functions may be nil.
type observation struct {
	event func(leasecheck.Event) // called under the lock of the leases, except for Granted and Answered
	read  func()                 // called between a read of the copy and the check of the lease
}

func (o observation) afterRead() {
	if o.read != nil {
		o.read()
	}
}

func (o observation) answered() { o.emit(leasecheck.Event{Kind: leasecheck.Answered}) }

func (o observation) emit(e leasecheck.Event) {
	if o.event != nil {
		o.event(e)
	}
}

func eventOf(kind leasecheck.Kind, term uint64, r lease.Request) leasecheck.Event {
	return leasecheck.Event{Kind: kind, Term: term, Server: r.Server, Boot: r.Boot, Nonce: r.Nonce,
		Applied: r.Applied, Adopted: r.Adopted, Dropped: r.Dropped}
}

// leaseHolder emits an event for each step of a Holder.
type leaseHolder struct {
	*lease.Holder
	observation
}

func newLeaseHolder(server, boot string, o observation) *leaseHolder {
	return &leaseHolder{lease.NewHolder(server, boot), o}
}

func (h *leaseHolder) Adopt(term uint64) {
	h.Holder.Adopt(term)
	h.emit(leasecheck.Event{Kind: leasecheck.Adopted, Term: term})
}

func (h *leaseHolder) Drop() {
	h.Holder.Drop()
	h.emit(leasecheck.Event{Kind: leasecheck.Dropped})
}

func (h *leaseHolder) Request(now lease.Instant, skew time.Duration) lease.Request {
	r := h.Holder.Request(now, skew)
	h.emit(eventOf(leasecheck.Requested, 0, r))
	return r
}

func (h *leaseHolder) Take(now lease.Instant, skew time.Duration, r lease.Reply) bool {
	ok := h.Holder.Take(now, skew, r)
	h.emit(leasecheck.Event{Kind: leasecheck.Taken, Term: r.Term, Nonce: r.Nonce, Boot: r.Boot, Length: r.Length,
		Accepted: ok})
	return ok
}

// leaseTable emits an event for each step of a Table.
type leaseTable struct {
	*lease.Table
	observation
	waiters map[*lease.Waiter]uint64 // indexes that the waiters wait for
}

func observeTable(t *lease.Table, first uint64, o observation) *leaseTable {
	o.emit(leasecheck.Event{Kind: leasecheck.Opened, Term: t.Term(), Index: first})
	return &leaseTable{t, o, map[*lease.Waiter]uint64{}}
}

func (t *leaseTable) Update(now lease.Instant, members []string, length time.Duration) {
	t.Table.Update(now, members, length)
	t.acknowledged()
}

func (t *leaseTable) Report(now lease.Instant, r lease.Request) {
	t.emit(eventOf(leasecheck.Reported, t.Term(), r))
	t.Table.Report(now, r)
	t.acknowledged()
}

func (t *leaseTable) Admit(now lease.Instant, r lease.Request) (lease.Admission, lease.Refusal) {
	t.emit(eventOf(leasecheck.Reported, t.Term(), r))
	a, refusal := t.Table.Admit(now, r)
	if refusal == lease.Admitted {
		e := eventOf(leasecheck.Reserved, t.Term(), r)
		e.Length = a.Length
		t.emit(e)
	}
	t.acknowledged()
	return a, refusal
}

func (t *leaseTable) Grant(a lease.Admission) lease.Reply {
	r := t.Table.Grant(a)
	e := eventOf(leasecheck.Granted, t.Term(), a.Request)
	e.Length = r.Length
	t.emit(e)
	return r
}

func (t *leaseTable) Return(now lease.Instant, id, boot string, dropped uint64) {
	t.Table.Return(now, id, boot, dropped)
	t.acknowledged()
}

func (t *leaseTable) Release(now lease.Instant) {
	t.Table.Release(now)
	t.acknowledged()
}

func (t *leaseTable) Wait(now lease.Instant, index uint64) *lease.Waiter {
	w := t.Table.Wait(now, index)
	t.waiters[w] = index
	t.acknowledged()
	if _, waits := t.waiters[w]; waits {
		t.emit(leasecheck.Event{Kind: leasecheck.Waits, Term: t.Term(), Index: index})
	}
	return w
}

func (t *leaseTable) Cancel(w *lease.Waiter) {
	t.Table.Cancel(w)
	if index, waits := t.waiters[w]; waits {
		delete(t.waiters, w)
		t.emit(leasecheck.Event{Kind: leasecheck.Canceled, Term: t.Term(), Index: index})
	}
}

// acknowledged emits the acknowledgements that the last step made.
func (t *leaseTable) acknowledged() {
	for w, index := range t.waiters {
		select {
		case <-w.Done():
			delete(t.waiters, w)
			t.emit(leasecheck.Event{Kind: leasecheck.Acknowledged, Term: t.Term(), Index: index})
		default:
		}
	}
}
