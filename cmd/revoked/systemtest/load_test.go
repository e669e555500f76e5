//go:build system

package systemtest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A pair is a token pair with its history. The test chooses its tokens and its grant id.
type pair struct {
	number                 int
	grant, access, refresh string

	ackedAt    atomic.Int64 // time of the first acknowledged revocation; MaxInt64: none
	registered atomic.Bool  // a registration was acknowledged
	revokeSent atomic.Bool  // a revocation was sent

	mu  sync.Mutex
	ops []porcupine.Operation
}

func (p *pair) note(v verb, node string, client int, call, answer int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ops = append(p.ops, porcupine.Operation{ClientId: client, Input: pairOperation{p.number, v, node}, Call: call,
		Return: answer})
}

// token returns one token of the pair and a client that may introspect it.
func (p *pair) token(r *mrand.Rand) (token, as string) {
	if r.IntN(2) == 0 {
		return p.access, [...]string{"resource_server", "app", "admin"}[r.IntN(3)]
	}
	return p.refresh, [...]string{"app", "admin"}[r.IntN(2)]
}

// A load is a constant stream of registrations, revocations and introspections by several workers
// through the nodes. It records every operation.
type load struct {
	c     *cluster
	name  string
	start time.Time
	stop  chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	nodes  []*member
	pinned bool // each worker uses one node, so a node that hangs blocks only its own worker
	rests  bool // no worker starts an operation
	pairs  []*pair
	broken error // the first violation

	registered, revoked, introspected atomic.Int64
	unanswered                        atomic.Int64 // no connection, or a lost one
	unavailable                       atomic.Int64 // 503
}

// startLoad starts the workers, each at most perSecond operations a second. The caller must call
// end.
func startLoad(t testing.TB, c *cluster, workers, perSecond int) *load {
	l := &load{c: c, name: strings.ToLower(rand.Text()[:8]), start: time.Now(), stop: make(chan struct{}), nodes: c.Nodes}
	for w := range workers {
		r := mrand.New(mrand.NewPCG(uint64(w), mrand.Uint64()))
		l.wg.Go(func() { l.work(w, r, time.Second/time.Duration(perSecond)) })
	}
	t.Cleanup(l.halt)
	return l
}

// use sends all further operations of the workers to these nodes.
func (l *load) use(nodes ...*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = nodes
}

// pin assigns each worker to one of the nodes.
func (l *load) pin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pinned = true
}

// rest pauses the workers, or resumes them.
func (l *load) rest(rests bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rests = rests
}

// node returns the node for a worker's next operation, nil if it rests.
func (l *load) node(id int, r *mrand.Rand) *member {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.rests:
		return nil
	case l.pinned:
		return l.nodes[id%len(l.nodes)]
	}
	return l.nodes[r.IntN(len(l.nodes))]
}

func (l *load) now() int64 { return int64(time.Since(l.start)) }

// halt stops the workers and waits for them.
func (l *load) halt() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// violate records a violation and stops the load.
func (l *load) violate(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf(format, args...)
	}
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
}

// check fails the test immediately after a violation.
func (l *load) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	err := l.broken
	l.mu.Unlock()
	if err != nil {
		for _, m := range l.c.Nodes {
			if m.proc != nil {
				m.proc.Kill() // preserves the disks for inspection
			}
		}
		t.Fatal(err)
	}
}

func (l *load) work(id int, r *mrand.Rand, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		m := l.node(id, r)
		if m == nil {
			continue
		}
		switch n := r.IntN(100); {
		case n < 12:
			l.register(id, m, l.newPair())
		case n < 15:
			l.registerMany(id, m, []*pair{l.newPair(), l.newPair(), l.newPair(), l.newPair()})
		case n < 17: // revoked before it is registered
			p := l.newPair()
			l.revoke(id, m, p, r)
			l.register(id, m, p)
		case n < 19: // a repeated registration
			if p := l.pick(r); p != nil {
				l.register(id, m, p)
			}
		case n < 33:
			if p := l.pick(r); p != nil {
				l.revoke(id, m, p, r)
			}
		default:
			if p := l.pick(r); p != nil {
				l.introspect(id, m, p, r)
			}
		}
	}
}

func (l *load) newPair() *pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.pairs)
	p := &pair{number: n, grant: fmt.Sprintf("g-%s-%d", l.name, n), access: fmt.Sprintf("at-%s-%d", l.name, n),
		refresh: fmt.Sprintf("rt-%s-%d", l.name, n)}
	p.ackedAt.Store(math.MaxInt64)
	l.pairs = append(l.pairs, p)
	return p
}

// pick returns a pair, mostly a recent one, so that operations overlap.
func (l *load) pick(r *mrand.Rand) *pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pairs) == 0 {
		return nil
	}
	n := len(l.pairs)
	if r.IntN(4) > 0 {
		n = min(n, 64)
	}
	return l.pairs[len(l.pairs)-1-r.IntN(n)]
}

