package lease

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"revoked/node/lease/leasecheck"
)

// A step is one event in a world. The meaning of a and b depends on its kind.
type step struct {
	kind stepKind
	a, b int
}

type stepKind uint8

const (
	stepTick stepKind = iota
	stepRequest
	stepAdmit
	stepGrant
	stepTake
	stepAdopt
	stepReport
	stepLateReport
	stepTickEntry
	stepRevoke
	stepAccept
	stepAcceptLate // stepLearn delivers the answer later
	stepLearn
	stepElect
	stepOpen
	stepAck
	stepCrash
	stepReadState
	stepReadLease
	stepTimer
	stepReturn
	stepReturned
	stepBlock
	stepRemove
	stepAdd
	stepAddToTable
	stepKinds
)

func within(used, bound int) bool { return bound < 0 || used < bound }

// steps lists the steps that are possible now.
func (w *world) steps(out []step) []step {
	s, u := w.s, &w.used
	add := func(k stepKind, a, b int) { out = append(out, step{k, a, b}) }
	if within(u.ticks, s.ticks) {
		add(stepTick, 0, 0)
	}
	for k := range w.nodes {
		n := &w.nodes[k]
		if s.reads && n.applied < w.acked && !n.reading {
			add(stepReadState, k, 0)
		}
		if n.reading {
			add(stepReadLease, k, 0)
		}
		if s.off == clockReadPerAnswer && !n.flag && n.holder.Valid(n.clock, 0) {
			add(stepTimer, k, 0)
		}
		if n.late != nil {
			add(stepLateReport, k, 0)
		}
		if within(u.crashes, s.crashes) && s.crashers&(1<<k) != 0 {
			add(stepCrash, k, 0)
		}
		if within(u.elections, s.elections) && s.candidates&(1<<k) != 0 && w.configured(n.log, k) && len(n.log) > 0 {
			for _, q := range w.quorums(k) {
				add(stepElect, k, q)
			}
		}
	}
	for i := range w.requests {
		if l := w.leadOf(w.requests[i].term); l != nil && l.table != nil && w.requestMatters(w.requests[i]) {
			add(stepAdmit, i, 0)
		}
	}
	for i := range w.replies {
		if w.replyMatters(w.replies[i]) {
			add(stepTake, i, 0)
		}
	}
	for i := range w.returns {
		if l := w.leadOf(w.returns[i].term); l != nil && l.table != nil {
			add(stepReturned, i, 0)
		}
	}
	for i := range w.leads {
		out = w.leadSteps(i, out)
	}
	return out
}

func (w *world) leadOf(term uint64) *worldLead {
	for _, l := range w.leads {
		if l.term == term {
			return l
		}
	}
	return nil
}

// leadSteps lists the steps of one term of leadership.
func (w *world) leadSteps(i int, out []step) []step {
	l, s, u := w.leads[i], w.s, &w.used
	n := &w.nodes[l.node]
	if l.boot != n.boot {
		return out // the term ended with its process
	}
	add := func(k stepKind, a int) { out = append(out, step{k, i, a}) }
	if l.alive {
		if l.table != nil {
			if within(u.barriers, s.barriers) && (s.all || l.needsEntry(n.log)) {
				add(stepTickEntry, 0)
			}
			if within(u.revokes, s.revokes) {
				add(stepRevoke, 0)
			}
		} else if s.all && w.mayOpen(l) {
			add(stepOpen, 0)
		}
		for k := range w.nodes {
			if k != l.node && w.nodes[k].term <= l.term && w.configured(n.log, k) && (l.accepted[k] < len(n.log) ||
				w.nodes[k].applied < l.commit && (s.all || s.requesters&(1<<k) != 0)) {
				add(stepAccept, k)
				if within(u.late, s.late) {
					add(stepAcceptLate, k)
				}
			}
			if l.match[k] < l.accepted[k] {
				add(stepLearn, k)
			}
		}
	}
	if l.table == nil {
		return out
	}
	for k := range w.nodes {
		h := &w.nodes[k]
		if within(u.requests, s.requests) && s.requesters&(1<<k) != 0 {
			add(stepRequest, k)
		}
		if within(u.adoptions, s.adoptions) && h.holder.adopted < l.term && (s.all || h.holder.open ||
			h.holder.end != 0 || l.table.reservations[serverID(k)] != nil &&
			l.table.reservations[serverID(k)].inherited > n.clock) {
			add(stepAdopt, k)
		}
		if b := l.table.reservations[serverID(k)]; s.all && b != nil && (b.boot != h.bootName() ||
			b.applied < uint64(h.applied) || b.inherited != 0 && h.holder.adopted >= l.term) {
			add(stepReport, k)
		}
		if within(u.returns, s.returns) && h.holder.end != 0 {
			add(stepReturn, k)
		}
	}
	for p := range l.barriers {
		if s.all && w.mayGrant(l, p) {
			add(stepGrant, p)
		}
	}
	for index := int(l.table.acked) + 1; index <= l.commit; index++ {
		if e := n.log[index-1]; index > w.acked && e.kind == entryRevoke && e.term == l.term {
			add(stepAck, index)
		}
	}
	if s.off == ackInOwnTerm { // the old table may acknowledge an entry of a later term on the same node
		for _, m := range w.leads[i+1:] {
			if m.node == l.node && m.boot == l.boot {
				for index := m.first + 1; index <= m.commit; index++ {
					if index > w.acked && n.log[index-1].kind == entryRevoke {
						add(stepAck, index)
					}
				}
			}
		}
	}
	return w.memberSteps(i, out)
}

