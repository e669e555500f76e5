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

// Faults of every kind, one to three at once, while clients at every node register, revoke and ask.
// Nothing that was acknowledged is undone: not during, not after restarts, on no node; and when it is quiet
// all nodes hold the same. What happens is drawn from a seed, which is printed; when it happens is
// not, so a seed repeats the plan and not the run.
//
// REVOKED_SEED and REVOKED_MINUTES choose plan and length. A run of full length that never
// had one of the kinds fails. After a failure the folder is kept, with the data, logs and histories.
func TestNemesis(t *testing.T) {
	minutes := number(t, "REVOKED_MINUTES", nemesisMinutes)
	seed := number(t, "REVOKED_SEED", 1+rand.IntN(1<<30))
	t.Logf("REVOKED_SEED=%d REVOKED_MINUTES=%d", seed, minutes)
	n := newNemesis(t, uint64(seed))
	t.Cleanup(func() { n.freeze(t) })
	stop := time.Now().Add(time.Duration(minutes) * time.Minute)
	late := stop.Add(nemesisMinutes * time.Minute) // by then each kind has had its chance
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

// nemesisMinutes is how long CI has.
const nemesisMinutes = 3

// A nemesis is a network of three nodes, and a fourth that comes and goes, with what is wrong with it.
type nemesis struct {
	*network
	load    *load
	r       *rand.Rand // draws the plan, and nothing else
	deck    []int      // of kinds that are yet to come
	fourth  *member
	leaving bool // the fourth was asked to leave, or was removed

	drops    map[string][]drop // in force, by fault
	active   []string          // faults in force
	happened map[string]int
	together map[string]int
	last     map[*member]nodeStatus // as seen when it was quiet
}

// A plan is one fault of a round.
type plan struct {
	kind          int
	role          int // of the node it is for
	after, length time.Duration
	amount        float64 // 0 to 1: how bad
}

func newNemesis(t *testing.T, seed uint64) *nemesis {
	t.Helper()
	w := newNetwork(t, 4)
	fourth := w.Nodes[3]
	var founders []string
	for _, m := range w.without(fourth) {
		founders = append(founders, strconv.Quote(m.Cluster))
	}
	join := fmt.Sprintf("join: [%s]", strings.Join(founders, ", "))
	for _, m := range w.without(fourth) {
		w.rewriteConfig(t, m, "bootstrap_expect: 3", join)
	}
	w.rewriteConfig(t, fourth, join)
	fourth.args = []string{"--rejoin"} // counts only once it has left
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

// plan draws the next round: kinds from a shuffled deck, so that each comes as often as any other, and
// once a deck the three that are worst together.
func (n *nemesis) plan() []plan {
	size := 1 + (n.r.IntN(6)+3)/4 // 1, 2 or 3: mostly more than one
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
			after:  time.Duration(n.r.IntN(800)) * time.Millisecond,
			length: 500*time.Millisecond + time.Duration(n.r.IntN(4500))*time.Millisecond, // up to twice lease and election
			amount: n.r.Float64(),
		})
	}
	return plans
}

// round has the faults of one plan begin and end.
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
			story = append(story, fmt.Sprintf("%v %s %s", time.Since(begin).Round(time.Millisecond), f.name, n.nameOf(m, end != nil)))
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

// note counts a fault that happened, and with which others it met.
func (n *nemesis) note(name string) {
	n.happened[name]++
	n.active = append(n.active, name)
	if len(n.active) > 1 {
		met := slices.Clone(n.active)
		slices.Sort(met)
		n.together[strings.Join(slices.Compact(met), " + ")]++
	}
}

// all tells whether every kind of fault has happened.
func (n *nemesis) all() bool {
	return !slices.ContainsFunc(faults(), func(f fault) bool { return n.happened[f.name] == 0 })
}

