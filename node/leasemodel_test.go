package node

import (
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// envInt is a number from the environment, for runs that go further than the usual one.
func envInt(t testing.TB, name string, usual int) int {
	v := os.Getenv(name)
	if v == "" {
		return usual
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// An exploration goes through every world of a scope, breadth first, so what it finds is a shortest way
// to break the promise.
type exploration struct {
	states    int
	complete  bool
	deepest   int
	violation []string // the way to it, in words
	broken    broken
}

type visit struct {
	from int32
	by   step
}

func explore(s *scope, limit int) exploration {
	seed := maphash.MakeSeed()
	type key [2]uint64
	var buf []byte
	keyOf := func(w *world) key {
		buf = w.canonical(buf[:0])
		var second maphash.Hash
		second.SetSeed(seed)
		second.WriteByte(1)
		second.Write(buf)
		return key{maphash.Bytes(seed, buf), second.Sum64()}
	}
	first := newWorld(s)
	for _, st := range s.prologue {
		first.do(st)
	}
	seen := map[key]struct{}{keyOf(first): {}}
	visits := []visit{{from: -1}}
	type at struct {
		w     *world
		id    int32
		depth int
	}
	queue := []at{{first, 0, 0}}
	var e exploration
	var steps []step
	for len(queue) > 0 {
		cur := queue[0]
		queue[0].w = nil
		queue = queue[1:]
		e.deepest = max(e.deepest, cur.depth)
		steps = cur.w.steps(steps[:0])
		for _, st := range steps {
			next := cur.w.clone()
			b := next.do(st)
			if b != "" {
				visits = append(visits, visit{cur.id, st})
				e.broken, e.violation = b, retrace(s, visits, int32(len(visits)-1))
				e.states = len(seen)
				return e
			}
			k := keyOf(next)
			if _, ok := seen[k]; ok {
				continue
			}
			if len(seen) >= limit {
				e.states = len(seen)
				return e
			}
			seen[k] = struct{}{}
			visits = append(visits, visit{cur.id, st})
			queue = append(queue, at{next, int32(len(visits) - 1), cur.depth + 1})
		}
	}
	e.states, e.complete = len(seen), true
	return e
}

// retrace does the steps that led to a visit again and tells them.
func retrace(s *scope, visits []visit, id int32) []string {
	var steps []step
	for ; visits[id].from >= 0; id = visits[id].from {
		steps = append(steps, visits[id].by)
	}
	slices.Reverse(steps)
	w := newWorld(s)
	var told []string
	for _, st := range slices.Concat(s.prologue, steps) {
		told = append(told, w.describe(st))
		w.do(st)
	}
	return told
}

// In the model a lease lasts one tick on a slow clock and a booking two on a fast one: the rates of the
// clocks then matter within two ticks.
const modelLength = 100 * time.Second

var (
	fastLeader = []float64{1 + rateBound, 1 + rateBound, 1 - rateBound}
	slowLeader = []float64{1 - rateBound, 1 - rateBound, 1 + rateBound}
	even       = []float64{1, 1, 1}
)

const (
	nodeA = 1 << iota
	nodeB
	nodeC
)

func modelScope(rates []float64, change func(*scope)) *scope {
	s := &scope{nodes: 3, initial: 3, length: modelLength, tick: modelLength, rates: rates, askers: nodeC}
	change(s)
	return s
}

// The scopes together hold two terms, two revocations, a crash, a removal, an arrival, a lease given
// back; each as few as lets its state space be searched to the end, or nearly. Messages are lost,
// delayed, repeated and reordered in all of them; node C is who asks unless the scope says otherwise.
func modelScopes() map[string]*scope {
	return map[string]*scope{
		"one term, clocks apart":             modelScope(fastLeader, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs = 2, 2, 1, 2 }),
		"one term, clocks swapped":           modelScope(slowLeader, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs = 2, 2, 1, 2 }),
		"one term, two revocations":          modelScope(even, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs = 1, 1, 2, 1 }),
		"one term, the leader holds a lease": modelScope(even, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs, s.askers = 1, 1, 2, 1, nodeA }),
		"one term, reads in two steps":       modelScope(even, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs, s.reads = 2, 1, 1, 1, true }),
		"one term, a lease given back":       modelScope(even, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs, s.back = 2, 0, 1, 2, 1 }),
		"one term, the holder crashes":       modelScope(even, func(s *scope) { s.asks, s.ticks, s.revokes, s.proofs, s.crashes, s.crashers = 2, 1, 1, 1, 1, nodeC }),
		"two terms, the clocks run": modelScope(fastLeader, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.proofs, s.elections, s.candidates = 1, 2, 1, 1, 1, nodeB
		}),
		"two terms, the holder follows": modelScope(even, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.proofs, s.elections, s.hellos, s.candidates = 1, 1, 1, 1, 1, 1, nodeB
		}),
		"two terms, late answers": modelScope(even, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.elections, s.late, s.candidates = 1, 2, 2, 1, 1, nodeB
			s.prologue = []step{{stepRevoke, 0, 0}, {stepAcceptLate, 0, 1}, {stepElect, 1, nodeB | nodeC}}
		}),
		"two terms, two revocations": modelScope(even, func(s *scope) {
			s.asks, s.revokes, s.proofs, s.elections, s.ticks, s.candidates = 1, 2, 1, 1, 0, nodeB
		}),
		"two terms, two asks": modelScope(even, func(s *scope) {
			s.asks, s.revokes, s.proofs, s.elections, s.hellos, s.candidates = 2, 1, 1, 1, 1, nodeB
		}),
		"two terms of one node that crashes": modelScope(even, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.proofs, s.elections, s.crashes, s.crashers, s.candidates = 1, 1, 1, 1, 1, 1, nodeA, nodeA
		}),
		"a holder is removed": modelScope(even, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.proofs, s.removes = 1, 2, 1, 1, 1
		}),
		"a holder is removed, then two terms": modelScope(even, func(s *scope) {
			s.asks, s.ticks, s.revokes, s.proofs, s.removes, s.elections, s.candidates = 1, 2, 1, 1, 1, 1, nodeB
		}),
		"a holder is removed, then two terms, at once": modelScope(even, func(s *scope) {
			s.asks, s.revokes, s.proofs, s.removes, s.elections, s.candidates = 1, 1, 1, 1, 1, nodeB
		}),
		"an acknowledgement by an earlier term's books": modelScope(even, func(s *scope) {
			s.asks, s.revokes, s.proofs, s.elections, s.candidates = 1, 1, 1, 2, nodeB
			s.prologue = []step{{stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 2}, {stepAccept, 1, 2}, {stepAsk, 1, 2}, {stepAdmit, 0, 0},
				{stepTickEntry, 1, 0}, {stepAccept, 1, 2}, {stepTake, 0, 0}, {stepAccept, 1, 0}, {stepElect, 0, nodeA | nodeC}}
		}),
		"a removal that waited in an earlier term": modelScope(even, func(s *scope) {
			s.asks, s.revokes, s.proofs, s.removes, s.elections, s.candidates = 1, 1, 1, 1, 3, nodeB
			// A bars C, B leads and grants C a lease, A leads again.
			s.prologue = []step{{stepClear, 0, 2}, {stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 2}, {stepAccept, 1, 2}, {stepAsk, 1, 2}, {stepAdmit, 0, 0},
				{stepTickEntry, 1, 0}, {stepAccept, 1, 2}, {stepTake, 0, 0}, {stepAccept, 1, 0}, {stepElect, 0, nodeA | nodeC}, {stepAccept, 2, 1}}
		}),
		"a member comes": modelScope(even, func(s *scope) {
			s.initial, s.asks, s.ticks, s.revokes, s.proofs, s.adds, s.elections, s.candidates = 2, 1, 1, 2, 1, 1, 0, nodeB
		}),
	}
}