func (w *world) mayOpen(l *worldLead) bool {
	return l.alive && l.table == nil && (w.nodes[l.node].applied >= l.first || w.s.off == openAfterFirst)
}

func (w *world) mayGrant(l *worldLead, p int) bool {
	return !l.barriers[p].sent && (w.s.off == barrierNeeded || l.commit > l.barriers[p].after &&
		w.nodes[l.node].log[l.commit-1].term == l.term)
}

// eager immediately takes the steps that do the most harm when they are early, so these steps are
// not tried later. A table that opens early ends its waits early, and the network can still delay
// an early reply.
func (w *world) eager() {
	for i, l := range w.leads {
		if l.boot != w.nodes[l.node].boot {
			continue
		}
		if w.mayOpen(l) {
			w.doLead(w.lead(l.term), step{stepOpen, i, 0})
		}
		for p := range l.barriers {
			if w.mayGrant(w.leads[i], p) {
				w.doLead(w.lead(l.term), step{stepGrant, i, p})
			}
		}
	}
}

// reportAll delivers the newest report of every member to a leader. A late report would only delay
// acknowledgements. A new incarnation reports only with its request.
func (w *world) reportAll(l *worldLead) {
	for k := range w.nodes {
		if b := l.table.reservations[serverID(k)]; b != nil && (b.boot == "" || b.boot == w.nodes[k].bootName()) {
			w.report(l, w.requestOf(k))
		}
	}
}

func (w *world) memberSteps(i int, out []step) []step {
	l, s, u := w.leads[i], w.s, &w.used
	n := &w.nodes[l.node]
	add := func(k stepKind, a int) { out = append(out, step{k, i, a}) }
	for k := range w.nodes {
		if k == l.node {
			continue
		}
		in := w.configured(n.log, k)
		if l.alive && in && l.blocked < 0 && within(u.removes, s.removes) {
			if free, _ := l.table.IsFree(serverID(k), n.clock); free || s.off == removalWaits || s.off == removedStayReserved {
				add(stepBlock, k)
			}
		}
		if l.alive && !in && within(u.adds, s.adds) && l.stable(n.log) {
			add(stepAdd, k)
		}
		if in && l.table.reservations[serverID(k)] == nil {
			add(stepAddToTable, k)
		}
	}
	if k := l.blocked; k >= 0 && w.configured(n.log, k) {
		if l.alive && l.stable(n.log) {
			add(stepRemove, k)
		}
		if s.off == removalInOwnTerm {
			for j, m := range w.leads[i+1:] {
				if m.node == l.node && m.boot == l.boot && m.alive && m.stable(n.log) {
					out = append(out, step{stepRemove, i + 1 + j, k})
				}
			}
		}
	}
	return out
}

