package node

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// This file replays the lease events of the product against the rules of the model (leaseworld_test.go):
// every event must be a step that the model permits. It is written anew, from the rules and on true time,
// and shares no code with leaseTable and leaseHolder; a complaint names the rule.

// A simHolder is one life as a holder.
type simHolder struct {
	nonce   uint64
	asked   map[uint64]simAsk
	adopted uint64
	dropped uint64 // grants up to this nonce are refused
	term    uint64
	end     instant // of the lease on its own clock; 0: none
	wall    int64   // offset of the wall clock when its ask was noted
	ended   time.Time

	applied     uint64
	lastCommand uint64
}

type simAsk struct {
	boot instant
	at   time.Time
	wall int64
}

// valid reports whether the life may answer from its copy now.
func (h *simHolder) valid(l *simLife) bool {
	moved := time.Duration(l.of.clock.wall.Load() - h.wall)
	return h.end != 0 && l.of.clock.Boot() < h.end.add(-leaseGuard) && moved.Abs() <= leaseGuard+simDrift
}

// simDrift is how far wall and boot clock part at most during a lease, by their rates alone: so much more
// than the guard the wall clock may have moved before the product must have noticed.
const simDrift = 100 * time.Millisecond

// A simTable is one term of leadership.
type simTable struct {
	term, epoch uint64
	life        *simLife
	open        bool
	acked       uint64
	acks        int
	waits       map[uint64]time.Time
	books       map[simBook]simBooked
	granted     map[simBook]bool
	boots       map[raft.ServerID]string
	until       map[raft.ServerID]time.Time // of the newest booking, in true time
	applied     map[raft.ServerID]uint64
}

type simBook struct {
	server raft.ServerID
	boot   string
	nonce  uint64
}

type simBooked struct {
	at    time.Time
	acks  int
	after uint64
}