// The usual run goes breadth first through 150,000 states of each scope; LEASE_STATES=3000000 goes through
// all of most of them, in minutes.
func TestTheLeaseModelHolds(t *testing.T) {
	limit := envInt(t, "LEASE_STATES", 150_000)
	if underRace {
		limit /= 10
	}
	for name, s := range modelScopes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			e := explore(s, limit)
			t.Logf("%d states, complete %v, depth %d, %v", e.states, e.complete, e.deepest, time.Since(start).Round(time.Millisecond))
			if e.broken != "" {
				t.Fatalf("%s:\n%s", e.broken, tell(e.violation))
			}
		})
	}
}

// Every rule of the protocol is needed: without it the model finds a way to break the promise. The
// scope is the smallest of those above, or like them, in which it shows.
func TestTheLeaseModelBreaksWithoutAnyOneRule(t *testing.T) {
	scopes := modelScopes()
	for _, c := range []struct {
		off rule
		in  string
	}{
		{bookBeforeProof, "one term, two revocations"},
		{proofNeeded, "two terms, the clocks run"},
		{proofProposedAfter, "two terms, late answers"},
		{newLeaderWaits, "two terms, the clocks run"},
		{newTermClearsOnlyOld, "one term, two revocations"},
		{grantNamesBoot, "one term, the holder crashes"},
		{bookNamesBoot, "one term, the holder crashes"},
		{grantNamesNonce, "one term, clocks apart"},
		{adoptionRefusesGrants, "two terms, the holder follows"},
		{adoptionEndsLease, "two terms, the holder follows"},
		{clockReadInRequest, "one term, clocks apart"},
		{stateReadUnderLease, "one term, reads in two steps"},
		{ackWaits, "one term, two revocations"},
		{admitOnlyAcked, "one term, two revocations"},
		{admitOnlyEpoch, "two terms, the clocks run"},
		{openAfterEpoch, "two terms, the clocks run"},
		{removalWaits, "a holder is removed, then two terms, at once"},
		{removalBars, "a holder is removed, then two terms, at once"},
		{removedStayBooked, "a holder is removed"},
		{giveBackNamesNonce, "one term, a lease given back"},
		{bookingCoversRates, "one term, clocks apart"},
		{ackInOwnTerm, "an acknowledgement by an earlier term's books"},
		{removalInOwnTerm, "a removal that waited in an earlier term"},
	} {
		t.Run(c.off.String(), func(t *testing.T) {
			s := *scopes[c.in]
			s.off = c.off
			start := time.Now()
			e := explore(&s, 1_000_000)
			if e.broken == "" {
				t.Fatalf("held in %d states (complete %v): got no violation, want one", e.states, e.complete)
			}
			t.Logf("after %d states, %v: %s:\n%s", e.states, time.Since(start).Round(time.Millisecond), e.broken, tell(e.violation))
		})
	}
}

func tell(steps []string) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
	}
	return b.String()
}
