package node

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
)

// A schedule is one random walk through a world. The lease is two seconds or thirty, clocks run at rates of their own within the
// bound, and time passes in steps from a millisecond to more than a lease. Nodes pause, links lose and
// hold back, by steps that are not taken; messages are never taken away, so they are repeated and
// reordered at will.
type schedule struct {
	seed uint64
	rng  *rand.Rand
	w    *world
	done [stepKinds]int
	calm int // no election and no crash until so many steps have been taken

	spec  *leaseSpec // hears every event of the walk
	lives []*specLife
	says  string // its first complaint

	asleep []int // by node: it takes no step until so many have been taken
}

const scheduleSteps = 400

func newSchedule(seed uint64, off rule) *schedule {
	k := &schedule{seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
	n := 3 + k.rng.IntN(3)
	s := &scope{nodes: n, initial: n - k.rng.IntN(2), length: time.Duration(2+28*k.rng.IntN(2)) * time.Second, off: off, reads: true, all: true,
		asks: -1, ticks: -1, elections: -1, crashes: -1, revokes: -1, proofs: -1, removes: -1, adds: -1, back: -1, hellos: -1, late: -1,
		askers: -1, candidates: -1, crashers: -1}
	for range n {
		s.rates = append(s.rates, 1+rateBound*float64(k.rng.IntN(3)-1))
	}
	k.w, k.asleep = newWorld(s), make([]int, n)
	k.watch()
	return k
}

// watch has the checker of the product's events hear those of the walk.
func (k *schedule) watch() {
	k.spec, k.lives = newLeaseSpec(), make([]*specLife, len(k.w.nodes))
	k.spec.count = func(string) {}
	k.spec.time = func() time.Time { return time.Unix(0, 0).Add(k.w.true) }
	k.spec.fail = func(what, format string, args ...any) {
		if k.says == "" {
			k.says = what + ": " + fmt.Sprintf(format, args...)
		}
	}
	k.spec.entry = func(index, term uint64) bool {
		return slices.ContainsFunc(k.w.nodes, func(n worldNode) bool { return int(index) <= len(n.log) && n.log[index-1].term == term })
	}
	for i := range k.lives {
		k.live(i)
	}
	k.spec.hear(k.lives[0], traceEvent{kind: traceOpened, term: 1, index: 1}) // the world begins with it
	k.w.trace = func(i int, e traceEvent) { k.spec.hear(k.lives[i], e) }
}

// live begins a life of a node in the eyes of the checker.
func (k *schedule) live(i int) {
	delete(k.spec.lives, k.lives[i])
	n := &k.w.nodes[i]
	k.lives[i] = &specLife{self: serverID(i), boot: n.bootName(),
		clock: func() instant { return n.clock }, wall: func() int64 { return 0 }, rate: func() float64 { return n.rate },
		applied: func() uint64 { return uint64(n.applied) }, last: func() uint64 { return uint64(len(n.log)) }}
	k.spec.lives[k.lives[i]] = true
}

// weights say how often a kind of step is taken where it can be.
var weights = [stepKinds]int{
	stepTick: 30, stepAsk: 20, stepAdmit: 30, stepGrant: 40, stepTake: 40, stepHello: 10, stepReport: 20, stepLateReport: 2,
	stepTickEntry: 8, stepRevoke: 8, stepAccept: 40, stepAcceptLate: 6, stepLearn: 20, stepElect: 2, stepOpen: 30, stepAck: 40,
	stepCrash: 1, stepReadState: 10, stepReadLease: 10, stepTimer: 10, stepGiveBack: 2, stepGivenBack: 4,
	stepClear: 2, stepRemove: 20, stepAdd: 6, stepAddBook: 30,
}

func (k *schedule) run(told func(string)) broken {
	var steps []step
	for i := range scheduleSteps {
		k.prune()
		if k.rng.IntN(40) == 0 { // a pause: of a process, or of all its links
			k.asleep[k.rng.IntN(len(k.asleep))] = i + 10 + k.rng.IntN(60)
		}
		steps = slices.DeleteFunc(k.w.steps(steps[:0]), func(st step) bool { // rare even among the rare
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
		if told != nil {
			told(k.w.describe(st))
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
				k.w.tell(i, traceEvent{kind: traceLeased})
			}
		}
		if b == "" && k.w.s.off == allRules && k.says != "" {
			b = broken("the checker of the events complains: " + k.says)
		}
		if b != "" {
			return b
		}
	}
	return ""
}

// choose takes a kind of step by its weight, then one of that kind, of a node that is awake.
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

// actor is the node whose step it is.
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
		return leader(w.asks[st.a].term)
	case stepTake:
		return w.grants[st.a].node
	case stepLateReport:
		return leader(w.nodes[st.a].lateTo)
	case stepGivenBack:
		return leader(w.backs[st.a].term)
	case stepAsk, stepHello, stepReport, stepAccept, stepAcceptLate, stepGiveBack:
		return st.b
	}
	return w.leads[st.a].node
}