// trace hears an event of a life.
func (o *simOracle) trace(l *simLife, e traceEvent) {
	if e.kind == traceRead {
		o.read(l)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.dead.Load() || l.n == nil && e.kind != traceAsked {
		return
	}
	switch e.kind {
	case traceElected:
		o.count.add("events: elected")
		if l.n.fsm.Applied() < l.spec.lastCommand {
			o.count.add("race: fresh leader's state behind its log")
		}
	case traceOpened:
		o.opened(l, e)
	case traceClosed:
		if t := o.table(l); t != nil {
			t.open = false
			t.waits = map[uint64]time.Time{}
		}
	case traceReport:
		o.reports = remember(o.reports, e)
		o.reported(l, e)
	case traceBooked:
		o.asks = remember(o.asks, e)
		o.booked(l, e)
	case traceGranted:
		o.grantsSent = remember(o.grantsSent, e)
		o.granted(l, e)
	case traceAsked:
		o.asked(l, e)
	case traceTaken:
		o.taken(l, e)
	case traceAdopted:
		if e.term > l.spec.adopted {
			l.spec.adopted = e.term
			l.spec.drop()
		}
	case traceDropped:
		l.spec.drop()
	case traceWaits:
		if t := o.tables[e.term]; t != nil {
			t.waits[e.index] = time.Now()
			if len(t.waits) == 4 {
				o.count.add("race: a stream of revocations behind a slow holder")
			}
		}
	case traceAcknowledged:
		o.acknowledged(l, e)
	case traceLeased:
		if !l.spec.valid(l) && !l.spec.ended.Equal(time.Now()) {
			o.failLocked("I7", "%s answers from its copy without a lease", l.self)
		}
		if l.n.raft.State() == raft.Leader && l.spec.term < o.maxOpened {
			o.count.add("race: a deposed leader serves itself")
		}
	}
}

func (h *simHolder) drop() {
	h.end, h.dropped, h.ended = 0, h.nonce, time.Now()
}

// table is the newest term that a life has opened.
func (o *simOracle) table(l *simLife) (newest *simTable) {
	for _, t := range o.tables {
		if t.life == l && (newest == nil || t.term > newest.term) {
			newest = t
		}
	}
	return newest
}

func (o *simOracle) opened(l *simLife, e traceEvent) {
	if t := o.tables[e.term]; t != nil {
		o.failLocked("I6", "term %d is opened by %s and by %s", e.term, t.life.self, l.self)
	}
	if l.n.fsm.Applied() < e.index {
		o.failLocked(openAfterEpoch.String(), "%s opens term %d at %d, its first command is at %d", l.self, e.term, l.n.fsm.Applied(), e.index)
	}
	if _, ok := o.entries[simEntry{e.index, e.term}]; !ok {
		o.failLocked(openAfterEpoch.String(), "%s opens term %d on index %d, which is no entry of that term", l.self, e.term, e.index)
	}
	if e.index < o.acked {
		o.failLocked("I3", "%s opens term %d at index %d, but %d was acknowledged", l.self, e.term, e.index, o.acked)
	}
	o.tables[e.term] = &simTable{term: e.term, epoch: e.index, life: l, open: true, waits: map[uint64]time.Time{}, books: map[simBook]simBooked{},
		granted: map[simBook]bool{}, boots: map[raft.ServerID]string{}, until: map[raft.ServerID]time.Time{}, applied: map[raft.ServerID]uint64{}}
	o.count.add("events: terms opened")
	for x := range o.lives {
		if x != l && x.spec.valid(x) && x.spec.term < e.term {
			o.count.add("race: fresh leader with old leases alive")
			break
		}
	}
	if e.term > o.maxOpened {
		if o.openedBy != l.self {
			o.count.add("nemesis: leader changes")
		}
		o.maxOpened, o.openedBy = e.term, l.self
	}
	o.noteLocked(fmt.Sprintf("%s opens term %d at index %d", l.self, e.term, e.index))
}

func (o *simOracle) reported(l *simLife, e traceEvent) {
	t := o.tables[e.term]
	if t == nil {
		return
	}
	id := e.ask.server
	if had := t.boots[id]; had != e.ask.boot {
		if had != "" && t.until[id].After(time.Now()) {
			o.count.add("race: a new life reports while the old one is booked")
			if len(t.waits) > 0 {
				o.count.add("race: and an acknowledgement waits")
			}
		}
		t.boots[id], t.applied[id] = e.ask.boot, 0
	}
	t.applied[id] = max(t.applied[id], e.ask.applied)
}

func (o *simOracle) booked(l *simLife, e traceEvent) {
	t := o.tables[e.term]
	if t == nil || t.life != l {
		o.failLocked(openAfterEpoch.String(), "%s books %s in term %d, which it has not opened", l.self, e.ask.server, e.term)
		return
	}
	if e.ask.applied < t.epoch {
		o.failLocked(admitOnlyEpoch.String(), "%s admits %s at %d in term %d, which begins at %d", l.self, e.ask.server, e.ask.applied, t.term, t.epoch)
	}
	if e.ask.applied < t.acked {
		o.failLocked(admitOnlyAcked.String(), "%s admits %s at %d in term %d, which has acknowledged %d", l.self, e.ask.server, e.ask.applied, t.term, t.acked)
	}
	k := simBook{e.ask.server, e.ask.boot, e.ask.nonce}
	if _, again := t.books[k]; !again { // an ask that comes twice may be granted on the proof of the first
		t.books[k] = simBooked{at: time.Now(), acks: t.acks, after: l.n.raft.LastIndex()}
	}
	t.until[e.ask.server] = time.Now().Add(boundAfter(e.g.length))
	t.boots[e.ask.server] = e.ask.boot
	if e.term < o.maxOpened {
		o.count.add("race: a deposed leader is asked to grant")
	}
}

func (o *simOracle) granted(l *simLife, e traceEvent) {
	t := o.tables[e.term]
	k := simBook{e.ask.server, e.ask.boot, e.ask.nonce}
	if t == nil {
		return
	}
	b, ok := t.books[k]
	switch {
	case !ok:
		o.failLocked(bookBeforeProof.String(), "%s grants %s nonce %d in term %d and has not booked it", l.self, k.server, k.nonce, t.term)
	case e.index <= b.after:
		o.failLocked(proofProposedAfter.String(), "%s grants %s on index %d, the booking came after %d", l.self, k.server, e.index, b.after)
	case l.n.fsm.Applied() < e.index:
		o.failLocked(proofNeeded.String(), "%s grants %s on index %d, it has applied %d", l.self, k.server, e.index, l.n.fsm.Applied())
	default:
		if _, ok := o.entries[simEntry{e.index, e.term}]; !ok {
			o.failLocked(proofNeeded.String(), "%s grants %s in term %d on index %d, which is no entry of that term", l.self, k.server, t.term, e.index)
		}
	}
	if t.acks > b.acks {
		o.count.add("race: admitted, then acknowledged, then granted")
	}
	t.granted[k] = true
}

func (o *simOracle) asked(l *simLife, e traceEvent) {
	h := &l.spec
	if h.asked == nil {
		h.asked = map[uint64]simAsk{}
	}
	if e.ask.nonce <= h.nonce {
		o.failLocked(grantNamesNonce.String(), "%s uses nonce %d again", l.self, e.ask.nonce)
	}
	h.nonce = e.ask.nonce
	h.asked[h.nonce] = simAsk{boot: l.of.clock.Boot(), at: time.Now(), wall: l.of.clock.wall.Load()}
	delete(h.asked, h.nonce-64)
}

func (o *simOracle) taken(l *simLife, e traceEvent) {
	h := &l.spec
	if !e.took {
		o.count.add("events: grants refused by their holder")
		if a, ok := h.asked[e.g.nonce]; ok && l.of.clock.Boot() >= a.boot.add(e.g.length-leaseGuard) {
			o.count.add("race: a grant is delayed past its end")
		}
		return
	}
	o.count.add("events: grants taken")
	a, ok := h.asked[e.g.nonce]
	k := simBook{l.self, string(l.n.boot), e.g.nonce}
	t := o.tables[e.g.term]
	switch {
	case e.g.term < h.adopted:
		o.failLocked("I6", "%s takes a grant of term %d and has followed %d", l.self, e.g.term, h.adopted)
	case !ok || e.g.nonce != h.nonce || e.g.nonce <= h.dropped:
		o.failLocked(grantNamesNonce.String(), "%s takes a grant for nonce %d, its newest is %d, it has dropped %d", l.self, e.g.nonce, h.nonce, h.dropped)
	case e.g.boot != string(l.n.boot):
		o.failLocked(grantNamesBoot.String(), "%s takes a grant to another life", l.self)
	case t != nil && !t.granted[k]:
		o.failLocked(proofNeeded.String(), "%s takes a grant of term %d that nobody has given", l.self, e.g.term)
	case t != nil && t.books[k].at.Before(a.at):
		o.failLocked(bookBeforeProof.String(), "%s asked after it was booked", l.self)
	}
	h.adopted = max(h.adopted, e.g.term)
	h.term, h.end, h.wall = e.g.term, a.boot.add(e.g.length), a.wall
	if !h.valid(l) {
		o.count.add("race: a grant is delayed past its end")
		return
	}
	applied := l.n.fsm.Applied()
	if applied < o.acked {
		o.failLocked("I5", "%s takes a lease of term %d at index %d, but %d was acknowledged", l.self, e.g.term, applied, o.acked)
	}
}

func (o *simOracle) acknowledged(l *simLife, e traceEvent) {
	t := o.tables[e.term]
	if t == nil || t.life != l {
		o.failLocked(ackInOwnTerm.String(), "%s acknowledges index %d in term %d, which it has not opened", l.self, e.index, e.term)
		return
	}
	if _, ok := o.entries[simEntry{e.index, e.term}]; !ok {
		o.failLocked(ackInOwnTerm.String(), "%s acknowledges index %d in term %d, which is no entry of that term", l.self, e.index, e.term)
	}
	waited, waits := t.waits[e.index]
	delete(t.waits, e.index)
	t.acked, t.acks = max(t.acked, e.index), t.acks+1
	o.count.add("events: acknowledged")
	if waits && time.Since(waited) > 500*time.Millisecond {
		for id, applied := range t.applied {
			if applied < e.index && id != l.self {
				o.count.add("race: an acknowledgement waits for a booking to run out")
				for x := range o.lives {
					if x.self == id && x.of.clock.rate < l.of.clock.rate {
						o.count.add("race: a slow clock holds, a fast clock leads")
					}
				}
				break
			}
		}
	}
	o.acknowledgedLocked(e.index)
}

// read holds a question between the copy and the lease, without any lock.
func (o *simOracle) read(l *simLife) {
	d := l.pauses.Swap(nil)
	if d == nil && l.frozen.Load() == nil {
		return
	}
	o.mu.Lock()
	held, acked := l.spec.valid(l), o.acked
	o.mu.Unlock()
	if d != nil {
		time.Sleep(*d)
	}
	for f := l.frozen.Load(); f != nil; f = l.frozen.Load() {
		<-*f
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.acked > acked {
		o.count.add("race: acknowledged between a read and its look at the lease")
	}
	if held && !l.spec.valid(l) {
		o.count.add("race: resumed after the end of the lease")
	}
}

// remember keeps the newest events; the slices that were handed out stay as they are.
func remember(es []traceEvent, e traceEvent) []traceEvent {
	if len(es) >= 64 {
		es = append([]traceEvent(nil), es[32:]...)
	}
	return append(es, e)
}

// repeat delivers a message of the leases once more: a report or an ask to who leads, if it is still the
// term that it was for, or a grant to whoever it was for, in whatever life.
func (s *sim) repeat(ctx context.Context) {
	s.o.mu.Lock()
	es := [][]traceEvent{s.o.reports, s.o.asks, s.o.grantsSent}[s.intn(3)]
	s.o.mu.Unlock()
	if len(es) == 0 {
		return
	}
	e := es[s.intn(len(es))]
	to := e.node
	if e.kind == traceGranted {
		to = e.ask.server
	}
	l := s.lifeOf(to)
	if l == nil {
		return
	}
	p := l.n.proposer.Load()
	switch {
	case e.kind == traceGranted:
		s.o.count.add("nemesis: grants repeated")
		l.n.leases.take(e.g)
	case p == nil || p.term != e.term:
	case e.kind == traceReport:
		s.o.count.add("nemesis: reports repeated")
		l.n.leases.report(e.ask.server, e.ask.boot, e.ask.applied, e.ask.adopted)
	default:
		s.o.count.add("nemesis: asks repeated")
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			g, reason := l.n.leases.serve(ctx, p, e.ask)
			if x := s.lifeOf(e.ask.server); reason == admitted && x != nil {
				x.n.leases.take(g)
			}
		})
	}
}

func (s *sim) lifeOf(id raft.ServerID) *simLife {
	for _, m := range s.nodes {
		if l := m.now(); l != nil && l.self == id && l.frozen.Load() == nil {
			return l
		}
	}
	return nil
}
