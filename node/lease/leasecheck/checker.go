package leasecheck

import (
	"time"
)

// The constants of the protocol, deliberately repeated.
const (
	rateBound = 0.01
	guard     = 50 * time.Millisecond
)

// reservedFor returns how long a leader must reserve a lease of the given length. The result
// suffices for a leader whose clock runs fast and a member whose clock runs slow.
func reservedFor(length time.Duration) time.Duration {
	return time.Duration(float64(length)*(1+rateBound)/(1-rateBound)) + guard
}

// maxWallDrift bounds how far the wall clock and the boot clock diverge during a lease by their
// rates alone. The wall clock may move by the guard plus this drift before the product must notice.
const maxWallDrift = 100 * time.Millisecond

// The rules that a failure names, in addition to invariants I3, I5, I6 and I7 of the simulation.
const (
	ruleOpen       = "a term opens when its first command is applied"
	ruleFirst      = "a member behind the term's first command is not admitted"
	ruleAcked      = "a member behind an acknowledged index is not admitted"
	ruleReserve    = "reserve before the barrier"
	ruleBarrier    = "barrier"
	ruleNonce      = "a reply has the nonce of its request"
	ruleBoot       = "a reply has the boot id"
	ruleOwnTerm    = "an acknowledgement belongs to the table's own term"
	lateAfter      = 500 * time.Millisecond // longer waits are counted
	waitersInARace = 4
)

// A Checker checks the events of all nodes, one at a time: the caller holds one lock around every
// method. The fields are set before the first event.
type Checker struct {
	Fail  func(rule, format string, args ...any)
	Count func(race string)
	Time  func() time.Time              // true time
	Entry func(index, term uint64) bool // whether a log has ever contained this entry

	Lives     map[*Life]bool // the processes that run
	MaxOpened uint64         // highest term opened
	Acked     uint64         // highest index acknowledged in any term

	terms map[uint64]*termState
}

// A request records when a member requested a lease, on its own clock. The lease begins then.
type request struct {
	boot int64
	at   time.Time
	wall int64
}

// Term returns the term of the newest lease.
func (l *Life) Term() uint64 { return l.term }

// A termState is one term of leadership.
type termState struct {
	term, first  uint64
	life         *Life
	opened       time.Time
	acked        uint64
	acks         int
	waits        map[uint64]time.Time
	reservations map[key]reserved
	granted      map[key]bool
	boots        map[string]string
	until        map[string]time.Time // end of the newest reservation, in true time
	applied      map[string]uint64
}

// A key names one request.
type key struct {
	server, boot string
	nonce        uint64
}

func keyOf(e Event) key { return key{e.Server, e.Boot, e.Nonce} }

// A reserved records when a lease was reserved. The barrier and the grant must come later.
type reserved struct {
	at    time.Time
	acks  int
	after uint64 // last index of the leader's log
}

// New returns a Checker that has seen no event. Set the functions of the Checker before the first
// event.
func New() *Checker {
	return &Checker{Lives: map[*Life]bool{}, terms: map[uint64]*termState{}}
}

// Take checks one event of an incarnation. It continues after Fail.
func (c *Checker) Take(l *Life, e Event) {
	switch e.Kind {
	case Opened:
		c.opened(l, e)
	case Reported:
		c.reported(e)
	case Reserved:
		c.reserved(l, e)
	case Granted:
		c.granted(l, e)
	case Waits:
		if t := c.terms[e.Term]; t != nil {
			t.waits[e.Index] = c.Time()
			if len(t.waits) == waitersInARace {
				c.Count("race: revocations follow each other behind a slow holder")
			}
		}
	case Acknowledged:
		c.acknowledged(l, e)
	case Canceled:
		if t := c.terms[e.Term]; t != nil {
			delete(t.waits, e.Index)
		}
	case Requested:
		c.requested(l, e)
	case Taken:
		c.taken(l, e)
	case Adopted:
		if e.Term > l.adopted {
			l.adopted = e.Term
			c.drop(l)
		}
	case Dropped:
		c.drop(l)
	case Answered:
		if !l.Valid() && !l.ended.Equal(c.Time()) {
			c.Fail("I7", "%s answers from its copy without a lease", l.Server)
		}
	}
}

// drop ends the lease of l, and makes the replies to all earlier requests invalid.
func (c *Checker) drop(l *Life) {
	l.end, l.dropped, l.ended = 0, l.nonce, c.Time()
}

// Waiting reports whether an acknowledgement in the newest term is pending. The simulation counts
// the membership changes that happen while one is pending.
func (c *Checker) Waiting() bool {
	t := c.terms[c.MaxOpened]
	return t != nil && len(t.waits) > 0
}

// Forget drops terms that are far below the newest. A long simulation calls it, to bound the memory
// of the checker.
func (c *Checker) Forget() {
	for term := range c.terms {
		if term+50 < c.MaxOpened {
			delete(c.terms, term)
		}
	}
}

