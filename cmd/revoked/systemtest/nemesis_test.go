//go:build system

package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test injects faults of every kind, one to three at a time, while clients at every node
// register, revoke and introspect. No node undoes an acknowledged change, during the faults or
// after restarts. Once the faults have ended, all nodes have the same state. The test derives the
// plan from a seed, which it logs. The seed does not determine the timing, so it repeats the plan
// but not the run.
//
// REVOKED_SEED and REVOKED_MINUTES choose plan and length. A run of full length fails unless every
// kind of fault happened. A failed run keeps its directory with data, logs and histories.
func TestNemesis_UndoesNothing(t *testing.T) {
	minutes := number(t, "REVOKED_MINUTES", nemesisMinutes)
	seed := number(t, "REVOKED_SEED", 1+rand.IntN(1<<30))
	t.Logf("REVOKED_SEED=%d REVOKED_MINUTES=%d", seed, minutes)
	n := newNemesis(t, uint64(seed))
	t.Cleanup(func() { n.freeze(t) })
	stop := time.Now().Add(time.Duration(minutes) * time.Minute)
	late := stop.Add(nemesisMinutes * time.Minute) // each kind has occurred by then
	for round := 1; time.Now().Before(stop) || minutes >= nemesisMinutes && !n.all() && time.Now().Before(late); round++ {
		n.round(t, round)
		if round%5 == 0 {
			n.quiet(t)
		}
	}
	n.quiet(t)
	n.load.halt()
	n.load.end(t, n.running()...)
	n.report(t, minutes >= nemesisMinutes)
}

// nemesisMinutes is the length in CI.
const nemesisMinutes = 2

// A nemesis is a network of three nodes and a fourth that joins and leaves, with its faults.
type nemesis struct {
	*network
	load    *load
	r       *rand.Rand // used only for the plan
	deck    []int      // remaining kinds
	fourth  *member
	leaving bool // the fourth node is leaving, or was removed

	drops    map[string][]drop // active, by fault
	active   []string          // active faults
	happened map[string]int
	together map[string]int
	last     map[*member]nodeStatus // at the last quiet time
}

// A plan is one fault of a round.
type plan struct {
	kind          int
	role          int // role of the faulty node
	after, length time.Duration
	amount        float64 // 0 to 1
}

func newNemesis(t *testing.T, seed uint64) *nemesis {
	t.Helper()
	w := newNetwork(t, 4)
	fourth := w.Nodes[3]
	var initial []string
	for _, m := range w.without(fourth) {
		initial = append(initial, strconv.Quote(m.Cluster))
	}
	join := fmt.Sprintf("join: [%s]", strings.Join(initial, ", "))
	for _, m := range w.without(fourth) {
		w.rewriteConfig(t, m, "bootstrap_expect: 3", join)
	}
	w.rewriteConfig(t, fourth, join)
	fourth.args = []string{"--rejoin"} // matters only after it has left
	w.putLinks(t)
	for _, m := range w.without(fourth) {
		w.start(t, m)
	}
	w.awaitReady(t, w.without(fourth)...)
	n := &nemesis{
		network: w, fourth: fourth, r: rand.New(rand.NewPCG(seed, 1)), drops: map[string][]drop{},
		happened: map[string]int{}, together: map[string]int{}, last: map[*member]nodeStatus{},
	}
	n.load = startLoad(t, w.cluster, 12, 15)
	n.load.pin()
	n.load.use(w.without(fourth)...)
	return n
}

// plan picks the kinds of the next round from a shuffled deck, so that all are equally frequent.
// Once per deck it combines the worst three.
func (n *nemesis) plan() []plan {
	size := 1 + (n.r.IntN(6)+3)/4 // 1 to 3, mostly more than one
	var kinds []int
	if len(n.deck) == 0 {
		n.deck = n.r.Perm(len(faults()))
		kinds = []int{kindOf("stop"), kindOf([...]string{"deaf", "mute"}[n.r.IntN(2)]), kindOf("kill")}
	} else {
		size = min(size, len(n.deck))
		kinds, n.deck = n.deck[:size], n.deck[size:]
	}
	var plans []plan
	for _, kind := range kinds {
		plans = append(plans, plan{
			kind: kind, role: n.r.IntN(6),
			after: time.Duration(n.r.IntN(800)) * time.Millisecond,
			// length is at most twice the sum of the lease and the election timeout.
			length: 500*time.Millisecond + time.Duration(n.r.IntN(4500))*time.Millisecond,
			amount: n.r.Float64(),
		})
	}
	return plans
}