// A registrationResult is the response to a registration or to a line.
type registrationResult struct {
	State string `json:"state"`
	Error string `json:"error"`
}

func (l *load) register(id int, m *member, p *pair) {
	call := l.now()
	a := l.c.register(m, p.grant, "subject-"+p.grant, p.access, p.refresh)
	var result registrationResult
	if a.err == nil && (a.status == http.StatusOK || a.status == http.StatusCreated) {
		if err := json.Unmarshal(a.body, &result); err != nil {
			l.violate("%s: registration: got %d %q, want a JSON body", m.ID, a.status, a.body)
		}
	} else if a.err == nil && a.status != http.StatusServiceUnavailable {
		l.violate("%s: registration: got %d %s, want 200, 201 or 503", m.ID, a.status, a.body)
	}
	l.noteUnanswered(a)
	l.noteRegistration(id, m, p, result.State, call)
}

// noteUnanswered counts a request without an answer.
func (l *load) noteUnanswered(a answer) {
	switch {
	case a.err != nil:
		l.unanswered.Add(1)
	case a.status == http.StatusServiceUnavailable:
		l.unavailable.Add(1)
	}
}

func (l *load) registerMany(id int, m *member, pairs []*pair) {
	var lines bytes.Buffer
	for _, p := range pairs {
		if err := json.NewEncoder(&lines).Encode(registration(p.grant, "subject-"+p.grant, p.access, p.refresh)); err != nil {
			l.violate("%v", err)
		}
	}
	call := l.now()
	results := make([]registrationResult, len(pairs))
	a := l.c.sendLines(m, "/v1/grants", lines.Bytes())
	if a.err == nil && a.status == http.StatusOK {
		for i, line := range bytes.Split(bytes.TrimSpace(a.body), []byte("\n")) {
			if i >= len(results) || json.Unmarshal(line, &results[i]) != nil {
				l.violate("%s: bulk registration: got line %d of %d: %q, want a result", m.ID, i+1, len(pairs), line)
				break
			}
		}
	}
	l.noteUnanswered(a)
	for i, p := range pairs {
		l.noteRegistration(id, m, p, results[i].State, call)
	}
}

func (l *load) noteRegistration(id int, m *member, p *pair, state string, call int64) {
	switch state {
	case "active":
		p.registered.Store(true)
		p.note(registeredLive, m.ID, id, call, l.now())
		if call > p.ackedAt.Load() {
			l.violate("%s: pair %d: got an active registration after the acknowledged revocation, want a revoked one", m.ID,
				p.number)
		}
		l.registered.Add(1)
	case "revoked":
		p.registered.Store(true)
		// A node retries a registration whose first try has an unknown outcome, for example because
		// the leader paused. The first may have taken effect before the revocation.
		p.note(registerMaybe, m.ID, id, call, call)
		p.note(registeredDead, m.ID, id, call, l.now())
		l.registered.Add(1)
	default:
		p.note(registerMaybe, m.ID, id, call, call)
	}
}

// revoke revokes a pair in a random way.
func (l *load) revoke(id int, m *member, p *pair, r *mrand.Rand) {
	known := p.registered.Load()
	p.revokeSent.Store(true)
	call := l.now()
	p.note(revokeBegin, m.ID, id, call, call)
	var a answer
	switch way := r.IntN(10); {
	case known && way == 0:
		a = l.c.send(m, request{method: http.MethodDelete, path: "/v1/grants/" + p.grant, as: "issuer"})
	case known && way == 1:
		a = l.c.send(m, request{method: http.MethodPost, path: "/v1/revocations", as: "admin",
			json: map[string]any{"grant_id": p.grant}})
	default:
		a = l.c.revoke(m, [...]string{"app", "admin"}[r.IntN(2)], [...]string{p.access, p.refresh}[r.IntN(2)])
	}
	switch {
	case a.err == nil && a.status == http.StatusOK:
		at := l.now()
		p.note(revokeEnd, m.ID, id, at, at)
		for {
			old := p.ackedAt.Load()
			if old <= at || p.ackedAt.CompareAndSwap(old, at) {
				break
			}
		}
		l.revoked.Add(1)
	case a.err == nil && a.status != http.StatusServiceUnavailable:
		l.violate("%s: revocation: got %d %s, want 200 or 503", m.ID, a.status, a.body)
	default:
		l.noteUnanswered(a)
	}
}