// quorums lists the smallest sets of voters, as bits, that can elect node k.
func (w *world) quorums(k int) []int {
	n := &w.nodes[k]
	var willing, voters int
	for v := range w.nodes {
		if !w.configured(n.log, v) {
			continue
		}
		voters++
		o := &w.nodes[v]
		if v == k || o.term <= w.lastTerm() && upToDate(n.log, o.log) {
			willing |= 1 << v
		}
	}
	var out []int
	for q := range 1 << w.s.nodes {
		if q&willing == q && q&(1<<k) != 0 && ones(q) == voters/2+1 {
			out = append(out, q)
		}
	}
	return out
}

func ones(q int) (c int) {
	for ; q != 0; q &= q - 1 {
		c++
	}
	return c
}

func (w *world) lastTerm() uint64 { return w.leads[len(w.leads)-1].term }

func upToDate(a, b []worldEntry) bool {
	if len(b) == 0 {
		return true
	}
	if len(a) == 0 {
		return false
	}
	if x, y := a[len(a)-1].term, b[len(b)-1].term; x != y {
		return x > y
	}
	return len(a) >= len(b)
}

// requestMatters reports whether a request can still do more than extend a reservation.
func (w *world) requestMatters(a worldRequest) bool {
	h := &w.nodes[a.node].holder
	return w.s.all || w.s.off == replyNamesNonce || a.r.Boot != h.boot || h.open && a.r.Nonce == h.nonce
}

// replyMatters reports whether a reply can still be accepted.
func (w *world) replyMatters(g worldReply) bool {
	h := &w.nodes[g.node].holder
	if !h.open {
		return false
	}
	return w.s.off == replyNamesNonce || g.r.Nonce == h.nonce && (w.s.off == replyNamesBoot || g.r.Boot == h.boot)
}

// needsEntry reports whether a barrier of l waits for an entry that is not proposed yet.
func (l *worldLead) needsEntry(log []worldEntry) bool {
	return slices.ContainsFunc(l.barriers, func(p worldBarrier) bool { return !p.sent && p.after >= len(log) })
}

// A broken value describes a violation of the promise.
type broken string

// do takes a step and checks the promise. w is a clone.
func (w *world) do(st step) broken {
	if b := w.carryOut(st); b != "" {
		return b
	}
	if !w.s.all {
		w.eager()
	}
	for k := range w.nodes {
		if n := &w.nodes[k]; w.mayAnswer(k) && n.applied < w.acked {
			return broken(fmt.Sprintf("%s may answer from its state at %d, and %d is acknowledged", serverID(k),
				n.applied, w.acked))
		}
	}
	return ""
}

// mayAnswer reports whether a node's own check finds its lease in force.
func (w *world) mayAnswer(k int) bool {
	n := &w.nodes[k]
	if w.s.off == clockReadPerAnswer {
		return n.flag
	}
	return n.holder.Valid(n.clock, 0)
}

func (w *world) carryOut(st step) broken {
	s := w.s
	switch st.kind {
	case stepTick:
		w.used.ticks++
		d := s.tick
		if st.a > 0 {
			d = time.Duration(st.a)
		}
		for k := range w.nodes {
			w.nodes[k].clock += Instant(float64(d) * w.nodes[k].rate)
		}
		w.true += d
	case stepCrash:
		w.crash(st.a)
	case stepReadState:
		n := &w.nodes[st.a]
		n.reading, n.mark = true, n.holder.run
	case stepReadLease:
		return w.readLease(&w.nodes[st.a])
	case stepTimer:
		w.nodes[st.a].flag = true
	case stepElect:
		w.elect(st.a, st.b)
	case stepAdmit:
		w.admit(w.requests[st.a])
	case stepTake:
		w.take(w.replies[st.a])
	case stepLateReport:
		n := &w.nodes[st.a]
		if l := w.lead(n.lateTo); l != nil && l.table != nil {
			w.report(l, *n.late)
		}
		n.late = nil
	case stepReturned:
		a := w.returns[st.a]
		if s.off == returnNamesNonce {
			a.r.Dropped = 1 << 60
		}
		l := w.lead(a.term)
		l.table.Return(w.nodes[l.node].clock, a.r.Server, a.r.Boot, a.r.Dropped)
	default:
		w.doLead(w.lead(w.leads[st.a].term), st)
	}
	return ""
}

