package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A leaseSpec holds lease events to the rules of the model (leaseworld_test.go): every event must be a step that
// the model permits. It is written anew, from the rules and on true time, and shares no code with leaseTable
// and leaseHolder; a complaint names the rule. It hears the events of the product's nodes in the simulation, and
// those of the model itself, where it must complain of just what the model calls broken (leasesim_test.go).
type leaseSpec struct {
	fail  func(what, format string, args ...any)
	count func(what string)
	time  func() time.Time              // true time
	entry func(index, term uint64) bool // some log has held such an entry

	lives     map[*specLife]bool
	tables    map[uint64]*specTable
	maxOpened uint64
	acked     uint64 // highest index acknowledged to anybody
}

// A specLife is one process: what can be seen of it, and what it must go by as a holder.
type specLife struct {
	self          raft.ServerID
	boot          string
	clock         func() instant
	wall          func() int64   // offset of the wall clock
	rate          func() float64 // of the clock
	applied, last func() uint64

	nonce    uint64
	asked    map[uint64]specAsk
	adopted  uint64
	dropped  uint64 // grants up to this nonce are refused
	term     uint64
	end      instant // of the lease on its own clock; 0: none
	endsWall int64   // offset of the wall clock when its ask was noted
	ended    time.Time
}

type specAsk struct {
	boot instant
	at   time.Time
	wall int64
}

// valid reports whether the life may answer from its copy now.
func (l *specLife) valid() bool {
	moved := time.Duration(l.wall() - l.endsWall)
	return l.end != 0 && l.clock() < l.end.add(-leaseGuard) && moved.Abs() <= leaseGuard+simDrift
}

// simDrift is how far wall and boot clock part at most during a lease, by their rates alone: so much more
// than the guard the wall clock may have moved before the product must have noticed.
const simDrift = 100 * time.Millisecond

// A specTable is one term of leadership.
type specTable struct {
	term, epoch uint64
	life        *specLife
	acked       uint64
	acks        int
	waits       map[uint64]time.Time
	books       map[specBook]specBooked
	granted     map[specBook]bool
	boots       map[raft.ServerID]string
	until       map[raft.ServerID]time.Time // of the newest booking, in true time
	applied     map[raft.ServerID]uint64
}

type specBook struct {
	server raft.ServerID
	boot   string
	nonce  uint64
}

type specBooked struct {
	at    time.Time
	acks  int
	after uint64
}

func newLeaseSpec() *leaseSpec {
	return &leaseSpec{lives: map[*specLife]bool{}, tables: map[uint64]*specTable{}}
}

// hear takes an event of a life.
func (s *leaseSpec) hear(l *specLife, e traceEvent) {
	switch e.kind {
	case traceOpened:
		s.opened(l, e)
	case traceClosed:
		if t := s.table(l); t != nil {
			t.waits = map[uint64]time.Time{}
		}
	case traceReport:
		s.reported(e)
	case traceBooked:
		s.booked(l, e)
	case traceGranted:
		s.granted(l, e)
	case traceAsked:
		s.ask(l, e)
	case traceTaken:
		s.taken(l, e)
	case traceAdopted:
		if e.term > l.adopted {
			l.adopted = e.term
			s.drop(l)
		}
	case traceDropped:
		s.drop(l)
	case traceWaits:
		if t := s.tables[e.term]; t != nil {
			t.waits[e.index] = s.time()
			if len(t.waits) == 4 {
				s.count("race: a stream of revocations behind a slow holder")
			}
		}
	case traceAcknowledged:
		s.acknowledged(l, e)
	case traceLeased:
		if !l.valid() && !l.ended.Equal(s.time()) {
			s.fail("I7", "%s answers from its copy without a lease", l.self)
		}
	}
}

func (s *leaseSpec) drop(l *specLife) {
	l.end, l.dropped, l.ended = 0, l.nonce, s.time()
}

// table is the newest term that a life has opened.
func (s *leaseSpec) table(l *specLife) (newest *specTable) {
	for _, t := range s.tables {
		if t.life == l && (newest == nil || t.term > newest.term) {
			newest = t
		}
	}
	return newest
}

// waiting reports whether an acknowledgement of the newest term waits.
func (s *leaseSpec) waiting() bool {
	t := s.tables[s.maxOpened]
	return t != nil && len(t.waits) > 0
}

