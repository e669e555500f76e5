package clientauth

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// maxWaiters bounds the requests that wait for a turn at one client id.
const maxWaiters = 128

// turns allows one request at a time to verify a secret of a client id. Methods may be called
// concurrently.
//
// The next turn goes to the address whose last turn was the longest ago, and among its requests to
// the newest. So a burst of guesses delays neither other addresses nor later requests.
type turns struct {
	mu     sync.Mutex
	queues map[string]*queue
}

type queue struct {
	waiters []*waiter // the oldest first
	served  map[netip.Prefix]uint64
	n       uint64 // number of turns so far
}

type waiter struct {
	from netip.Prefix
	turn chan bool // receives true for the turn, or false if drop rejects the request
}

// source returns the network that counts as one caller: an address, or a /64 of IPv6.
func source(from netip.Addr) netip.Prefix {
	bits := 32
	if from.Is6() {
		bits = 64
	}
	p, _ := from.Prefix(bits)
	return p
}

// take blocks until it is the caller's turn for the client id, drop rejects the caller, or ctx
// ends. It reports whether the caller has the turn. If so, the caller must call release.
func (t *turns) take(ctx context.Context, id string, from netip.Addr) bool {
	w := &waiter{from: source(from), turn: make(chan bool, 1)}
	t.mu.Lock()
	q, busy := t.queues[id]
	if !busy {
		q = &queue{served: map[netip.Prefix]uint64{}}
		t.queues[id] = q
		q.served[w.from] = 1
		q.n = 1
		t.mu.Unlock()
		return true
	}
	if len(q.waiters) >= maxWaiters {
		q.drop()
	}
	q.waiters = append(q.waiters, w)
	t.mu.Unlock()
	select {
	case ok := <-w.turn:
		return ok
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range q.waiters {
		if q.waiters[i] == w {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			return false
		}
	}
	return <-w.turn // release or drop removed w while ctx ended
}

// drop rejects the oldest request of the address that has the most requests.
func (q *queue) drop() {
	count := map[netip.Prefix]int{}
	most := q.waiters[0].from
	for _, w := range q.waiters {
		if count[w.from]++; count[w.from] > count[most] {
			most = w.from
		}
	}
	for i, w := range q.waiters {
		if w.from == most {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			w.turn <- false
			return
		}
	}
}

// release ends the turn at id after a pause.
func (t *turns) release(id string, pause time.Duration) {
	if pause > 0 {
		time.AfterFunc(pause, func() { t.release(id, 0) })
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[id]
	if len(q.waiters) == 0 {
		delete(t.queues, id)
		return
	}
	next := 0
	for i, w := range q.waiters {
		if q.served[w.from] <= q.served[q.waiters[next].from] {
			next = i
		}
	}
	w := q.waiters[next]
	q.waiters = append(q.waiters[:next], q.waiters[next+1:]...)
	q.n++
	q.served[w.from] = q.n
	w.turn <- true
}
