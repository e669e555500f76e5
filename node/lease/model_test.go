package lease

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

// envInt returns the number in an environment variable, which long runs set, or else usual.
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

// An exploration is the result of visiting every world of a scope, breadth first. So no shorter
// sequence of steps leads to a violation.
type exploration struct {
	states    int
	complete  bool
	deepest   int
	violation []string // descriptions of the steps that lead to the violation
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

// retrace describes the steps that led to a visit.
func retrace(s *scope, visits []visit, id int32) []string {
	var steps []step
	for ; visits[id].from >= 0; id = visits[id].from {
		steps = append(steps, visits[id].by)
	}
	slices.Reverse(steps)
	w := newWorld(s)
	var words []string
	for _, st := range slices.Concat(s.prologue, steps) {
		words = append(words, w.describe(st))
		w.do(st)
	}
	return words
}

// In the model a lease lasts one tick on a slow clock, and a reservation two on a fast one. So
// different clock rates have an effect within two ticks.
const modelLength = 100 * time.Second

var (
	fastLeader = []float64{1 + RateBound, 1 + RateBound, 1 - RateBound}
	slowLeader = []float64{1 - RateBound, 1 - RateBound, 1 + RateBound}
	even       = []float64{1, 1, 1}
)

const (
	nodeA = 1 << iota
	nodeB
	nodeC
)

func modelScope(rates []float64, change func(*scope)) *scope {
	s := &scope{nodes: 3, initial: 3, length: modelLength, tick: modelLength, rates: rates, requesters: nodeC}
	change(s)
	return s
}

// bound sets the bounds that most scopes set.
func (s *scope) bound(requests, ticks, revokes, barriers int) {
	s.requests, s.ticks, s.revokes, s.barriers = requests, ticks, revokes, barriers
}

// boundOwn limits the lease that a leader grants itself to half of s.length. The leader announces
// this limit in its first command. One tick outlasts such a lease, but not the lease of another
// member.
func (s *scope) boundOwn() { s.own, s.tick = s.length/2, s.length*3/5 }

// The scopes together cover two terms, two revocations, a crash, a removal, an addition and a
// returned lease. Each scope is small enough to be explored completely, or nearly completely. In
// all of them, messages may be lost, delayed, repeated and reordered. Node C requests the leases,
// unless the scope sets requesters.
func modelScopes() map[string]*scope {
	return map[string]*scope{
		"one term, clocks apart":             modelScope(fastLeader, func(s *scope) { s.bound(2, 2, 1, 2) }),
		"one term, clocks swapped":           modelScope(slowLeader, func(s *scope) { s.bound(2, 2, 1, 2) }),
		"one term, two revocations":          modelScope(even, func(s *scope) { s.bound(1, 1, 2, 1) }),
		"one term, the leader holds a lease": modelScope(even, func(s *scope) { s.bound(1, 1, 2, 1); s.requesters = nodeA }),
		"one term, reads in two steps":       modelScope(even, func(s *scope) { s.bound(2, 1, 1, 1); s.reads = true }),
		"one term, a lease returned":         modelScope(even, func(s *scope) { s.bound(2, 0, 1, 2); s.returns = 1 }),
		"one term, the holder crashes": modelScope(even, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.barriers, s.crashes, s.crashers = 2, 1, 1, 1, 1, nodeC
		}),
		"two terms, the clocks run": modelScope(fastLeader, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.barriers, s.elections, s.candidates = 1, 2, 1, 1, 1, nodeB
		}),
		"two terms, the holder adopts": modelScope(even, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.barriers, s.elections, s.adoptions, s.candidates = 1, 1, 1, 1, 1, 1, nodeB
		}),
		"two terms, late answers": modelScope(even, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.elections, s.late, s.candidates = 1, 2, 2, 1, 1, nodeB
			s.prologue = []step{{stepRevoke, 0, 0}, {stepAcceptLate, 0, 1}, {stepElect, 1, nodeB | nodeC}}
		}),
		"two terms, two revocations": modelScope(even, func(s *scope) {
			s.requests, s.revokes, s.barriers, s.elections, s.ticks, s.candidates = 1, 2, 1, 1, 0, nodeB
		}),
		"two terms, two requests": modelScope(even, func(s *scope) {
			s.requests, s.revokes, s.barriers, s.elections, s.adoptions, s.candidates = 2, 1, 1, 1, 1, nodeB
		}),
		"two terms of one node that crashes": modelScope(even, func(s *scope) {
			s.bound(1, 1, 1, 1)
			s.elections, s.crashes, s.crashers, s.candidates = 1, 1, nodeA, nodeA
		}),
		"a holder is removed": modelScope(even, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.barriers, s.removes = 1, 2, 1, 1, 1
		}),
		"a holder is removed, then two terms": modelScope(even, func(s *scope) {
			s.requests, s.ticks, s.revokes, s.barriers, s.removes, s.elections, s.candidates = 1, 2, 1, 1, 1, 1, nodeB
		}),
		"a holder is removed, then two terms, no ticks": modelScope(even, func(s *scope) {
			s.requests, s.revokes, s.barriers, s.removes, s.elections, s.candidates = 1, 1, 1, 1, 1, nodeB
		}),
		"an acknowledgement by an earlier term's table": modelScope(even, func(s *scope) {
			s.requests, s.revokes, s.barriers, s.elections, s.candidates = 1, 1, 1, 2, nodeB
			s.prologue = []step{
				{stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 2}, {stepAccept, 1, 2}, {stepRequest, 1, 2}, {stepAdmit, 0, 0},
				{stepTickEntry, 1, 0}, {stepAccept, 1, 2}, {stepTake, 0, 0}, {stepAccept, 1, 0}, {stepElect, 0, nodeA | nodeC},
			}
		}),
		"a removal that waited in an earlier term": modelScope(even, func(s *scope) {
			s.requests, s.revokes, s.barriers, s.removes, s.elections, s.candidates = 1, 1, 1, 1, 3, nodeB
			// A blocks C, B leads and grants C a lease, A leads again.
			s.prologue = []step{
				{stepBlock, 0, 2}, {stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 2}, {stepAccept, 1, 2}, {stepRequest, 1, 2},
				{stepAdmit, 0, 0}, {stepTickEntry, 1, 0}, {stepAccept, 1, 2}, {stepTake, 0, 0}, {stepAccept, 1, 0},
				{stepElect, 0, nodeA | nodeC}, {stepAccept, 2, 1},
			}
		}),
		"two terms, the leader holds a lease": modelScope(fastLeader, func(s *scope) {
			s.boundOwn()
			s.requests, s.ticks, s.revokes, s.barriers, s.elections, s.candidates = 1, 1, 1, 1, 1, nodeB
			s.requesters = nodeA
		}),
		"a leader held a lease as a member": modelScope(even, func(s *scope) {
			s.boundOwn()
			s.requests, s.ticks, s.revokes, s.barriers, s.elections, s.candidates = 1, 1, 1, 1, 2, nodeA
			s.requesters = nodeB
			// A grants B a lease, and B leads.
			s.prologue = []step{
				{stepRequest, 0, 1}, {stepAdmit, 0, 0}, {stepTickEntry, 0, 0}, {stepAccept, 0, 1}, {stepTake, 0, 0},
				{stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 0},
			}
		}),
		"a leader gets a lease as a member": modelScope(even, func(s *scope) {
			s.boundOwn()
			s.requests, s.ticks, s.revokes, s.barriers, s.elections, s.candidates = 1, 1, 1, 1, 2, nodeC
			s.requesters = nodeA
			// B leads, and grants A a lease.
			s.prologue = []step{
				{stepElect, 1, nodeB | nodeC}, {stepAccept, 1, 0}, {stepAccept, 1, 0}, {stepRequest, 1, 0}, {stepAdmit, 0, 0},
				{stepTickEntry, 1, 0}, {stepAccept, 1, 2}, {stepTake, 0, 0},
			}
		}),
		"a member is added": modelScope(even, func(s *scope) {
			s.initial, s.requests, s.ticks, s.revokes, s.barriers, s.adds, s.elections, s.candidates = 2, 1, 1, 2, 1, 1, 0, nodeB
		}),
	}
}