func (s *leaseSpec) opened(l *specLife, e traceEvent) {
	if t := s.tables[e.term]; t != nil {
		s.fail("I6", "term %d is opened by %s and by %s", e.term, t.life.self, l.self)
	}
	if l.applied() < e.index {
		s.fail(openAfterEpoch.String(), "%s opens term %d at %d, its first command is at %d", l.self, e.term, l.applied(), e.index)
	}
	if !s.entry(e.index, e.term) {
		s.fail(openAfterEpoch.String(), "%s opens term %d on index %d, which is no entry of that term", l.self, e.term, e.index)
	}
	for _, t := range s.tables { // later ones may be open: a leader that was frozen meanwhile opens its own, and acknowledges nothing
		if t.term < e.term && e.index < t.acked {
			s.fail("I3", "%s opens term %d at index %d, but %d was acknowledged in term %d", l.self, e.term, e.index, t.acked, t.term)
		}
	}
	s.tables[e.term] = &specTable{term: e.term, epoch: e.index, life: l, waits: map[uint64]time.Time{}, books: map[specBook]specBooked{},
		granted: map[specBook]bool{}, boots: map[raft.ServerID]string{}, until: map[raft.ServerID]time.Time{}, applied: map[raft.ServerID]uint64{}}
	s.count("events: terms opened")
	for x := range s.lives {
		if x != l && x.valid() && x.term < e.term {
			s.count("race: fresh leader with old leases alive")
			break
		}
	}
	s.maxOpened = max(s.maxOpened, e.term)
}

func (s *leaseSpec) reported(e traceEvent) {
	t := s.tables[e.term]
	if t == nil {
		return
	}
	id := e.ask.server
	if had := t.boots[id]; had != e.ask.boot {
		if had != "" && t.until[id].After(s.time()) {
			s.count("race: a new life reports while the old one is booked")
			if len(t.waits) > 0 {
				s.count("race: and an acknowledgement waits")
			}
		}
		t.boots[id], t.applied[id] = e.ask.boot, 0
	}
	t.applied[id] = max(t.applied[id], e.ask.applied)
}

func (s *leaseSpec) booked(l *specLife, e traceEvent) {
	t := s.tables[e.term]
	if t == nil || t.life != l {
		s.fail(openAfterEpoch.String(), "%s books %s in term %d, which it has not opened", l.self, e.ask.server, e.term)
		return
	}
	if e.ask.applied < t.epoch {
		s.fail(admitOnlyEpoch.String(), "%s admits %s at %d in term %d, which begins at %d", l.self, e.ask.server, e.ask.applied, t.term, t.epoch)
	}
	if e.ask.applied < t.acked {
		s.fail(admitOnlyAcked.String(), "%s admits %s at %d in term %d, which has acknowledged %d", l.self, e.ask.server, e.ask.applied, t.term, t.acked)
	}
	k := specBook{e.ask.server, e.ask.boot, e.ask.nonce}
	if _, again := t.books[k]; !again { // an ask that comes twice may be granted on the proof of the first
		t.books[k] = specBooked{at: s.time(), acks: t.acks, after: l.last()}
	}
	t.until[e.ask.server] = s.time().Add(boundAfter(e.g.length))
	t.boots[e.ask.server] = e.ask.boot
	if e.term < s.maxOpened {
		s.count("race: a deposed leader is asked to grant")
	}
}

func (s *leaseSpec) granted(l *specLife, e traceEvent) {
	t := s.tables[e.term]
	k := specBook{e.ask.server, e.ask.boot, e.ask.nonce}
	if t == nil {
		return
	}
	b, ok := t.books[k]
	switch {
	case !ok:
		s.fail(bookBeforeProof.String(), "%s grants %s nonce %d in term %d and has not booked it", l.self, k.server, k.nonce, t.term)
	case e.index <= b.after:
		s.fail(proofProposedAfter.String(), "%s grants %s on index %d, the booking came after %d", l.self, k.server, e.index, b.after)
	case l.applied() < e.index:
		s.fail(proofNeeded.String(), "%s grants %s on index %d, it has applied %d", l.self, k.server, e.index, l.applied())
	case !s.entry(e.index, e.term):
		s.fail(proofNeeded.String(), "%s grants %s in term %d on index %d, which is no entry of that term", l.self, k.server, t.term, e.index)
	}
	if t.acks > b.acks {
		s.count("race: admitted, then acknowledged, then granted")
	}
	t.granted[k] = true
}

func (s *leaseSpec) ask(l *specLife, e traceEvent) {
	if l.asked == nil {
		l.asked = map[uint64]specAsk{}
	}
	if e.ask.nonce <= l.nonce {
		s.fail(grantNamesNonce.String(), "%s uses nonce %d again", l.self, e.ask.nonce)
	}
	l.nonce = e.ask.nonce
	l.asked[l.nonce] = specAsk{boot: l.clock(), at: s.time(), wall: l.wall()}
	delete(l.asked, l.nonce-64)
}

