package lease

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"revoked/node/lease/leasecheck"
)

// This file is the world in which the real Table and Holder run. It has an abstract Raft, clocks
// with their own rates, crashes and a changing membership. The network loses, delays, repeats and
// reorders messages. model_test.go explores the world completely within bounds. walk_test.go takes
// random steps in the world.
//
// Raft is abstract. A follower copies the leader's log in one step (accept), and the leader learns
// that in another (learn). So answers can be arbitrarily late, even for a deposed leader. An index
// is committed once a majority of the leader's newest configuration is known to have accepted an
// entry of the leader's own term. To announce a commit, the leader lets a follower accept a log
// without new entries.

// A rule is a rule of the protocol that a test can disable. The code that disables rules is in the
// tests, never in the product.
type rule int

const (
	allRules                    rule = iota
	reserveBeforeBarrier             // off: the lease is reserved only when the reply is sent
	barrierNeeded                    // off: a lease is granted without an entry
	barrierProposedAfter             // off: an entry proposed before the reservation counts
	newLeaderWaits                   // off: a new term assumes that all older leases have expired
	receivedEntriesCount             // off: a new term's wait may begin before an entry that was received
	ownEntriesCount                  // off: that wait may begin before an entry that this node itself proposed earlier
	startCounts                      // off: that wait may begin before this process started
	adoptionClearsOnlyInherited      // off: adopting a term also clears a reservation of that term
	replyNamesBoot                   // off: a reply to an earlier incarnation is accepted
	reservationNamesBoot             // off: the applied index of an earlier incarnation is used
	replyNamesNonce                  // off: a reply to an older request is treated as a reply to the newest
	adoptionRejectsReplies           // off: replies of an older term are accepted
	adoptionEndsLease                // off: a lease of an older term stays in force
	clockReadPerAnswer               // off: a flag that a timer set replaces the clock
	stateReadUnderLease              // off: a lease that began after the state was read covers it
	ackWaits                         // off: an index is acknowledged as soon as it is committed
	admitOnlyPastAcked               // off: a member behind an acknowledged index is admitted
	admitOnlyPastFirst               // off: a member behind the term's first command is admitted
	openAfterFirst                   // off: a term opens before its first command is applied
	removalWaits                     // off: a member is removed while it has a reservation
	removalBlocks                    // off: a member may get a reservation between the wait and the removal
	removedStayReserved              // off: a member is removed while it has a reservation, and forgotten immediately
	returnNamesNonce                 // off: a return ends reservations made after it was sent
	reservationCoversRates           // off: a reservation lasts one lease on the leader's own clock
	ackInOwnTerm                     // off: an old term's table acknowledges entries of a new one
	removalInOwnTerm                 // off: the wait before a removal may belong to an earlier term
	leaderAdoptsFirst                // off: a leader that announces a bound still holds a longer lease as a member
	boundOfNewestLeader              // off: the bound of the leader before the last one counts
	boundOfLeaderOnly                // off: the bound applies to every member's leases of earlier terms
	boundHolds                       // off: a leader grants itself a longer lease than it announced
	rules
)

var ruleNames = [...]string{"all rules", "reserve before the barrier", "barrier", "barrier after the reservation",
	"the new leader waits", "received entries count", "own entries count", "the start counts",
	"adoption clears only inherited leases", "a reply has the boot id",
	"a reservation has the boot id", "a reply has the nonce of its request", "adoption rejects older replies",
	"adoption ends older leases", "each answer reads the clock", "the state is read under the lease",
	"an acknowledgement waits for reservations", "admit only past acknowledged indexes",
	"admit only past the first command",
	"open after the first command", "a removal waits", "a removal blocks new leases", "a removed member stays reserved",
	"a return has the newest nonce", "a reservation covers the clock rates", "an acknowledgement is of its own term",
	"a removal is of its own term", "a leader adopts its term first", "the bound is of the newest leader",
	"the bound is for that leader only", "a leader keeps to its bound"}

func (r rule) String() string { return ruleNames[r] }

type entryKind uint8

const (
	entryFirst entryKind = iota
	entryRevoke
	entryTick
	entryRemove
	entryAdd
)

type worldEntry struct {
	term uint64
	kind entryKind
	node int // node that entryRemove removes or entryAdd adds, or leader that proposed entryFirst
}

// A scope sets the parameters of a world and bounds the number of steps of each kind. A negative
// bound means unlimited.
type scope struct {
	nodes, initial                            int // number of nodes, and of members at the start
	length                                    time.Duration
	own                                       time.Duration // maximum length of a leader's own lease; 0: not announced
	tick                                      time.Duration // true time of one tick
	rates                                     []float64     // clock rate of each node
	requests, ticks, crashes, elections       int
	revokes, barriers, removes, adds, returns int
	adoptions, late                           int  // late: number of followers' answers that are held back
	requesters, candidates, crashers          int  // sets of nodes, as bits
	reads                                     bool // whether a read takes two steps; otherwise every step ends with a read
	all                                       bool // whether steps that cannot break the promise are included
	prologue                                  []step
	off                                       rule
}

