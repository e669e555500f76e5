package node

import (
	"fmt"
	"slices"
	"time"

	"revoked/internal/mutant"
)

// A step is one thing that may happen in a world.
type step struct {
	kind stepKind
	a, b int
}

type stepKind uint8

const (
	stepTick stepKind = iota
	stepAsk
	stepAdmit
	stepGrant
	stepTake
	stepHello
	stepReport
	stepLateReport
	stepTickEntry
	stepRevoke
	stepAccept
	stepAcceptLate // its answer comes later, by stepLearn
	stepLearn
	stepElect
	stepOpen
	stepAck
	stepCrash
	stepReadState
	stepReadLease
	stepTimer
	stepGiveBack
	stepGivenBack
	stepClear
	stepRemove
	stepAdd
	stepAddBook
	stepKinds
)

func within(used, bound int) bool { return bound < 0 || used < bound }

// steps lists what may happen next.
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
		if s.off == clockReadInRequest && !n.flag && n.holder.valid(n.clock, 0) {
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
	for i := range w.asks {
		if l := w.leadOf(w.asks[i].term); l != nil && l.table != nil && w.askMatters(w.asks[i]) {
			add(stepAdmit, i, 0)
		}
	}
	for i := range w.grants {
		if w.grantMatters(w.grants[i]) {
			add(stepTake, i, 0)
		}
	}
	for i := range w.backs {
		if l := w.leadOf(w.backs[i].term); l != nil && l.table != nil {
			add(stepGivenBack, i, 0)
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

// leadSteps lists what one term of leadership can do.
func (w *world) leadSteps(i int, out []step) []step {
	l, s, u := w.leads[i], w.s, &w.used
	n := &w.nodes[l.node]
	if l.boot != n.boot {
		return out // it died with its process
	}
	add := func(k stepKind, a int) { out = append(out, step{k, i, a}) }
	if l.alive {
		if l.table != nil {
			if within(u.proofs, s.proofs) && (s.all || l.unproven(n.log)) {
				add(stepTickEntry, 0)
			}
			if within(u.revokes, s.revokes) {
				add(stepRevoke, 0)
			}
		} else if s.all && w.mayOpen(l) {
			add(stepOpen, 0)
		}
		for k := range w.nodes {
			if k != l.node && w.nodes[k].term <= l.term && w.configured(n.log, k) && (l.accepted[k] < len(n.log) || w.nodes[k].applied < l.commit && (s.all || s.askers&(1<<k) != 0)) {
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
		if within(u.asks, s.asks) && s.askers&(1<<k) != 0 {
			add(stepAsk, k)
		}
		if within(u.hellos, s.hellos) && h.holder.adopted < l.term && (s.all || h.holder.open || h.holder.end != 0 || l.table.books[serverID(k)] != nil && l.table.books[serverID(k)].inherited > n.clock) {
			add(stepHello, k)
		}
		if b := l.table.books[serverID(k)]; s.all && b != nil && (b.boot != h.bootName() || b.applied < uint64(h.applied) || b.inherited != 0 && h.holder.adopted >= l.term) {
			add(stepReport, k)
		}
		if within(u.back, s.back) && h.holder.end != 0 {
			add(stepGiveBack, k)
		}
	}
	for p := range l.proofs {
		if s.all && w.mayGrant(l, p) {
			add(stepGrant, p)
		}
	}
	for index := int(l.table.acked) + 1; index <= l.commit; index++ {
		if e := n.log[index-1]; index > w.acked && e.kind == entryRevoke && e.term == l.term {
			add(stepAck, index)
		}
	}
	if s.off == ackInOwnTerm { // what a later term of the same node committed, by these books
		for _, m := range w.leads[i+1:] {
			if m.node == l.node && m.boot == l.boot {
				for index := m.epoch + 1; index <= m.commit; index++ {
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
	return l.alive && l.table == nil && (w.nodes[l.node].applied >= l.epoch || w.s.off == openAfterEpoch)
}

func (w *world) mayGrant(l *worldLead, p int) bool {
	return !l.proofs[p].sent && (w.s.off == proofNeeded || l.commit > l.proofs[p].after && w.nodes[l.node].log[l.commit-1].term == l.term)
}

// eager does what is worst when it is done at once, where not every step is to be tried at every
// moment: books that open early end their waits early, and a grant can be late on its way.
func (w *world) eager() {
	for i, l := range w.leads {
		if l.boot != w.nodes[l.node].boot {
			continue
		}
		if w.mayOpen(l) {
			w.doLead(w.lead(l.term), step{stepOpen, i, 0})
		}
		for p := range l.proofs {
			if w.mayGrant(w.leads[i], p) {
				w.doLead(w.lead(l.term), step{stepGrant, i, p})
			}
		}
	}
}

// hearAll brings the newest report of every member to a leader: what was heard late only delays. What a
// new life says first is left to its ask.
func (w *world) hearAll(l *worldLead) {
	for k := range w.nodes {
		if b := l.table.books[serverID(k)]; b != nil && (b.boot == "" || b.boot == w.nodes[k].bootName()) {
			w.report(l, w.askOf(k))
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
		if l.alive && in && l.clearing < 0 && within(u.removes, s.removes) {
			if free, _ := l.table.free(serverID(k), n.clock); free || s.off == removalWaits || s.off == removedStayBooked {
				add(stepClear, k)
			}
		}
		if l.alive && !in && within(u.adds, s.adds) && l.stable(n.log) {
			add(stepAdd, k)
		}
		if in && l.table.books[serverID(k)] == nil {
			add(stepAddBook, k)
		}
	}
	if k := l.clearing; k >= 0 && w.configured(n.log, k) {
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

// quorums lists the sets of voters, as bits, that can elect node k: the smallest ones.
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

// askMatters reports whether an ask that arrives can still lead to anything but a longer booking.
func (w *world) askMatters(a worldAsk) bool {
	h := &w.nodes[a.node].holder
	return w.s.all || w.s.off == grantNamesNonce || a.ask.boot != h.boot || h.open && a.ask.nonce == h.nonce
}

// grantMatters reports whether a grant that arrives can be taken.
func (w *world) grantMatters(g worldGrant) bool {
	h := &w.nodes[g.node].holder
	if !h.open {
		return false
	}
	return w.s.off == grantNamesNonce || g.grant.nonce == h.nonce && (w.s.off == grantNamesBoot || g.grant.boot == h.boot)
}

// unproven reports whether some proof waits for an entry that has not been proposed.
func (l *worldLead) unproven(log []worldEntry) bool {
	return slices.ContainsFunc(l.proofs, func(p worldProof) bool { return !p.sent && p.after >= len(log) })
}

// A broken is what must never happen.
type broken string

// do carries out a step, on a clone.
func (w *world) do(st step) broken {
	if b := w.carryOut(st); b != "" {
		return b
	}
	if !w.s.all {
		w.eager()
	}
	for k := range w.nodes {
		if n := &w.nodes[k]; w.mayAnswer(k) && n.applied < w.acked {
			return broken(fmt.Sprintf("%s may answer from its state at %d, and %d is acknowledged", serverID(k), n.applied, w.acked))
		}
	}
	return ""
}

// mayAnswer reports whether a node takes itself for the holder of a lease.
func (w *world) mayAnswer(k int) bool {
	n := &w.nodes[k]
	if w.s.off == clockReadInRequest {
		return n.flag
	}
	return n.holder.valid(n.clock, 0)
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
			w.nodes[k].clock += instant(float64(d) * w.nodes[k].rate)
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
		w.admit(w.asks[st.a])
	case stepTake:
		w.take(w.grants[st.a])
	case stepLateReport:
		n := &w.nodes[st.a]
		if l := w.lead(n.lateTo); l != nil && l.table != nil {
			w.report(l, *n.late)
		}
		n.late = nil
	case stepGivenBack:
		a := w.backs[st.a]
		if s.off == giveBackNamesNonce {
			a.ask.dropped = 1 << 60
		}
		w.lead(a.term).table.giveBack(a.ask.server, a.ask.boot, a.ask.dropped)
	default:
		w.doLead(w.lead(w.leads[st.a].term), st)
	}
	return ""
}

func (w *world) readLease(n *worldNode) broken {
	n.reading = false
	ok := n.holder.covers(n.clock, 0, n.mark)
	switch w.s.off {
	case stateReadUnderLease:
		ok = n.holder.valid(n.clock, 0)
	case clockReadInRequest:
		ok = n.flag
	}
	if ok {
		return "a read that began after an acknowledgement was answered from a state before it"
	}
	return ""
}

// crash ends a process and starts it again: what it knew is gone, its log stays, its state is behind.
func (w *world) crash(k int) {
	w.used.crashes++
	n := &w.nodes[k]
	if a := w.askOf(k); n.holder.adopted > 0 {
		n.late, n.lateTo = &a, n.holder.adopted
	}
	for _, l := range w.leads {
		if l.node == k && l.boot == n.boot {
			c := w.lead(l.term)
			c.alive, c.table, c.proofs = false, nil, nil
		}
	}
	n.boot++
	n.holder = leaseHolder{boot: n.bootName()}
	n.applied = min(n.applied, 1)
	n.reading, n.flag = false, false
}

func (w *world) askOf(k int) leaseAsk {
	n := &w.nodes[k]
	return leaseAsk{server: serverID(k), boot: n.bootName(), applied: uint64(n.applied), adopted: n.holder.adopted, dropped: n.holder.dropped}
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
	n.log = append(slices.Clip(n.log), worldEntry{term: term, kind: entryEpoch})
	l := &worldLead{term: term, node: k, boot: n.boot, alive: true, epoch: len(n.log),
		accepted: make([]int, w.s.nodes), match: make([]int, w.s.nodes), clearing: -1}
	l.accepted[k], l.match[k] = len(n.log), len(n.log)
	w.leads = append(w.leads, l)
	w.commit(l)
}

// admit is the leader's step with an ask, in one hold of its lock.
func (w *world) admit(a worldAsk) {
	l := w.lead(a.term)
	t, now := l.table, w.nodes[l.node].clock
	ask := a.ask
	b := t.books[ask.server]
	if b == nil {
		return
	}
	w.tamper(b, &ask, t)
	before, acked, epoch := b.bound, t.acked, t.epoch
	switch w.s.off {
	case admitOnlyAcked:
		t.acked = 0
	case admitOnlyEpoch:
		t.epoch = 0
	}
	reason := t.admit(now, ask)
	t.acked, t.epoch = acked, epoch
	if reason != admitted {
		return
	}
	if w.s.off != bookBeforeProof {
		w.tell(l.node, w.booking(l, a.ask))
	}
	switch w.s.off {
	case bookBeforeProof:
		b.bound = before
	case bookingCoversRates:
		b.bound = max(before, now.add(w.s.length))
	}
	p := worldProof{ask: a, after: len(w.nodes[l.node].log)}
	if w.s.off == proofProposedAfter {
		p.after = l.commit
	}
	if !slices.Contains(l.proofs, p) {
		l.proofs = append(l.proofs, p)
	}
}

// booking is the event of an ask that is booked, with what the member has applied by its newest report.
func (w *world) booking(l *worldLead, a leaseAsk) traceEvent {
	a.applied = l.table.books[a.server].applied
	return traceEvent{kind: traceBooked, term: l.term, ask: a, g: leaseGrant{length: w.s.length}}
}

// tamper is what the switched off rules do to whatever a member says.
func (w *world) tamper(b *booking, a *leaseAsk, t *leaseTable) {
	if w.s.off == bookNamesBoot && b.boot != "" {
		a.boot = b.boot
	}
	if w.s.off == newTermClearsOnlyOld && a.adopted >= t.term {
		b.bound = 0
	}
}

func (w *world) report(l *worldLead, a leaseAsk) {
	b := l.table.books[a.server]
	if b == nil {
		return
	}
	w.tell(l.node, traceEvent{kind: traceReport, term: l.term, ask: a})
	w.tamper(b, &a, l.table)
	l.table.adopt(a)
	l.table.report(w.nodes[l.node].clock, a.server, a.boot, a.applied)
}

// take is the holder's step with a grant.
func (w *world) take(m worldGrant) {
	n, g := &w.nodes[m.node], m.grant
	switch w.s.off {
	case grantNamesBoot:
		g.boot = n.holder.boot
	case grantNamesNonce:
		g.nonce = n.holder.nonce
	case adoptionRefusesGrants:
		g.term = max(g.term, n.holder.adopted)
	}
	took := n.holder.grant(n.clock, 0, g)
	w.tell(m.node, traceEvent{kind: traceTaken, g: m.grant, took: took})
}

func (w *world) follow(k int, term uint64) {
	n := &w.nodes[k]
	before := n.holder
	n.holder.adopt(term)
	switch w.s.off {
	case adoptionRefusesGrants:
		n.holder.open, n.holder.dropped = before.open, before.dropped
	case adoptionEndsLease:
		n.holder.end = before.end
	}
	w.tell(k, traceEvent{kind: traceAdopted, term: term})
}

// commit raises the leader's commit index to what it knows of its members, and applies.
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
	n.log = append(slices.Clip(n.log), e)
	l.accepted[l.node], l.match[l.node] = len(n.log), len(n.log)
	w.commit(l)
}

// doLead carries out a step of one term of leadership.
func (w *world) doLead(l *worldLead, st step) {
	k := st.b
	n := &w.nodes[l.node]
	switch st.kind {
	case stepTickEntry:
		w.used.proofs++
		w.propose(l, worldEntry{kind: entryTick})
	case stepRevoke:
		w.used.revokes++
		w.propose(l, worldEntry{kind: entryRevoke})
	case stepAccept, stepAcceptLate:
		f := &w.nodes[k]
		f.term, f.log = l.term, n.log
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
		epoch := l.epoch
		if w.s.off == openAfterEpoch {
			epoch = n.applied
		}
		l.table = newLeaseTable(l.term, uint64(epoch), n.clock, w.s.length, w.s.length, w.members(n.log))
		for _, b := range l.table.books {
			switch w.s.off {
			case newLeaderWaits:
				b.inherited = 0
			case bookingCoversRates:
				b.inherited = n.clock.add(w.s.length)
			}
		}
		w.tell(l.node, traceEvent{kind: traceOpened, term: l.term, index: uint64(l.epoch)})
		for k := range w.nodes { // who never asks has nothing to be waited for
			if !w.s.all && w.s.askers&(1<<k) == 0 {
				w.nodes[k].holder.adopt(l.term)
			}
		}
	case stepAsk:
		w.used.asks++
		h := &w.nodes[k].holder
		h.ask(w.nodes[k].clock, 0)
		a := w.askOf(k)
		a.nonce = h.nonce
		w.asks = append(w.asks, worldAsk{k, l.term, a})
		w.tell(k, traceEvent{kind: traceAsked, ask: a})
	case stepHello:
		w.used.hellos++
		w.follow(k, l.term)
	case stepReport:
		w.report(l, w.askOf(k))
	case stepGrant:
		p := &l.proofs[k]
		p.sent = true
		if w.s.off == bookBeforeProof || mutant.On(mutant.BookAtGrant) {
			b := l.table.books[p.ask.ask.server]
			if b == nil {
				return
			}
			b.bound = max(b.bound, n.clock.add(boundAfter(w.s.length)))
			w.tell(l.node, w.booking(l, p.ask.ask))
		}
		w.tell(l.node, traceEvent{kind: traceGranted, term: l.term, ask: p.ask.ask, index: uint64(l.commit)})
		w.grants = append(w.grants, worldGrant{p.ask.node, leaseGrant{term: l.term, nonce: p.ask.ask.nonce, boot: p.ask.ask.boot, length: w.s.length}})
	case stepAck:
		l.table.report(n.clock, serverID(l.node), n.bootName(), uint64(k))
		if !w.s.all {
			w.hearAll(l)
		}
		if w.s.off == ackWaits || l.table.settle(n.clock, uint64(k)) {
			w.acked = max(w.acked, k)
			w.tell(l.node, traceEvent{kind: traceAcknowledged, term: l.term, index: uint64(k)})
		}
	case stepGiveBack:
		w.used.back++
		w.nodes[k].holder.drop()
		w.tell(k, traceEvent{kind: traceDropped})
		w.backs = append(w.backs, worldAsk{k, l.term, w.askOf(k)})
	default:
		w.doMember(l, st)
	}
}

func (w *world) doMember(l *worldLead, st step) {
	k := st.b
	id, n := serverID(k), &w.nodes[l.node]
	switch st.kind {
	case stepClear:
		w.used.removes++
		l.clearing = k
		l.table.bar(id, w.s.off != removalBars)
	case stepRemove:
		l.clearing = -1
		w.propose(l, worldEntry{kind: entryRemove, node: k})
		if w.s.off == removedStayBooked {
			l.table.forget(id)
		}
	case stepAdd:
		w.used.adds++
		l.table.bar(id, false)
		w.propose(l, worldEntry{kind: entryAdd, node: k})
	case stepAddBook:
		l.table.addMember(id, n.clock)
	default:
		panic(fmt.Sprint("no such step: ", st.kind))
	}
}

// describe tells a step in words, before it is done.
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
	case stepAsk:
		return fmt.Sprintf("%s asks %s, nonce %d, applied %d", name(st.b), lead(), w.nodes[st.b].holder.nonce+1, w.nodes[st.b].applied)
	case stepAdmit:
		a := w.asks[st.a]
		return fmt.Sprintf("the ask of %s, boot %s, nonce %d, applied %d, reaches the leader of term %d", name(a.node), a.ask.boot, a.ask.nonce, a.ask.applied, a.term)
	case stepGrant:
		p := w.leads[st.a].proofs[st.b]
		return fmt.Sprintf("%s has its proof and grants %s nonce %d", lead(), name(p.ask.node), p.ask.ask.nonce)
	case stepTake:
		g := w.grants[st.a]
		return fmt.Sprintf("the grant of term %d, boot %s, nonce %d reaches %s", g.grant.term, g.grant.boot, g.grant.nonce, name(g.node))
	case stepHello:
		return fmt.Sprintf("%s hears of %s and follows", name(st.b), lead())
	case stepReport:
		return fmt.Sprintf("%s reports to %s: applied %d, follows %d", name(st.b), lead(), w.nodes[st.b].applied, w.nodes[st.b].holder.adopted)
	case stepLateReport:
		n := &w.nodes[st.a]
		return fmt.Sprintf("a report of %s's life before, applied %d, reaches the leader of term %d", name(st.a), n.late.applied, n.lateTo)
	case stepTickEntry:
		return fmt.Sprintf("%s proposes a tick at %d", lead(), last())
	case stepRevoke:
		return fmt.Sprintf("%s proposes a revocation at %d", lead(), last())
	case stepAcceptLate:
		return fmt.Sprintf("%s accepts up to %d from %s, commit %d; its answer is late", name(st.b), last()-1, lead(), w.leads[st.a].commit)
	case stepAccept:
		return fmt.Sprintf("%s accepts up to %d from %s, commit %d", name(st.b), last()-1, lead(), w.leads[st.a].commit)
	case stepLearn:
		return fmt.Sprintf("%s learns that %s has accepted up to %d", lead(), name(st.b), w.leads[st.a].accepted[st.b])
	case stepElect:
		return fmt.Sprintf("%s is elected for term %d by %03b", name(st.a), w.lastTerm()+1, st.b)
	case stepOpen:
		return fmt.Sprintf("%s opens its books", lead())
	case stepAck:
		return fmt.Sprintf("%s would acknowledge %d", lead(), st.b)
	case stepCrash:
		return fmt.Sprintf("%s crashes and starts again", name(st.a))
	case stepReadState:
		return fmt.Sprintf("a read begins at %s and finds the state at %d; %d is acknowledged", name(st.a), w.nodes[st.a].applied, w.acked)
	case stepReadLease:
		return fmt.Sprintf("the read at %s looks at the lease", name(st.a))
	case stepTimer:
		return fmt.Sprintf("a timer at %s notes that there is a lease", name(st.a))
	case stepGiveBack:
		return fmt.Sprintf("%s gives its lease back to %s, up to nonce %d", name(st.b), lead(), w.nodes[st.b].holder.nonce)
	case stepGivenBack:
		return fmt.Sprintf("the word of %s that gives back up to nonce %d reaches the leader of term %d", name(w.backs[st.a].node), w.backs[st.a].ask.dropped, w.backs[st.a].term)
	case stepClear:
		return fmt.Sprintf("%s bars %s for its removal", lead(), name(st.b))
	case stepRemove:
		return fmt.Sprintf("%s proposes at %d to remove %s", lead(), last(), name(st.b))
	case stepAdd:
		return fmt.Sprintf("%s proposes at %d to add %s", lead(), last(), name(st.b))
	case stepAddBook:
		return fmt.Sprintf("%s makes room for %s on its books", lead(), name(st.b))
	}
	return fmt.Sprint(st)
}