// opened checks that a term has one leader, and that this leader's log has every index that an
// earlier term has acknowledged (I3, I6).
func (c *Checker) opened(l *Life, e Event) {
	if t := c.terms[e.Term]; t != nil {
		c.Fail("I6", "term %d is opened by %s and by %s", e.Term, t.life.Server, l.Server)
	}
	if l.Applied() < e.Index {
		c.Fail(ruleOpen, "%s opens term %d at index %d, before the first command at %d", l.Server, e.Term, l.Applied(),
			e.Index)
	}
	if l.adopted < e.Term {
		c.Fail(ruleOpen, "%s opens term %d before it adopts that term", l.Server, e.Term)
	}
	if !c.Entry(e.Index, e.Term) {
		c.Fail(ruleOpen, "%s opens term %d on index %d, which is not an entry of that term", l.Server, e.Term, e.Index)
	}
	for _, t := range c.terms { // a frozen leader may open its term after a later one, and then acknowledges nothing
		if t.term < e.Term && e.Index < t.acked {
			c.Fail("I3", "%s opens term %d at index %d, but %d was acknowledged in term %d", l.Server, e.Term, e.Index,
				t.acked, t.term)
		}
	}
	c.terms[e.Term] = &termState{term: e.Term, first: e.Index, life: l, opened: c.Time(), waits: map[uint64]time.Time{},
		reservations: map[key]reserved{},
		granted:      map[key]bool{}, boots: map[string]string{}, until: map[string]time.Time{}, applied: map[string]uint64{}}
	c.Count("events: terms opened")
	for x := range c.Lives {
		if x != l && x.Valid() && x.term < e.Term {
			c.Count("race: new leader with old leases in force")
			break
		}
	}
	c.MaxOpened = max(c.MaxOpened, e.Term)
}

// reported records the applied index of a member. A new process of the same server starts from
// index 0, because its copy may be older.
func (c *Checker) reported(e Event) {
	t := c.terms[e.Term]
	if t == nil {
		return
	}
	if had := t.boots[e.Server]; had != e.Boot {
		if had != "" && t.until[e.Server].After(c.Time()) {
			c.Count("race: new process reports while the old one is reserved")
			if len(t.waits) > 0 {
				c.Count("race: new process reports during an ack wait")
			}
		}
		t.boots[e.Server], t.applied[e.Server] = e.Boot, 0
	}
	t.applied[e.Server] = max(t.applied[e.Server], e.Applied)
}

// reserved checks that the admitted member has applied every index that the term has acknowledged.
func (c *Checker) reserved(l *Life, e Event) {
	t := c.terms[e.Term]
	if t == nil || t.life != l {
		c.Fail(ruleOpen, "%s reserves a lease for %s in term %d, which it has not opened", l.Server, e.Server, e.Term)
		return
	}
	applied := e.Applied
	if t.boots[e.Server] == e.Boot { // the newest report of this incarnation counts
		applied = max(applied, t.applied[e.Server])
	}
	if applied < t.first {
		c.Fail(ruleFirst, "%s admits %s at index %d in term %d, which begins at %d", l.Server, e.Server, applied, t.term,
			t.first)
	}
	if applied < t.acked {
		c.Fail(ruleAcked, "%s admits %s at index %d in term %d, which has acknowledged %d", l.Server, e.Server, applied,
			t.term, t.acked)
	}
	if _, again := t.reservations[keyOf(e)]; !again { // a repeated request may be granted by the barrier of the first one
		t.reservations[keyOf(e)] = reserved{at: c.Time(), acks: t.acks, after: l.Last()}
	}
	t.until[e.Server] = c.Time().Add(reservedFor(e.Length))
	t.boots[e.Server] = e.Boot
	if e.Term < c.MaxOpened {
		c.Count("race: deposed leader gets a lease request")
	}
}

// granted checks that a lease was reserved before it is granted, and that the leader appended an
// entry of the term in between.
func (c *Checker) granted(l *Life, e Event) {
	t := c.terms[e.Term]
	if t == nil {
		return
	}
	r, ok := t.reservations[keyOf(e)]
	switch {
	case !ok:
		c.Fail(ruleReserve, "%s grants %s nonce %d in term %d without a reservation", l.Server, e.Server, e.Nonce, t.term)
	case l.Applied() <= r.after: // the leader appends the barrier's entry after it reserved
		c.Fail(ruleBarrier, "%s grants %s at index %d, but the reservation came after index %d", l.Server, e.Server,
			l.Applied(), r.after)
	case !c.Entry(r.after+1, e.Term):
		c.Fail(ruleBarrier, "%s grants %s in term %d, index %d is not an entry of that term", l.Server, e.Server,
			t.term, r.after+1)
	}
	if t.acks > r.acks {
		c.Count("race: admitted, acknowledged, then granted")
	}
	t.granted[keyOf(e)] = true
}