// round begins and ends the faults of one plan.
func (n *nemesis) round(t *testing.T, number int) {
	t.Helper()
	type event struct {
		at time.Duration
		do func()
	}
	var events []event
	var story []string
	begin := time.Now()
	for _, p := range n.plan() {
		f := faults()[p.kind]
		var end func()
		events = append(events, event{p.after, func() {
			m := n.target(p.role)
			if end = f.begin(n, t, m, p); end != nil {
				n.note(f.name)
			}
			story = append(story, fmt.Sprintf("%v %s %s", time.Since(begin).Round(time.Millisecond), f.name,
				n.nameOf(m, end != nil)))
		}}, event{p.after + p.length, func() {
			if end != nil {
				end()
				n.active = slices.DeleteFunc(n.active, func(s string) bool { return s == f.name })
			}
		}})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	for _, e := range events {
		select {
		case <-time.After(time.Until(begin.Add(e.at))):
		case <-n.load.stop:
		}
		n.load.check(t)
		e.do()
	}
	n.checkProcesses(t)
	t.Logf("round %d, %v: %s", number, time.Since(n.load.start).Round(time.Second), strings.Join(story, "; "))
}

// note counts a fault and its combinations with other active faults.
func (n *nemesis) note(name string) {
	n.happened[name]++
	n.active = append(n.active, name)
	if len(n.active) > 1 {
		met := slices.Clone(n.active)
		slices.Sort(met)
		n.together[strings.Join(slices.Compact(met), " + ")]++
	}
}

// all reports whether every kind of fault has happened.
func (n *nemesis) all() bool {
	return !slices.ContainsFunc(faults(), func(f fault) bool { return n.happened[f.name] == 0 })
}

// target returns the node of a role: in half the cases the leader, if one is known.
func (n *nemesis) target(role int) *member {
	var leader *member
	term := uint64(0)
	for _, m := range n.running() {
		if s, err := n.quickStatus(m); err == nil && s.State == "leader" && s.Term >= term {
			leader, term = m, s.Term
		}
	}
	others := n.running()
	if leader != nil {
		if role < 3 {
			return leader
		}
		others = slices.DeleteFunc(others, func(m *member) bool { return m == leader })
	}
	if len(others) == 0 {
		return n.Nodes[role%3]
	}
	return others[role%len(others)]
}

// quickStatus returns the status of a node that may hang.
func (n *nemesis) quickStatus(m *member) (s nodeStatus, err error) {
	quick := *m
	client := *m.client
	client.Timeout = time.Second
	quick.client = &client
	return n.status(&quick)
}

func (n *nemesis) nameOf(m *member, happened bool) string {
	if !happened {
		return "(unknown)"
	}
	return m.ID
}

// startMissing starts all members that do not run.
func (n *nemesis) startMissing(t testing.TB) {
	for _, m := range n.without(n.fourth) {
		if !m.proc.Running() {
			n.start(t, m)
		}
	}
}

// mayExit reports whether a node may exit by itself: the fourth when it leaves, or when it learns
// that it left before it was killed.
func (n *nemesis) mayExit(m *member) bool {
	return m == n.fourth && (n.leaving || strings.Contains(tail(m.Log, 3), "was removed from its cluster"))
}

// checkProcesses fails the test if a node exited by itself.
func (n *nemesis) checkProcesses(t testing.TB) {
	t.Helper()
	for _, m := range n.Nodes {
		if m.proc == nil || m.proc.Running() {
			continue
		}
		state := m.proc.cmd.ProcessState
		if state.ExitCode() > 0 && !n.mayExit(m) {
			t.Fatalf("%s: exited by itself (%v); end of its log:\n%s", m.ID, m.proc.Err(), tail(m.Log, 15))
		}
	}
}

// quiet ends every fault and waits until all nodes are ready. Then all nodes must agree on the
// state, the state must have every acknowledged change, and no term or index may have gone back.
func (n *nemesis) quiet(t *testing.T) {
	t.Helper()
	n.drops = map[string][]drop{}
	n.heal(t)
	for _, m := range n.Nodes {
		if m.proc != nil {
			m.proc.Signal(syscall.SIGCONT)
		}
	}
	n.startMissing(t)
	n.awaitFourth(t)
	up := n.running()
	n.awaitReady(t, up...)
	n.load.rest(true)
	n.checkAgreement(t, up...)
	for _, m := range up {
		s, err := n.status(m)
		if err != nil {
			t.Fatal(err)
		}
		if was := n.last[m]; m != n.fourth && (s.Term < was.Term || s.AppliedIndex < was.AppliedIndex) {
			t.Errorf("%s: got term %d, index %d, want at least %d, %d", m.ID, s.Term, s.AppliedIndex, was.Term, was.AppliedIndex)
		}
		n.last[m] = s
	}
	n.load.probe(t, up, 40)
	n.load.rest(false)
	n.load.use(up...)
	n.checkProcesses(t)
	t.Logf("quiet with %d nodes at %v: term %d, index %d", len(up), time.Since(n.load.start).Round(time.Second),
		n.last[up[0]].Term, n.last[up[0]].AppliedIndex)
}

// awaitFourth waits until the fourth node is a member or has left.
func (n *nemesis) awaitFourth(t testing.TB) {
	t.Helper()
	if n.fourth.proc == nil {
		return
	}
	await(t, "the fourth node to join or leave", func() error {
		if !n.fourth.proc.Running() {
			if n.mayExit(n.fourth) || n.fourth.proc.cmd.ProcessState.ExitCode() <= 0 {
				return nil
			}
			t.Fatalf("%s: exited by itself; end of its log:\n%s", n.fourth.ID, tail(n.fourth.Log, 15))
		}
		return n.readiness(n.fourth)
	})
	if n.fourth.proc.Running() || n.mayExit(n.fourth) {
		return
	}
	n.start(t, n.fourth) // it was killed as a member
	await(t, "the fourth node to be back", func() error {
		n.checkProcesses(t)
		return n.readiness(n.fourth)
	})
}

// report logs the faults. A full run fails unless each kind happened.
func (n *nemesis) report(t *testing.T, whole bool) {
	var lines []string
	for _, f := range faults() {
		lines = append(lines, fmt.Sprintf("%4d  %s", n.happened[f.name], f.name))
		if whole && n.happened[f.name] == 0 {
			t.Errorf("%s: got 0 faults, want at least 1", f.name)
		}
	}
	for met, times := range n.together {
		lines = append(lines, fmt.Sprintf("%4d  %s", times, met))
	}
	slices.Sort(lines[len(faults()):])
	t.Logf("faults and their combinations:\n%s", strings.Join(lines, "\n"))
}

// freeze keeps data, logs and the histories of all pairs after a failed run.
func (n *nemesis) freeze(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, m := range n.Nodes {
		if m.proc != nil {
			m.proc.Kill()
		}
	}
	n.load.halt()
	f, err := os.Create(filepath.Join(n.dir, keepFile))
	if err != nil {
		t.Error(err)
		return
	}
	lines := json.NewEncoder(f)
	for _, p := range n.load.pairs {
		for _, op := range p.ops {
			in := op.Input.(pairOperation)
			err = errors.Join(err, lines.Encode(map[string]any{"pair": p.number, "what": in.verb.String(), "node": in.node,
				"client": op.ClientId, "call": op.Call, "return": op.Return}))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Error(err)
	}
}

// admin sends an administration request and reports whether it succeeded.
func (n *nemesis) admin(m *member, order string, body map[string]any) error {
	return n.send(m, request{method: http.MethodPost, path: "/v1/cluster/" + order, as: "admin",
		json: body}).want(http.StatusOK)
}