func (w *world) readLease(n *worldNode) broken {
	n.reading = false
	ok := n.holder.Covers(n.clock, 0, n.mark)
	switch w.s.off {
	case stateReadUnderLease:
		ok = n.holder.Valid(n.clock, 0)
	case clockReadPerAnswer:
		ok = n.flag
	}
	if ok {
		return "a read that began after an acknowledgement was answered from a state before it"
	}
	return ""
}

// crash restarts a process. Its log remains, its state is behind the log, and everything else is
// lost.
func (w *world) crash(k int) {
	w.used.crashes++
	n := &w.nodes[k]
	if a := w.requestOf(k); n.holder.adopted > 0 {
		n.late, n.lateTo = &a, n.holder.adopted
	}
	for _, l := range w.leads {
		if l.node == k && l.boot == n.boot {
			c := w.lead(l.term)
			c.alive, c.table, c.barriers = false, nil, nil
		}
	}
	n.boot++
	n.intake = NewIntake(n.clock)
	if w.s.off == startCounts {
		n.intake = NewIntake(n.clock.Add(-longAgo(w.s)))
	}
	n.holder = *NewHolder(serverID(k), n.bootName())
	n.applied = min(n.applied, 1)
	n.reading, n.flag = false, false
}

func (w *world) requestOf(k int) Request {
	n := &w.nodes[k]
	return Request{Server: serverID(k), Boot: n.bootName(), Applied: uint64(n.applied), Adopted: n.holder.adopted,
		Dropped: n.holder.dropped}
}

func (w *world) elect(k, quorum int) {
	w.used.elections++
	term := w.lastTerm() + 1
	n := &w.nodes[k]
	for v := range w.nodes {
		if quorum&(1<<v) != 0 {
			w.nodes[v].term = term
			w.deposed(v)
		}
	}
	if w.s.off != leaderAdoptsFirst {
		w.adopt(k, term)
	}
	w.takeIn(n, append(slices.Clip(n.log), worldEntry{term: term, kind: entryFirst, node: k}), ownEntriesCount)
	l := &worldLead{term: term, node: k, boot: n.boot, alive: true, first: len(n.log),
		accepted: make([]int, w.s.nodes), match: make([]int, w.s.nodes), blocked: -1}
	l.accepted[k], l.match[k] = len(n.log), len(n.log)
	w.leads = append(w.leads, l)
	w.commit(l)
}

// admit is the step of a leader that receives a request, in one critical section.
func (w *world) admit(a worldRequest) {
	l := w.lead(a.term)
	t, now := l.table, w.nodes[l.node].clock
	r := a.r
	m := t.reservations[r.Server]
	if m == nil {
		return
	}
	w.observe(l.node, eventOf(leasecheck.Reported, l.term, r))
	w.tamper(m, &r, t)
	before, acked, first := m.until, t.acked, t.first
	switch w.s.off {
	case admitOnlyPastAcked:
		t.acked = 0
	case admitOnlyPastFirst:
		t.first = 0
	}
	refusal := t.admit(now, r)
	t.acked, t.first = acked, first
	if refusal != Admitted {
		return
	}
	if w.s.off != reserveBeforeBarrier {
		w.observe(l.node, w.reservedEvent(l, a.r))
	}
	switch w.s.off {
	case reserveBeforeBarrier:
		m.until = before
	case reservationCoversRates:
		m.until = max(before, now.Add(t.lengthFor(r.Server)))
	}
	p := worldBarrier{request: a, after: len(w.nodes[l.node].log)}
	if w.s.off == barrierProposedAfter {
		p.after = l.commit
	}
	if !slices.Contains(l.barriers, p) {
		l.barriers = append(l.barriers, p)
	}
}

// reservedEvent returns the event for the reservation of a lease for a request.
func (w *world) reservedEvent(l *worldLead, a Request) leasecheck.Event {
	e := eventOf(leasecheck.Reserved, l.term, a)
	e.Length = w.granted(l, a.Server)
	return e
}

// granted returns the length of the lease that a term's leader grants.
func (w *world) granted(l *worldLead, server string) time.Duration {
	if w.s.off == boundHolds {
		return w.s.length
	}
	return l.table.lengthFor(server)
}