// By default, the test visits 150,000 states of each scope. With LEASE_STATES=3000000 it explores
// most scopes completely, in minutes.
func TestModel_AllStates_HoldPromise(t *testing.T) {
	limit := envInt(t, "LEASE_STATES", 150_000)
	if underRace {
		limit /= 10
	}
	for name, s := range modelScopes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			e := explore(s, limit)
			took := time.Since(start).Round(time.Millisecond)
			t.Logf("%d states, complete %v, depth %d, %v", e.states, e.complete, e.deepest, took)
			if e.broken != "" {
				t.Fatalf("%s:\n%s", e.broken, numbered(e.violation))
			}
		})
	}
}

// Every rule of the protocol is needed: without the rule, the model breaks the promise. Each case
// uses the smallest scope in which this happens.
func TestModel_RuleMissing_BreaksPromise(t *testing.T) {
	scopes := modelScopes()
	for _, c := range []struct {
		off rule
		in  string
	}{
		{reserveBeforeBarrier, "one term, two revocations"},
		{barrierNeeded, "two terms, the clocks run"},
		{barrierProposedAfter, "two terms, late answers"},
		{newLeaderWaits, "two terms, the clocks run"},
		{receivedEntriesCount, "two terms, the clocks run"},
		{ownEntriesCount, "two terms of one node that crashes"},
		{startCounts, "two terms of one node that crashes"},
		{adoptionClearsOnlyInherited, "one term, two revocations"},
		{replyNamesBoot, "one term, the holder crashes"},
		{reservationNamesBoot, "one term, the holder crashes"},
		{replyNamesNonce, "one term, clocks apart"},
		{adoptionRejectsReplies, "two terms, the holder adopts"},
		{adoptionEndsLease, "two terms, the holder adopts"},
		{clockReadPerAnswer, "one term, clocks apart"},
		{stateReadUnderLease, "one term, reads in two steps"},
		{ackWaits, "one term, two revocations"},
		{admitOnlyPastAcked, "one term, two revocations"},
		{admitOnlyPastFirst, "two terms, the clocks run"},
		{openAfterFirst, "two terms, the clocks run"},
		{removalWaits, "a holder is removed, then two terms, no ticks"},
		{removalBlocks, "a holder is removed, then two terms, no ticks"},
		{removedStayReserved, "a holder is removed"},
		{returnNamesNonce, "one term, a lease returned"},
		{reservationCoversRates, "one term, clocks apart"},
		{ackInOwnTerm, "an acknowledgement by an earlier term's table"},
		{removalInOwnTerm, "a removal that waited in an earlier term"},
		{leaderAdoptsFirst, "a leader held a lease as a member"},
		{boundOfNewestLeader, "a leader gets a lease as a member"},
		{boundOfLeaderOnly, "a leader gets a lease as a member"},
		{boundHolds, "two terms, the leader holds a lease"},
	} {
		t.Run(c.off.String(), func(t *testing.T) {
			s := *scopes[c.in]
			s.off = c.off
			start := time.Now()
			e := explore(&s, 1_000_000)
			if e.broken == "" {
				t.Fatalf("got no violation in %d states (complete %v), want one", e.states, e.complete)
			}
			took := time.Since(start).Round(time.Millisecond)
			t.Logf("after %d states, %v: %s:\n%s", e.states, took, e.broken, numbered(e.violation))
		})
	}
}

func numbered(steps []string) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
	}
	return b.String()
}
