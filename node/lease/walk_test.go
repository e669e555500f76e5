package lease

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked/node/lease/leasecheck"
)

// A schedule is one random walk through a world. A lease lasts two or thirty seconds. Clocks have
// different rates within the bound. Time passes in steps from a millisecond to more than a lease. A
// possible step that is not taken represents a paused node, or a lost or delayed message. Messages
// are never removed, so they may be repeated and reordered.
type schedule struct {
	seed uint64
	rng  *rand.Rand
	w    *world
	done [stepKinds]int
	calm int // step before which neither elections nor crashes happen

	check     *leasecheck.Checker // observes every event of the walk
	lives     []*leasecheck.Life
	complaint string // first error that check reported

	asleep []int // by node: number of the step at which the node resumes
}

const scheduleSteps = 400

func newSchedule(seed uint64, off rule) *schedule {
	k := &schedule{seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
	n := 3 + k.rng.IntN(3)
	s := &scope{nodes: n, initial: n - k.rng.IntN(2), length: time.Duration(2+28*k.rng.IntN(2)) * time.Second,
		off: off, reads: true, all: true,
		requests: -1, ticks: -1, elections: -1, crashes: -1, revokes: -1, barriers: -1, removes: -1, adds: -1,
		returns: -1, adoptions: -1, late: -1,
		requesters: -1, candidates: -1, crashers: -1}
	if seed%2 == 0 && (off == allRules || off >= leaderAdoptsFirst) {
		s.own = OwnLength(s.length)
	}
	for range n {
		s.rates = append(s.rates, 1+RateBound*float64(k.rng.IntN(3)-1))
	}
	k.w, k.asleep = newWorld(s), make([]int, n)
	k.watch()
	return k
}

// watch connects the checker with the walk.
func (k *schedule) watch() {
	k.check, k.lives = leasecheck.New(), make([]*leasecheck.Life, len(k.w.nodes))
	k.check.Count = func(string) {}
	k.check.Time = func() time.Time { return time.Unix(0, 0).Add(k.w.true) }
	k.check.Fail = func(what, format string, args ...any) {
		if k.complaint == "" {
			k.complaint = what + ": " + fmt.Sprintf(format, args...)
		}
	}
	k.check.Entry = func(index, term uint64) bool {
		return slices.ContainsFunc(k.w.nodes, func(n worldNode) bool {
			return int(index) <= len(n.log) && n.log[index-1].term == term
		})
	}
	for i := range k.lives {
		k.live(i)
	}
	// The world begins in an open term.
	k.check.Take(k.lives[0], leasecheck.Event{Kind: leasecheck.Adopted, Term: 1})
	k.check.Take(k.lives[0], leasecheck.Event{Kind: leasecheck.Opened, Term: 1, Index: 1})
	k.w.observer = func(i int, e leasecheck.Event) { k.check.Take(k.lives[i], e) }
}

// live registers a new incarnation of a node with the checker.
func (k *schedule) live(i int) {
	delete(k.check.Lives, k.lives[i])
	n := &k.w.nodes[i]
	k.lives[i] = &leasecheck.Life{Server: serverID(i), Boot: n.bootName(),
		Clock: func() int64 { return int64(n.clock) }, Wall: func() int64 { return 0 },
		Rate:    func() float64 { return n.rate },
		Applied: func() uint64 { return uint64(n.applied) }, Last: func() uint64 { return uint64(len(n.log)) }}
	k.check.Lives[k.lives[i]] = true
}

// weights are the relative frequencies of the kinds of steps.
var weights = [stepKinds]int{
	stepTick: 30, stepRequest: 20, stepAdmit: 30, stepGrant: 40, stepTake: 40, stepAdopt: 10, stepReport: 20,
	stepLateReport: 2,
	stepTickEntry:  8, stepRevoke: 8, stepAccept: 40, stepAcceptLate: 6, stepLearn: 20, stepElect: 2, stepOpen: 30,
	stepAck:   40,
	stepCrash: 1, stepReadState: 10, stepReadLease: 10, stepTimer: 10, stepReturn: 2, stepReturned: 4,
	stepBlock: 2, stepRemove: 20, stepAdd: 6, stepAddToTable: 30,
}

func (k *schedule) run(describe func(string)) broken {
	var steps []step
	for i := range scheduleSteps {
		k.prune()
		if k.rng.IntN(40) == 0 { // a process or all its links pause
			k.asleep[k.rng.IntN(len(k.asleep))] = i + 10 + k.rng.IntN(60)
		}
		steps = slices.DeleteFunc(k.w.steps(steps[:0]), func(st step) bool { // keep elections and crashes apart
			return (st.kind == stepElect || st.kind == stepCrash) && k.calm > i
		})
		st, ok := k.choose(steps, i)
		if !ok {
			continue
		}
		if st.kind == stepTick {
			st.a = int(time.Millisecond) << k.rng.IntN(7+5*(k.rng.IntN(4)/3))
			st.a = (st.a + k.rng.IntN(st.a)) * int(k.w.s.length/(2*time.Second))
		}
		if describe != nil {
			describe(k.w.describe(st))
		}
		if st.kind == stepElect || st.kind == stepCrash {
			k.calm = i + k.rng.IntN(120)
		}
		k.done[st.kind]++
		b := k.w.do(st)
		if st.kind == stepCrash {
			k.live(st.a)
		}
		for i := range k.w.nodes {
			if k.w.mayAnswer(i) {
				k.w.observe(i, leasecheck.Event{Kind: leasecheck.Answered})
			}
		}
		if b == "" && k.w.s.off == allRules && k.complaint != "" {
			b = broken("the checker reports: " + k.complaint)
		}
		if b != "" {
			return b
		}
	}
	return ""
}

// choose picks a kind of step by its weight, then a step of that kind on a node that is awake.
func (k *schedule) choose(steps []step, now int) (step, bool) {
	var of [stepKinds][]step
	total := 0
	for _, st := range steps {
		if k.asleep[k.actor(st)] > now && st.kind != stepTick {
			continue
		}
		if len(of[st.kind]) == 0 {
			total += weights[st.kind]
		}
		of[st.kind] = append(of[st.kind], st)
	}
	if total == 0 {
		return step{}, false
	}
	at := k.rng.IntN(total)
	for kind, sts := range of {
		if len(sts) == 0 {
			continue
		}
		if at -= weights[kind]; at < 0 {
			return sts[k.rng.IntN(len(sts))], true
		}
	}
	return step{}, false
}

// actor returns the node that takes a step.
func (k *schedule) actor(st step) int {
	w := k.w
	leader := func(term uint64) int {
		if l := w.leadOf(term); l != nil {
			return l.node
		}
		return 0
	}
	switch st.kind {
	case stepTick:
		return 0
	case stepCrash, stepReadState, stepReadLease, stepTimer, stepElect:
		return st.a
	case stepAdmit:
		return leader(w.requests[st.a].term)
	case stepTake:
		return w.replies[st.a].node
	case stepLateReport:
		return leader(w.nodes[st.a].lateTo)
	case stepReturned:
		return leader(w.returns[st.a].term)
	case stepRequest, stepAdopt, stepReport, stepAccept, stepAcceptLate, stepReturn:
		return st.b
	}
	return w.leads[st.a].node
}

// prune drops old messages and terms, because a schedule has many of them.
func (k *schedule) prune() {
	w := k.w
	w.leads = w.leads[max(0, len(w.leads)-3):]
	if len(w.requests) > 12 {
		w.requests = append([]worldRequest(nil), w.requests[len(w.requests)-8:]...)
	}
	if len(w.replies) > 12 {
		w.replies = append([]worldReply(nil), w.replies[len(w.replies)-8:]...)
	}
	if len(w.returns) > 4 {
		w.returns = append([]worldRequest(nil), w.returns[len(w.returns)-3:]...)
	}
	for _, l := range w.leads {
		if len(l.barriers) > 12 {
			l.barriers = append([]worldBarrier(nil), l.barriers[len(l.barriers)-8:]...)
		}
	}
}

// simulate walks count schedules, and stops at the first that breaks the promise.
func simulate(off rule, first, count uint64, limit time.Duration) (broke *schedule, what broken,
	done [stepKinds]int, schedules int) {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		next atomic.Uint64
		stop atomic.Bool
	)
	deadline := time.Now().Add(limit)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() && (limit == 0 || time.Now().Before(deadline)) {
				i := next.Add(1) - 1
				if i >= count {
					return
				}
				k := newSchedule(first+i, off)
				b := k.run(nil)
				mu.Lock()
				schedules++
				for s, n := range k.done {
					done[s] += n
				}
				if b != "" && broke == nil {
					broke, what = k, b
					stop.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return broke, what, done, schedules
}

// lastSteps repeats the schedule of a seed and describes its last steps.
func lastSteps(seed uint64, off rule) string {
	var lines []string
	newSchedule(seed, off).run(func(s string) { lines = append(lines, s) })
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// By default, the test walks 4,000 schedules. The long run sets LEASE_SCHEDULES=75000. LEASE_SEED
// is the first seed; a failure message contains the seed of its schedule.
func TestWalk_RandomSteps_HoldPromise(t *testing.T) {
	count := envInt(t, "LEASE_SCHEDULES", 4000)
	if underRace {
		count /= 10
	}
	first := uint64(envInt(t, "LEASE_SEED", 1))
	k, b, done, _ := simulate(allRules, first, uint64(count), 0)
	if k != nil {
		t.Fatalf("seed %d: %s\n%s", k.seed, b, lastSteps(k.seed, allRules))
	}
	for kind, n := range done {
		if n == 0 && stepKind(kind) != stepTimer {
			t.Errorf("steps of kind %d: got 0, want some", kind)
		}
	}
	t.Logf("%d schedules of %d steps: %d acknowledgements tried, %d leases taken, "+
		"%d elections, %d crashes, %d removals, %d additions",
		count, scheduleSteps, done[stepAck], done[stepTake], done[stepElect], done[stepCrash], done[stepRemove],
		done[stepAdd])
}

func TestWalk_RuleDisabled_ViolatesPromise(t *testing.T) {
	if underRace {
		t.Skip("too slow under the race detector")
	}
	// Random schedules rarely break the promise without these rules; the model covers them.
	rare := []rule{barrierProposedAfter, adoptionRejectsReplies, removalBlocks, reservationCoversRates, removalInOwnTerm,
		reservationNamesBoot, leaderAdoptsFirst, boundOfNewestLeader}
	for off := allRules + 1; off < rules; off++ {
		if slices.Contains(rare, off) {
			continue
		}
		t.Run(off.String(), func(t *testing.T) {
			k, b, _, n := simulate(off, 1, 20_000, 0)
			if k == nil {
				t.Fatalf("got %d schedules that keep the promise without the rule, want one that breaks it", n)
			}
			if k.complaint == "" && off != stateReadUnderLease { // the checker does not observe reads
				t.Errorf("seed %d: %s: got no error from the checker, want one", k.seed, b)
			}
			t.Logf("seed %d: %s; the checker: %s", k.seed, b, k.complaint)
		})
	}
}