// tamper changes a report or a reservation in the way that the disabled rule prevents.
func (w *world) tamper(b *reservation, a *Request, t *Table) {
	if w.s.off == reservationNamesBoot && b.boot != "" {
		a.Boot = b.boot
	}
	if w.s.off == adoptionClearsOnlyInherited && a.Adopted >= t.term {
		b.until = 0
	}
}

func (w *world) report(l *worldLead, a Request) {
	b := l.table.reservations[a.Server]
	if b == nil {
		return
	}
	w.observe(l.node, eventOf(leasecheck.Reported, l.term, a))
	w.tamper(b, &a, l.table)
	l.table.report(w.nodes[l.node].clock, a)
}

// take is the step of a holder that receives a reply.
func (w *world) take(m worldReply) {
	n, g := &w.nodes[m.node], m.r
	switch w.s.off {
	case replyNamesBoot:
		g.Boot = n.holder.boot
	case replyNamesNonce:
		g.Nonce = n.holder.nonce
	case adoptionRejectsReplies:
		g.Term = max(g.Term, n.holder.adopted)
	}
	took := n.holder.Take(n.clock, 0, g)
	w.observe(m.node, leasecheck.Event{Kind: leasecheck.Taken, Term: m.r.Term, Nonce: m.r.Nonce, Boot: m.r.Boot,
		Length: m.r.Length, Accepted: took})
}

func (w *world) adopt(k int, term uint64) {
	n := &w.nodes[k]
	before := n.holder
	n.holder.Adopt(term)
	switch w.s.off {
	case adoptionRejectsReplies:
		n.holder.open, n.holder.dropped = before.open, before.dropped
	case adoptionEndsLease:
		n.holder.end = before.end
	}
	w.observe(k, leasecheck.Event{Kind: leasecheck.Adopted, Term: term})
}

// commit raises the leader's commit index as far as match permits, and applies the entries.
func (w *world) commit(l *worldLead) {
	log := w.nodes[l.node].log
	for index := len(log); index > l.commit && log[index-1].term == l.term; index-- {
		have, voters := 0, 0
		for k := range w.nodes {
			if !w.configured(log, k) {
				continue
			}
			voters++
			if l.match[k] >= index {
				have++
			}
		}
		if have >= voters/2+1 {
			l.commit = index
			w.applyUpTo(l.node, index)
			return
		}
	}
}

func (w *world) propose(l *worldLead, e worldEntry) {
	n := &w.nodes[l.node]
	e.term = l.term
	w.takeIn(n, append(slices.Clip(n.log), e), ownEntriesCount)
	l.accepted[l.node], l.match[l.node] = len(n.log), len(n.log)
	w.commit(l)
}

// takeIn replaces a node's log with a log that the node has proposed or received. It records the
// intake, unless the rule by is disabled.
func (w *world) takeIn(n *worldNode, log []worldEntry, by rule) {
	equal := 0
	for equal < min(len(n.log), len(log)) && n.log[equal] == log[equal] {
		equal++
	}
	n.log = log
	if added := log[equal:]; len(added) > 0 && w.s.off != by {
		n.intake.Took(added[0].term, added[len(added)-1].term, n.clock)
	}
}