// prune forgets messages that nobody will take any more, and terms nobody remembers; a schedule has many.
func (k *schedule) prune() {
	w := k.w
	w.leads = w.leads[max(0, len(w.leads)-3):]
	if len(w.asks) > 12 {
		w.asks = append([]worldAsk(nil), w.asks[len(w.asks)-8:]...)
	}
	if len(w.grants) > 12 {
		w.grants = append([]worldGrant(nil), w.grants[len(w.grants)-8:]...)
	}
	if len(w.backs) > 4 {
		w.backs = append([]worldAsk(nil), w.backs[len(w.backs)-3:]...)
	}
	for _, l := range w.leads {
		if len(l.proofs) > 12 {
			l.proofs = append([]worldProof(nil), l.proofs[len(l.proofs)-8:]...)
		}
	}
}

// simulate walks schedules from first on until one breaks the promise or count are done.
func simulate(off rule, first, count uint64, limit time.Duration) (broke *schedule, what broken, done [stepKinds]int, schedules int) {
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

// tellSchedule walks a seed again and tells its last steps.
func tellSchedule(seed uint64, off rule) string {
	var lines []string
	newSchedule(seed, off).run(func(s string) { lines = append(lines, s) })
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// The usual run walks 4,000 schedules; LEASE_SCHEDULES=75000 walks the long form. LEASE_SEED is where
// they start; a failure names its own.
func TestRandomSchedulesOfTheLeasesKeepThePromise(t *testing.T) {
	count := envInt(t, "LEASE_SCHEDULES", 4000)
	if underRace {
		count /= 10
	}
	first := uint64(envInt(t, "LEASE_SEED", 1))
	k, b, done, _ := simulate(allRules, first, uint64(count), 0)
	if k != nil {
		t.Fatalf("seed %d: %s\n%s", k.seed, b, tellSchedule(k.seed, allRules))
	}
	for kind, n := range done {
		if n == 0 && stepKind(kind) != stepTimer {
			t.Errorf("no schedule took a step of kind %d: got 0, want some", kind)
		}
	}
	t.Logf("%d schedules of %d steps: %d acknowledgements tried, %d leases taken, %d elections, %d crashes, %d removals, %d arrivals",
		count, scheduleSteps, done[stepAck], done[stepTake], done[stepElect], done[stepCrash], done[stepRemove], done[stepAdd])
}

func TestRandomSchedulesFindMissingRules(t *testing.T) {
	if underRace {
		t.Skip("many schedules: the run without the race detector has them")
	}
	// Five are too rare for a short run of random schedules; the model finds those.
	rare := []rule{proofProposedAfter, adoptionRefusesGrants, removalBars, bookingCoversRates, removalInOwnTerm}
	for off := allRules + 1; off < rules; off++ {
		if slices.Contains(rare, off) {
			continue
		}
		t.Run(off.String(), func(t *testing.T) {
			k, b, _, n := simulate(off, 1, 20_000, 0)
			if k == nil {
				t.Fatalf("%d schedules kept the promise without the rule, want one that breaks it", n)
			}
			if k.says == "" && off != stateReadUnderLease { // it hears of no reads
				t.Errorf("seed %d: %s, and the checker of the events has not complained", k.seed, b)
			}
			t.Logf("seed %d: %s; the checker says: %s", k.seed, b, k.says)
		})
	}
}