// requested records a request under its nonce, which must be new. Only the newest 64 requests are
// kept.
func (c *Checker) requested(l *Life, e Event) {
	if l.requests == nil {
		l.requests = map[uint64]request{}
	}
	if e.Nonce <= l.nonce {
		c.Fail(ruleNonce, "%s uses nonce %d again", l.Server, e.Nonce)
	}
	l.nonce = e.Nonce
	l.requests[l.nonce] = request{boot: l.Clock(), at: c.Time(), wall: l.Wall()}
	delete(l.requests, l.nonce-64)
}

// taken checks a reply that a member has accepted. It must answer the newest request of this
// process, and its term must have granted it. A rejected reply breaks no rule.
func (c *Checker) taken(l *Life, e Event) {
	q, ok := l.requests[e.Nonce]
	if !e.Accepted {
		c.Count("events: replies rejected by their holder")
		if ok && l.Clock() >= q.boot+int64(e.Length-guard) {
			c.Count("race: reply arrives after its lease ended")
		}
		return
	}
	c.Count("events: leases taken")
	k := key{l.Server, l.Boot, e.Nonce}
	t := c.terms[e.Term]
	switch {
	case e.Term < l.adopted:
		c.Fail("I6", "%s accepts a lease of term %d after it adopted term %d", l.Server, e.Term, l.adopted)
	case !ok || e.Nonce != l.nonce || e.Nonce <= l.dropped:
		c.Fail(ruleNonce, "%s accepts a reply to nonce %d (newest nonce %d, dropped %d)", l.Server, e.Nonce,
			l.nonce, l.dropped)
	case e.Boot != l.Boot:
		c.Fail(ruleBoot, "%s accepts a reply to another incarnation", l.Server)
	case t != nil && !t.granted[k]:
		c.Fail(ruleBarrier, "%s accepts a lease of term %d that was not granted", l.Server, e.Term)
	case t != nil && t.reservations[k].at.Before(q.at):
		c.Fail(ruleReserve, "%s made its request after the reservation", l.Server)
	}
	l.adopted = max(l.adopted, e.Term)
	l.term, l.end, l.length, l.endsWall = e.Term, q.boot+int64(e.Length), e.Length, q.wall
	if !l.Valid() {
		c.Count("race: reply arrives after its lease ended")
		return
	}
	if applied := l.Applied(); applied < c.Acked {
		c.Fail("I5", "%s accepts a lease of term %d at index %d, but %d was acknowledged", l.Server, e.Term, applied, c.Acked)
	}
}

// acknowledged checks that the leader of the term acknowledges an entry of that term. Final then
// checks the promise itself.
func (c *Checker) acknowledged(l *Life, e Event) {
	t := c.terms[e.Term]
	if t == nil || t.life != l {
		c.Fail(ruleOwnTerm, "%s acknowledges index %d in term %d, which it has not opened", l.Server, e.Index, e.Term)
		return
	}
	if !c.Entry(e.Index, e.Term) {
		c.Fail(ruleOwnTerm, "%s acknowledges index %d in term %d, which is not an entry of that term", l.Server,
			e.Index, e.Term)
	}
	since, waited := t.waits[e.Index]
	delete(t.waits, e.Index)
	t.acked, t.acks = max(t.acked, e.Index), t.acks+1
	c.Count("events: acknowledged")
	if waited && c.Time().Sub(since) > lateAfter {
		c.countLate(l, t, e.Index)
	}
	c.countOverlap(t)
	c.Final(e.Index)
}

// countOverlap counts an acknowledgement that would come later if the wait for old leases began
// with the term. In that case, a member has not adopted the term, and the term is younger than the
// length of the member's older lease.
func (c *Checker) countOverlap(t *termState) {
	for x := range c.Lives {
		if x.term != 0 && x.term < t.term && x.adopted < t.term && c.Time().Sub(t.opened) < x.length {
			c.Count("race: the wait for old leases began before the term")
			return
		}
	}
}

// countLate counts an acknowledgement that waited for a member that is behind.
func (c *Checker) countLate(l *Life, t *termState, index uint64) {
	for id, applied := range t.applied {
		if applied < index && id != l.Server {
			c.Count("race: ack waits for a reservation to expire")
			for x := range c.Lives {
				if x.Server == id && x.Rate() < l.Rate() {
					c.Count("race: slow clock holds a lease of a fast leader")
				}
			}
			return
		}
	}
}

// Final checks I5 for an index just before a caller learns that it was acknowledged. No process may
// still answer from a copy that lacks the index, regardless of the leader's table.
func (c *Checker) Final(index uint64) {
	c.Acked = max(c.Acked, index)
	for l := range c.Lives {
		if applied := l.Applied(); applied < index && l.Valid() {
			c.Fail("I5", "index %d is acknowledged, but %s has applied %d and still holds a lease of term %d for %v",
				index, l.Server, applied, l.term, time.Duration(l.end-int64(guard)-l.Clock()))
		}
	}
}