func (s *leaseSpec) taken(l *specLife, e traceEvent) {
	if !e.took {
		s.count("events: grants refused by their holder")
		if a, ok := l.asked[e.g.nonce]; ok && l.clock() >= a.boot.add(e.g.length-leaseGuard) {
			s.count("race: a grant is delayed past its end")
		}
		return
	}
	s.count("events: grants taken")
	a, ok := l.asked[e.g.nonce]
	k := specBook{l.self, l.boot, e.g.nonce}
	t := s.tables[e.g.term]
	switch {
	case e.g.term < l.adopted:
		s.fail("I6", "%s takes a grant of term %d and has followed %d", l.self, e.g.term, l.adopted)
	case !ok || e.g.nonce != l.nonce || e.g.nonce <= l.dropped:
		s.fail(grantNamesNonce.String(), "%s takes a grant for nonce %d, its newest is %d, it has dropped %d", l.self, e.g.nonce, l.nonce, l.dropped)
	case e.g.boot != l.boot:
		s.fail(grantNamesBoot.String(), "%s takes a grant to another life", l.self)
	case t != nil && !t.granted[k]:
		s.fail(proofNeeded.String(), "%s takes a grant of term %d that nobody has given", l.self, e.g.term)
	case t != nil && t.books[k].at.Before(a.at):
		s.fail(bookBeforeProof.String(), "%s asked after it was booked", l.self)
	}
	l.adopted = max(l.adopted, e.g.term)
	l.term, l.end, l.endsWall = e.g.term, a.boot.add(e.g.length), a.wall
	if !l.valid() {
		s.count("race: a grant is delayed past its end")
		return
	}
	if applied := l.applied(); applied < s.acked {
		s.fail("I5", "%s takes a lease of term %d at index %d, but %d was acknowledged", l.self, e.g.term, applied, s.acked)
	}
}

func (s *leaseSpec) acknowledged(l *specLife, e traceEvent) {
	t := s.tables[e.term]
	if t == nil || t.life != l {
		s.fail(ackInOwnTerm.String(), "%s acknowledges index %d in term %d, which it has not opened", l.self, e.index, e.term)
		return
	}
	if !s.entry(e.index, e.term) {
		s.fail(ackInOwnTerm.String(), "%s acknowledges index %d in term %d, which is no entry of that term", l.self, e.index, e.term)
	}
	waited, waits := t.waits[e.index]
	delete(t.waits, e.index)
	t.acked, t.acks = max(t.acked, e.index), t.acks+1
	s.count("events: acknowledged")
	if waits && s.time().Sub(waited) > 500*time.Millisecond {
		s.countLate(l, t, e.index)
	}
	s.final(e.index)
}

// countLate counts an acknowledgement that waited for somebody who is behind.
func (s *leaseSpec) countLate(l *specLife, t *specTable, index uint64) {
	for id, applied := range t.applied {
		if applied < index && id != l.self {
			s.count("race: an acknowledgement waits for a booking to run out")
			for x := range s.lives {
				if x.self == id && x.rate() < l.rate() {
					s.count("race: a slow clock holds, a fast clock leads")
				}
			}
			return
		}
	}
}

// final is told of every success that is final, before anybody else hears of it: I5.
func (s *leaseSpec) final(index uint64) {
	s.acked = max(s.acked, index)
	for l := range s.lives {
		if applied := l.applied(); applied < index && l.valid() {
			s.fail("I5", "index %d is acknowledged, but %s has applied %d and holds a lease of term %d for %v still",
				index, l.self, applied, l.term, l.end.add(-leaseGuard).sub(l.clock()))
		}
	}
}

// Who has led and was frozen before it opened its term opens it late; what a later term has acknowledged by then is not
// in it, and need not be. What an earlier one has must be.
func TestTheCheckerKnowsATermThatOpensLate(t *testing.T) {
	for name, tt := range map[string]struct {
		terms []uint64 // opened one after the other, the first acknowledges
		wants bool
	}{
		"late, after a later term":      {[]uint64{9, 8}, false},
		"without what was acknowledged": {[]uint64{8, 9}, true},
	} {
		var broken string
		s := newLeaseSpec()
		s.fail = func(what, format string, args ...any) { broken += what + ": " + fmt.Sprintf(format, args...) }
		s.count, s.time = func(string) {}, time.Now
		s.entry = func(uint64, uint64) bool { return true }
		for _, term := range tt.terms {
			l := &specLife{self: raft.ServerID(fmt.Sprint("leads ", term)), clock: func() instant { return 0 }, wall: func() int64 { return 0 },
				applied: func() uint64 { return 20 }}
			s.lives[l] = true
			s.hear(l, traceEvent{kind: traceOpened, term: term, index: 10})
			if term == tt.terms[0] {
				s.hear(l, traceEvent{kind: traceAcknowledged, term: term, index: 15})
			}
		}
		if got := strings.Contains(broken, "I3"); got != tt.wants {
			t.Errorf("%s: got %q, want a complaint: %v", name, broken, tt.wants)
		}
	}
}