// doLead takes a step of one term of leadership.
func (w *world) doLead(l *worldLead, st step) {
	k := st.b
	n := &w.nodes[l.node]
	switch st.kind {
	case stepTickEntry:
		w.used.barriers++
		w.propose(l, worldEntry{kind: entryTick})
	case stepRevoke:
		w.used.revokes++
		w.propose(l, worldEntry{kind: entryRevoke})
	case stepAccept, stepAcceptLate:
		f := &w.nodes[k]
		f.term = l.term
		w.takeIn(f, n.log, receivedEntriesCount)
		w.deposed(k)
		l.accepted[k] = len(f.log)
		w.applyUpTo(k, l.commit)
		if st.kind == stepAcceptLate {
			w.used.late++
			return
		}
		l.match[k] = l.accepted[k]
		w.commit(l)
	case stepLearn:
		l.match[k] = l.accepted[k]
		w.commit(l)
	case stepOpen:
		first := l.first
		if w.s.off == openAfterFirst {
			first = n.applied
		}
		since := n.intake.Before(l.term)
		l.table = NewTable(Term{Number: l.term, First: uint64(first), Since: since, Length: w.s.length,
			Longest: w.s.length, Members: w.members(n.log), Leader: w.bound(l.node), Previous: w.previous(n.log, l.term)})
		for _, b := range l.table.reservations {
			switch w.s.off {
			case boundOfLeaderOnly:
				b.inherited = since.Add(ReservedFor(cmp.Or(w.s.own, w.s.length)))
			case newLeaderWaits:
				b.inherited = 0
			case reservationCoversRates:
				b.inherited = since.Add(w.s.length)
			}
		}
		w.observe(l.node, leasecheck.Event{Kind: leasecheck.Opened, Term: l.term, Index: uint64(l.first)})
		for k := range w.nodes { // the leader need not wait for a node that never requests a lease
			if !w.s.all && w.s.requesters&(1<<k) == 0 {
				w.nodes[k].holder.Adopt(l.term)
			}
		}
	case stepRequest:
		w.used.requests++
		h := &w.nodes[k].holder
		h.Request(w.nodes[k].clock, 0)
		a := w.requestOf(k)
		a.Nonce = h.nonce
		w.requests = append(w.requests, worldRequest{k, l.term, a})
		w.observe(k, eventOf(leasecheck.Requested, l.term, a))
	case stepAdopt:
		w.used.adoptions++
		w.adopt(k, l.term)
	case stepReport:
		w.report(l, w.requestOf(k))
	case stepGrant:
		p := &l.barriers[k]
		p.sent = true
		if w.s.off == reserveBeforeBarrier {
			b := l.table.reservations[p.request.r.Server]
			if b == nil {
				return
			}
			b.until = max(b.until, n.clock.Add(ReservedFor(l.table.lengthFor(p.request.r.Server))))
			w.observe(l.node, w.reservedEvent(l, p.request.r))
		}
		w.observe(l.node, eventOf(leasecheck.Granted, l.term, p.request.r))
		w.replies = append(w.replies, worldReply{p.request.node, Reply{Term: l.term, Nonce: p.request.r.Nonce,
			Boot: p.request.r.Boot, Length: w.granted(l, p.request.r.Server)}})
	case stepAck:
		own := Request{Server: serverID(l.node), Boot: n.bootName(), Applied: uint64(k)}
		w.observe(l.node, eventOf(leasecheck.Reported, l.term, own))
		l.table.report(n.clock, own)
		if !w.s.all {
			w.reportAll(l)
		}
		if w.s.off == ackWaits || l.table.tryAcknowledge(n.clock, uint64(k)) {
			w.acked = max(w.acked, k)
			w.observe(l.node, leasecheck.Event{Kind: leasecheck.Acknowledged, Term: l.term, Index: uint64(k)})
		}
	case stepReturn:
		w.used.returns++
		w.nodes[k].holder.Drop()
		w.observe(k, leasecheck.Event{Kind: leasecheck.Dropped})
		w.returns = append(w.returns, worldRequest{k, l.term, w.requestOf(k)})
	default:
		w.doMember(l, st)
	}
}

func (w *world) doMember(l *worldLead, st step) {
	k := st.b
	id := serverID(k)
	switch st.kind {
	case stepBlock:
		w.used.removes++
		l.blocked = k
		l.table.Block(id, w.s.off != removalBlocks)
	case stepRemove:
		l.blocked = -1
		w.propose(l, worldEntry{kind: entryRemove, node: k})
		if w.s.off == removedStayReserved {
			l.table.forget(id)
		}
	case stepAdd:
		w.used.adds++
		l.table.Block(id, false)
		w.propose(l, worldEntry{kind: entryAdd, node: k})
	case stepAddToTable:
		l.table.addMember(id)
	default:
		panic(fmt.Sprint("unknown step ", st.kind))
	}
}