type worldNode struct {
	clock   Instant
	rate    float64
	boot    int
	term    uint64 // highest term in which the node voted or accepted entries
	log     []worldEntry
	intake  Intake
	applied int // applied index; the first index is 1
	holder  Holder
	late    *Request // last report of the earlier incarnation, which may arrive at any time
	lateTo  uint64

	reading bool // whether a read has begun after an acknowledgement and found an older state
	mark    uint64
	flag    bool // set by a timer while a lease was in force
}

func (n *worldNode) bootName() string { return fmt.Sprint(n.boot) }

// A worldLead is one term of leadership. Call world.lead for a copy before you change it.
type worldLead struct {
	term     uint64
	node     int
	boot     int
	alive    bool // whether the node acts as leader of the term
	first    int  // index of the term's first command
	table    *Table
	accepted []int // by node: last index that the node has accepted in this term
	match    []int // by node: highest index that the leader knows the node to have
	commit   int
	barriers []worldBarrier
	blocked  int // node whose removal may be proposed, or -1
}

type worldBarrier struct {
	request worldRequest
	after   int // the barrier's entry must be above this index
	sent    bool
}

type worldRequest struct {
	node int
	term uint64 // term of the leader to which it was sent
	r    Request
}

type worldReply struct {
	node int
	r    Reply
}

type world struct {
	s        *scope
	nodes    []worldNode
	leads    []*worldLead
	requests []worldRequest
	replies  []worldReply
	returns  []worldRequest
	acked    int

	observer func(k int, e leasecheck.Event) // nil: events are not observed
	true     time.Duration                   // true time that has passed

	used struct {
		requests, ticks, crashes, elections, revokes, barriers, removes, adds, returns, adoptions, late int
	}
}

func newWorld(s *scope) *world {
	w := &world{s: s}
	first := []worldEntry{{term: 1, kind: entryFirst}}
	for k := range s.nodes {
		n := worldNode{clock: Instant(1000*s.length) + Instant(k)*Instant(s.length), rate: 1, boot: 1,
			holder: *NewHolder(serverID(k), "1")}
		if s.rates != nil {
			n.rate = s.rates[k]
		}
		n.intake = NewIntake(n.clock.Add(-longAgo(s)))
		if k < s.initial {
			n.term, n.log, n.applied = 1, first, 1
		}
		w.nodes = append(w.nodes, n)
	}
	w.nodes[0].holder.Adopt(1)
	l := &worldLead{term: 1, boot: 1, alive: true, first: 1, accepted: make([]int, s.nodes), match: make([]int,
		s.nodes), commit: 1, blocked: -1}
	for k := range s.initial {
		l.accepted[k], l.match[k] = 1, 1
	}
	// No leader granted a lease before the first term.
	l.table = NewTable(Term{Number: 1, First: 1, Since: w.nodes[0].clock.Add(-longAgo(s)), Length: s.length,
		Longest: s.length, Members: w.members(first), Leader: w.bound(0)})
	w.leads = append(w.leads, l)
	return w
}

// bound returns the leader and the bound of its own lease that the first command of a term
// contains.
func (w *world) bound(k int) Leader {
	if w.s.own == 0 {
		return Leader{}
	}
	return Leader{Server: serverID(k), Own: w.s.own}
}

// previous returns the leader that the log contains for the newest term before the given one.
func (w *world) previous(log []worldEntry, term uint64) Leader {
	newest := true
	for i := len(log) - 1; i >= 0; i-- {
		if e := log[i]; e.kind == entryFirst && e.term < term {
			if newest && w.s.off == boundOfNewestLeader {
				newest = false
				continue
			}
			return w.bound(e.node)
		}
	}
	return Leader{}
}

// longAgo returns a duration after which every lease has expired.
func longAgo(s *scope) time.Duration { return 10 * ReservedFor(s.length) }

// eventOf returns an event about a request.
func eventOf(kind leasecheck.Kind, term uint64, r Request) leasecheck.Event {
	return leasecheck.Event{Kind: kind, Term: term, Server: r.Server, Boot: r.Boot, Nonce: r.Nonce,
		Applied: r.Applied, Adopted: r.Adopted}
}

// observe passes on an event at node k.
func (w *world) observe(k int, e leasecheck.Event) {
	if w.observer != nil {
		w.observer(k, e)
	}
}

func serverID(k int) string { return string(rune('A' + k)) }

// configured reports whether node k is in the newest configuration of a log.
func (w *world) configured(log []worldEntry, k int) bool {
	for i := len(log) - 1; i >= 0; i-- {
		if e := log[i]; e.node == k && (e.kind == entryRemove || e.kind == entryAdd) {
			return e.kind == entryAdd
		}
	}
	return k < w.s.initial
}

func (w *world) members(log []worldEntry) []string {
	var ids []string
	for k := range w.s.nodes {
		if w.configured(log, k) {
			ids = append(ids, serverID(k))
		}
	}
	return ids
}

// stable reports whether the newest configuration is committed. Only then does Raft accept another
// configuration change.
func (l *worldLead) stable(log []worldEntry) bool {
	for i := len(log) - 1; i >= l.commit; i-- {
		if log[i].kind == entryRemove || log[i].kind == entryAdd {
			return false
		}
	}
	return l.commit >= l.first
}