// target is the node of a role: half the time the leader, if anybody says that it leads.
func (n *nemesis) target(role int) *member {
	var leader *member
	term := uint64(0)
	for _, m := range n.running() {
		if s, err := n.glance(m); err == nil && s.State == "leader" && s.Term >= term {
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

// glance is status of a node that may hang.
func (n *nemesis) glance(m *member) (s nodeStatus, err error) {
	quick := *m
	client := *m.client
	client.Timeout = time.Second
	quick.client = &client
	return n.status(&quick)
}

func (n *nemesis) nameOf(m *member, happened bool) string {
	if !happened {
		return "(could not be had)"
	}
	return m.ID
}

// put starts whatever does not run and should.
func (n *nemesis) put(t testing.TB) {
	for _, m := range n.without(n.fourth) {
		if !m.proc.runs() {
			n.start(t, m)
		}
	}
}

// isOut tells whether a node may end by itself: the fourth, when it leaves, or learns that it did before
// it was killed.
func (n *nemesis) isOut(m *member) bool {
	return m == n.fourth && (n.leaving || strings.Contains(tail(m.Log, 3), "was removed from its cluster"))
}

// checkProcesses fails when a node ended that nobody ended.
func (n *nemesis) checkProcesses(t testing.TB) {
	t.Helper()
	for _, m := range n.Nodes {
		if m.proc == nil || m.proc.runs() {
			continue
		}
		state := m.proc.cmd.ProcessState
		if state.ExitCode() > 0 && !n.isOut(m) {
			t.Fatalf("%s ended by itself (%v); the end of its log:\n%s", m.ID, m.proc.err, tail(m.Log, 15))
		}
	}
}

// quiet ends every fault and waits until all nodes are well; then all hold the same, none has gone back,
// and each knows what was acknowledged.
func (n *nemesis) quiet(t *testing.T) {
	t.Helper()
	n.drops = map[string][]drop{}
	n.heal(t)
	for _, m := range n.Nodes {
		if m.proc != nil {
			m.proc.signal(syscall.SIGCONT)
		}
	}
	n.put(t)
	n.settleFourth(t)
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
			t.Errorf("%s went back from term %d and index %d to %d and %d", m.ID, was.Term, was.AppliedIndex, s.Term, s.AppliedIndex)
		}
		n.last[m] = s
	}
	n.load.probe(t, up, 40)
	n.load.rest(false)
	n.load.use(up...)
	n.checkProcesses(t)
	t.Logf("quiet with %d nodes at %v: term %d, index %d", len(up), time.Since(n.load.start).Round(time.Second), n.last[up[0]].Term, n.last[up[0]].AppliedIndex)
}

// settleFourth waits until the fourth node is in or gone.
func (n *nemesis) settleFourth(t testing.TB) {
	t.Helper()
	if n.fourth.proc == nil {
		return
	}
	await(t, "the fourth node to be in or gone", func() error {
		if !n.fourth.proc.runs() {
			if n.isOut(n.fourth) || n.fourth.proc.cmd.ProcessState.ExitCode() <= 0 {
				return nil
			}
			t.Fatalf("%s ended by itself; the end of its log:\n%s", n.fourth.ID, tail(n.fourth.Log, 15))
		}
		return n.readiness(n.fourth)
	})
	if n.fourth.proc.runs() || n.isOut(n.fourth) {
		return
	}
	n.start(t, n.fourth) // it was killed while it was a member
	await(t, "the fourth node to be back", func() error {
		n.checkProcesses(t)
		return n.readiness(n.fourth)
	})
}

// report prints what happened, and of a whole run wants each kind.
func (n *nemesis) report(t *testing.T, whole bool) {
	var lines []string
	for _, f := range faults() {
		lines = append(lines, fmt.Sprintf("%4d  %s", n.happened[f.name], f.name))
		if whole && n.happened[f.name] == 0 {
			t.Errorf("%s never happened", f.name)
		}
	}
	for met, times := range n.together {
		lines = append(lines, fmt.Sprintf("%4d  %s", times, met))
	}
	slices.Sort(lines[len(faults()):])
	t.Logf("how often each fault happened, and which met:\n%s", strings.Join(lines, "\n"))
}

// freeze keeps what a failed run leaves: data, logs, and the histories of all pairs.
func (n *nemesis) freeze(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, m := range n.Nodes {
		if m.proc != nil {
			m.proc.kill()
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
			err = errors.Join(err, lines.Encode(map[string]any{"pair": p.number, "what": in.verb.String(), "node": in.node, "client": op.ClientId, "call": op.Call, "return": op.Return}))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Error(err)
	}
}

// admin sends an order of the cluster's administration, and tells whether it was carried out.
func (n *nemesis) admin(m *member, order string, body map[string]any) error {
	return n.send(m, request{method: http.MethodPost, path: "/v1/cluster/" + order, as: "admin", json: body}).want(http.StatusOK)
}