// describe returns a step in words. Call it before the step is done.
func (w *world) describe(st step) string {
	name := func(k int) string { return string(serverID(k)) }
	lead := func() string {
		l := w.leads[st.a]
		return fmt.Sprintf("%s in term %d", name(l.node), l.term)
	}
	last := func() int { return len(w.nodes[w.leads[st.a].node].log) + 1 }
	switch st.kind {
	case stepTick:
		d := w.s.tick
		if st.a > 0 {
			d = time.Duration(st.a)
		}
		return fmt.Sprintf("%v pass", d)
	case stepRequest:
		return fmt.Sprintf("%s requests a lease from %s, nonce %d, applied %d", name(st.b), lead(),
			w.nodes[st.b].holder.nonce+1, w.nodes[st.b].applied)
	case stepAdmit:
		a := w.requests[st.a]
		return fmt.Sprintf("the request of %s, boot %s, nonce %d, applied %d, reaches the leader of term %d",
			name(a.node), a.r.Boot, a.r.Nonce, a.r.Applied, a.term)
	case stepGrant:
		p := w.leads[st.a].barriers[st.b]
		return fmt.Sprintf("%s passed the barrier and grants %s nonce %d", lead(), name(p.request.node), p.request.r.Nonce)
	case stepTake:
		g := w.replies[st.a]
		return fmt.Sprintf("the reply of term %d, boot %s, nonce %d reaches %s", g.r.Term, g.r.Boot, g.r.Nonce, name(g.node))
	case stepAdopt:
		return fmt.Sprintf("%s learns of %s and adopts its term", name(st.b), lead())
	case stepReport:
		return fmt.Sprintf("%s reports to %s: applied %d, adopted %d", name(st.b), lead(), w.nodes[st.b].applied,
			w.nodes[st.b].holder.adopted)
	case stepLateReport:
		n := &w.nodes[st.a]
		return fmt.Sprintf("a report of %s's earlier incarnation, applied %d, reaches the leader of term %d", name(st.a),
			n.late.Applied, n.lateTo)
	case stepTickEntry:
		return fmt.Sprintf("%s proposes a tick at %d", lead(), last())
	case stepRevoke:
		return fmt.Sprintf("%s proposes a revocation at %d", lead(), last())
	case stepAcceptLate:
		return fmt.Sprintf("%s accepts up to %d from %s, commit %d; the answer is late", name(st.b), last()-1, lead(),
			w.leads[st.a].commit)
	case stepAccept:
		return fmt.Sprintf("%s accepts up to %d from %s, commit %d", name(st.b), last()-1, lead(), w.leads[st.a].commit)
	case stepLearn:
		return fmt.Sprintf("%s learns that %s has accepted up to %d", lead(), name(st.b), w.leads[st.a].accepted[st.b])
	case stepElect:
		return fmt.Sprintf("%s is elected for term %d by %03b", name(st.a), w.lastTerm()+1, st.b)
	case stepOpen:
		return fmt.Sprintf("%s opens its term", lead())
	case stepAck:
		return fmt.Sprintf("%s tries to acknowledge %d", lead(), st.b)
	case stepCrash:
		return fmt.Sprintf("%s crashes and restarts", name(st.a))
	case stepReadState:
		return fmt.Sprintf("a read begins at %s and finds the state at %d; %d is acknowledged", name(st.a),
			w.nodes[st.a].applied, w.acked)
	case stepReadLease:
		return fmt.Sprintf("the read at %s checks the lease", name(st.a))
	case stepTimer:
		return fmt.Sprintf("a timer at %s sees the lease", name(st.a))
	case stepReturn:
		return fmt.Sprintf("%s returns its lease to %s, up to nonce %d", name(st.b), lead(), w.nodes[st.b].holder.nonce)
	case stepReturned:
		return fmt.Sprintf("the return of %s, up to nonce %d, reaches the leader of term %d",
			name(w.returns[st.a].node), w.returns[st.a].r.Dropped, w.returns[st.a].term)
	case stepBlock:
		return fmt.Sprintf("%s blocks %s for its removal", lead(), name(st.b))
	case stepRemove:
		return fmt.Sprintf("%s proposes at %d to remove %s", lead(), last(), name(st.b))
	case stepAdd:
		return fmt.Sprintf("%s proposes at %d to add %s", lead(), last(), name(st.b))
	case stepAddToTable:
		return fmt.Sprintf("%s adds %s to its table", lead(), name(st.b))
	}
	return fmt.Sprint(st)
}