// introspect introspects one token of a pair. An active answer to a request that was sent after the
// acknowledged revocation stops the run.
func (l *load) introspect(id int, m *member, p *pair, r *mrand.Rand) {
	token, as := p.token(r)
	acked := p.ackedAt.Load()
	call := l.now()
	a := l.c.introspect(m, as, token)
	active, ok := a.active()
	switch {
	case !ok:
		if a.err == nil && a.status != http.StatusServiceUnavailable {
			l.violate("%s: introspection: got %d %s, want 200 or 503", m.ID, a.status, a.body)
		}
		l.noteUnanswered(a)
		return // the answer proves nothing
	case active && acked != math.MaxInt64:
		l.violate("%s: pair %d: got active %v after the acknowledged revocation, want inactive", m.ID, p.number,
			time.Duration(call-acked))
	}
	v := readInactive
	if active {
		v = readActive
	}
	p.note(v, m.ID, id, call, l.now())
	l.introspected.Add(1)
}

// end stops the load and checks all nodes: each has everything acknowledged, and the whole history
// fits the model.
func (l *load) end(t testing.TB, nodes ...*member) {
	t.Helper()
	l.halt()
	l.check(t)
	l.checkPairs(t, nodes)
	var history []porcupine.Operation
	for _, p := range l.pairs {
		history = append(history, p.ops...)
	}
	res := porcupine.CheckOperationsTimeout(pairModel(), history, time.Minute)
	if res != porcupine.Ok {
		l.explain(t)
		t.Errorf("history of %d operations: got %v, want it to fit the model", len(history), res)
	}
	t.Logf("%d pairs, %d registrations, %d revocations, %d introspections, %d answers 503, %d unanswered; %d operations checked against the model",
		len(l.pairs), l.registered.Load(), l.revoked.Load(), l.introspected.Load(), l.unavailable.Load(),
		l.unanswered.Load(), len(history))
}

// checkPairs introspects both tokens of every pair at every node.
func (l *load) checkPairs(t testing.TB, nodes []*member) {
	t.Helper()
	var wg sync.WaitGroup
	for w, m := range nodes {
		for half := range 2 {
			wg.Go(func() {
				for i := half; i < len(l.pairs); i += 2 {
					l.checkPair(t, m, l.pairs[i], 1000+2*w+half)
				}
			})
		}
	}
	wg.Wait()
	l.check(t)
}

func (l *load) checkPair(t testing.TB, m *member, p *pair, id int) {
	for _, token := range []string{p.access, p.refresh} {
		for try := 0; ; try++ {
			acked := p.ackedAt.Load() // before the call: the load may continue
			call := l.now()
			a := l.c.introspect(m, "app", token)
			active, ok := a.active()
			if !ok {
				if try == 100 {
					t.Errorf("%s: pair %d: %v", m.ID, p.number, a.want(http.StatusOK))
					return
				}
				continue
			}
			switch {
			case active && acked != math.MaxInt64:
				t.Errorf("%s: pair %d: got active %v after its acknowledged revocation, want inactive", m.ID, p.number,
					time.Duration(call-acked))
			case !active && p.registered.Load() && !p.revokeSent.Load():
				t.Errorf("%s: pair %d: got inactive, want active: it is registered and not revoked", m.ID, p.number)
			}
			v := readInactive
			if active {
				v = readActive
			}
			p.note(v, m.ID, id, call, l.now())
			break
		}
	}
}

// explain logs the history of the first pair that does not match the model.
func (l *load) explain(t testing.TB) {
	for _, p := range l.pairs {
		if porcupine.CheckOperations(pairModel(), p.ops) {
			continue
		}
		for _, op := range p.ops {
			in := op.Input.(pairOperation)
			t.Logf("pair %d: %12v to %12v client %d at %s: %v", p.number, time.Duration(op.Call), time.Duration(op.Return),
				op.ClientId, in.node, in.verb)
		}
		return
	}
}

// burst sends a node introspections and revocations concurrently. It does not wait for them; end
// does.
func (l *load) burst(m *member, size int, revocations float64) {
	for i := range size {
		r := mrand.New(mrand.NewPCG(uint64(i), mrand.Uint64()))
		p := l.pick(r)
		if p == nil {
			return
		}
		l.wg.Go(func() {
			if r.Float64() < revocations/4 {
				l.revoke(500+i, m, p, r)
			} else {
				l.introspect(500+i, m, p, r)
			}
		})
	}
}

// probe checks at each node that some pairs are as acknowledged.
func (l *load) probe(t testing.TB, nodes []*member, size int) {
	t.Helper()
	r := mrand.New(mrand.NewPCG(mrand.Uint64(), 1))
	var wg sync.WaitGroup
	for w, m := range nodes {
		var pairs []*pair
		for range size {
			if p := l.pick(r); p != nil {
				pairs = append(pairs, p)
			}
		}
		wg.Go(func() {
			for _, p := range pairs {
				l.checkPair(t, m, p, 2000+w)
			}
		})
	}
	wg.Wait()
	l.check(t)
}