// clone copies the world, except the values behind pointers, which are copied before a change.
func (w *world) clone() *world {
	c := *w
	c.nodes = slices.Clone(w.nodes)
	c.leads = slices.Clone(w.leads)
	c.requests, c.replies, c.returns = slices.Clip(w.requests), slices.Clip(w.replies), slices.Clip(w.returns)
	return &c
}

func (t *Table) copied() *Table {
	if t == nil {
		return nil
	}
	c := *t
	c.reservations = make(map[string]*reservation, len(t.reservations))
	for id, b := range t.reservations {
		d := *b
		d.earlier, d.lapses = slices.Clone(b.earlier), slices.Clone(b.lapses)
		c.reservations[id] = &d
	}
	c.waiters = slices.Clone(t.waiters)
	return &c
}

// lead returns a copy of a term of leadership that may be changed, or nil.
func (w *world) lead(term uint64) *worldLead {
	for i, l := range w.leads {
		if l.term == term {
			c := *l
			c.table = l.table.copied()
			c.accepted, c.match, c.barriers = slices.Clone(l.accepted), slices.Clone(l.match), slices.Clone(l.barriers)
			w.leads[i] = &c
			return &c
		}
	}
	return nil
}

// deposed ends the leadership of node k in all terms that are older than the newest term that the
// node knows.
func (w *world) deposed(k int) {
	for _, l := range w.leads {
		if l.node == k && l.alive && l.term < w.nodes[k].term {
			w.lead(l.term).alive = false
		}
	}
}

func (w *world) applyUpTo(k, index int) {
	n := &w.nodes[k]
	n.applied = max(n.applied, min(index, len(n.log)))
}

// canonical appends to b the state that distinguishes worlds. Instants are relative to their
// owner's clock, and all past instants are equal. The numbers of steps taken are included, so the
// exploration is finite.
func (w *world) canonical(b []byte) []byte {
	num := func(vs ...int) {
		for _, v := range vs {
			b = binary.AppendVarint(b, int64(v))
		}
	}
	flag := func(v bool) {
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	left := func(end, now Instant) {
		if end > now {
			num(int(end - now))
		} else {
			num(0)
		}
	}
	request := func(a worldRequest) {
		num(a.node, int(a.term), int(a.r.Boot[0]), int(a.r.Nonce), int(a.r.Applied), int(a.r.Adopted), int(a.r.Dropped))
	}
	u := w.used
	num(u.requests, u.ticks, u.crashes, u.elections, u.revokes, u.barriers, u.removes, u.adds, u.returns,
		u.adoptions, u.late, w.acked)
	for k := range w.nodes {
		n := &w.nodes[k]
		num(n.boot, int(n.term), n.applied, len(n.log))
		for _, e := range n.log {
			num(int(e.term), int(e.kind), e.node)
		}
		num(int(n.intake.term))
		left(n.intake.latest.Add(ReservedFor(w.s.length)), n.clock)
		left(n.intake.earlier.Add(ReservedFor(w.s.length)), n.clock)
		h := &n.holder
		num(int(h.nonce), int(h.adopted), int(h.dropped))
		flag(h.open)
		if h.open {
			num(int(n.clock - h.requestedAt))
		}
		left(h.end.Add(-Guard), n.clock)
		flag(n.reading)
		flag(n.reading && n.mark == h.run)
		flag(n.flag)
		flag(n.late != nil)
		if n.late != nil {
			request(worldRequest{term: n.lateTo, r: *n.late})
		}
	}
	for _, l := range w.leads {
		num(l.node, l.boot, l.first, l.commit, l.blocked)
		flag(l.alive)
		num(l.accepted...)
		num(l.match...)
		num(len(l.barriers))
		for _, p := range l.barriers {
			request(p.request)
			num(p.after)
			flag(p.sent)
		}
		flag(l.table != nil)
		if l.table == nil {
			continue
		}
		now := w.nodes[l.node].clock
		num(int(l.table.acked))
		for k := range w.s.nodes {
			bk := l.table.reservations[serverID(k)]
			if bk == nil {
				b = append(b, 'x')
				continue
			}
			b = append(b, bk.boot...)
			left(bk.until, now)
			left(bk.inherited, now)
			var past Instant
			for _, o := range bk.earlier {
				past = max(past, o.until)
			}
			left(past, now)
			num(int(bk.applied), int(bk.nonce), int(bk.dropped), len(bk.lapses))
			flag(bk.blocked)
			flag(bk.until != 0)
		}
	}
	for _, a := range w.requests {
		if w.requestMatters(a) {
			b = append(b, 'a')
			request(a)
		}
	}
	for _, g := range w.replies {
		if w.replyMatters(g) {
			b = append(b, 'g')
			num(g.node, int(g.r.Term), int(g.r.Nonce), int(g.r.Boot[0]))
		}
	}
	num(len(w.returns))
	for _, a := range w.returns {
		request(a)
	}
	return b
}
