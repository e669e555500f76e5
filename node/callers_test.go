package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"revoked"
	"revoked/internal/retry"
)

// A simCaller is one application. It registers, introspects and revokes at random nodes, and
// reports the answers to the oracle.
type simCaller struct {
	s   *sim
	k   int
	rng *rand.Rand
	own []*simGrant
}

const (
	simCallers = 4
	simThink   = 700 * time.Millisecond // average pause between the calls from a caller
)

// load runs the callers until ctx ends.
func (s *sim) load(ctx context.Context) {
	for k := range simCallers {
		c := &simCaller{s: s, k: k, rng: rand.New(rand.NewPCG(s.seed, 100+uint64(k)))}
		s.wg.Go(func() { c.run(ctx) })
	}
}

func (c *simCaller) run(ctx context.Context) {
	for ctx.Err() == nil && !c.s.o.failed() {
		retry.Sleep(ctx, time.Duration(c.rng.ExpFloat64()*float64(simThink)))
		switch n := c.rng.IntN(100); {
		case n < 25 || len(c.own) == 0:
			c.register(ctx, c.s.newGrant())
		case n < 30:
			c.early(ctx)
		case n < 55:
			c.revoke(ctx, c.own[c.rng.IntN(len(c.own))], c.rng.IntN(3) > 0)
		case n < 57:
			c.burst(ctx)
		default:
			c.look(ctx)
		}
		if len(c.own) > 40 {
			c.own = c.own[20:]
		}
	}
}

func (s *sim) newGrant() *simGrant {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	n := uint64(len(s.o.grants) + 1)
	g := &simGrant{id: fmt.Sprintf("g%d", n)}
	binary.BigEndian.PutUint64(g.access[:], n)
	binary.BigEndian.PutUint64(g.refresh[8:], n)
	s.o.grants = append(s.o.grants, g)
	return g
}

func (g *simGrant) registration() revoked.Registration {
	expires := revoked.TimeOf(time.Now().Add(24 * time.Hour))
	return revoked.Registration{
		GrantID: g.id, ClientID: "app", Issuer: simRegistering, Tokens: []revoked.TokenRegistration{
			{Digest: g.access, Kind: revoked.AccessToken, ExpiresAt: expires, JTI: g.id},
			{Digest: g.refresh, Kind: revoked.RefreshToken, ExpiresAt: expires}}}
}

// any returns a running node. A call to a frozen node waits until it thaws.
func (c *simCaller) any(ctx context.Context) *simLife {
	for range 8 {
		if l := c.s.nodes[c.rng.IntN(len(c.s.nodes))].now(); l != nil {
			if l.thawed(ctx); !l.dead.Load() {
				return l
			}
		}
	}
	return nil
}

// thawed waits until a frozen node accepts requests again.
func (l *simLife) thawed(ctx context.Context) {
	if f := l.frozen.Load(); f != nil {
		select {
		case <-*f:
		case <-ctx.Done():
		}
	}
}

// bars reports whether a removal has barred a node, according to this node's copy.
func (l *simLife) bars(node string) bool {
	a, ok := l.n.fsm.Admission(node)
	return ok && a.State == revoked.Barred
}

func (l *simLife) actor(id string) revoked.Actor {
	if c, ok := l.n.Client(id); ok {
		return revoked.ActorOf(c)
	}
	return revoked.Actor{ClientID: id}
}

func (c *simCaller) register(ctx context.Context, g *simGrant) {
	l := c.any(ctx)
	if l == nil {
		return
	}
	o := c.s.o
	o.mu.Lock()
	if g.began == 0 {
		g.began = o.seq.Add(1)
	}
	o.mu.Unlock()
	res, err := l.n.Register(ctx, l.actor("issuer"), []revoked.Registration{g.registration()})
	if err == nil {
		err = res[0].Err
	}
	if l.dead.Load() || err != nil {
		o.note(func() string { return fmt.Sprintf("register %s at %s: %v", g.id, l.self, err) })
		o.count.add("calls: register failed")
		return
	}
	c.own = append(c.own, g)
	o.mu.Lock()
	if g.known == 0 {
		g.known = o.seq.Add(1)
	}
	if res[0].Revoked && g.revoking == 0 {
		o.failLocked("I2", "%s is inactive from the start, but was not revoked", g.id)
	}
	o.mu.Unlock()
	o.count.add("calls: register")
	if c.rng.IntN(2) == 0 { // puts it into the cache of every node
		c.everywhere(ctx, g)
	}
}

// early revokes a token before it is registered, then registers it.
func (c *simCaller) early(ctx context.Context) {
	g := c.s.newGrant()
	c.revoke(ctx, g, false)
	c.register(ctx, g)
	c.everywhere(ctx, g)
}

// revoke revokes a grant at one node, or at two concurrently, and then introspects it at every
// node.
func (c *simCaller) revoke(ctx context.Context, g *simGrant, twice bool) {
	if twice {
		l := c.any(ctx)
		d := time.Duration(c.rng.Int64N(int64(time.Millisecond) << c.rng.IntN(10)))
		token := c.token(g)
		c.s.wg.Go(func() {
			retry.Sleep(ctx, d)
			if l != nil {
				c.s.revokeAt(ctx, l, g, token)
			}
		})
	}
	if l := c.any(ctx); l != nil && c.s.revokeAt(ctx, l, g, c.token(g)) {
		c.everywhere(ctx, g)
	}
}

func (c *simCaller) token(g *simGrant) revoked.Digest {
	if !c.s.o.known(g) || c.rng.IntN(2) == 0 { // a tombstone covers only the revoked token
		return g.access
	}
	return g.refresh
}

func (s *sim) revokeAt(ctx context.Context, l *simLife, g *simGrant, token revoked.Digest) bool {
	if token == g.access && s.intn(4) == 0 && s.o.known(g) {
		return s.denyRegistered(ctx, l, g)
	}
	return s.revokeBy(ctx, l, g, token, func() (revoked.RevokeResult, error) {
		return l.n.Revoke(ctx, l.actor("app"), token)
	})
}

// revokeBy revokes a grant through call. It reports whether the revocation was acknowledged.
func (s *sim) revokeBy(
	ctx context.Context, l *simLife, g *simGrant, token revoked.Digest, call func() (revoked.RevokeResult, error),
) bool {
	o := s.o
	l.thawed(ctx)
	o.mu.Lock()
	if g.revoking == 0 {
		g.revoking = o.seq.Add(1)
	}
	o.mu.Unlock()
	res, err := call()
	if err != nil || l.dead.Load() {
		if errors.Is(err, revoked.ErrOutcomeUnknown) {
			o.count.add("calls: revoke unknown")
		} else {
			o.count.add("calls: revoke failed")
		}
		return false
	}
	o.acknowledgedAt(res.Index)
	o.mu.Lock()
	if g.revoked == 0 {
		g.revoked = o.seq.Add(1)
	}
	o.mu.Unlock()
	o.count.add("calls: revoke")
	// An active answer from now on is wrong, from any node.
	s.askAll(ctx, g, token)
	return true
}

// burst makes a stream of revocations.
func (c *simCaller) burst(ctx context.Context) {
	var gs []*simGrant
	for range 6 {
		g := c.s.newGrant()
		c.register(ctx, g)
		gs = append(gs, g)
	}
	for _, g := range gs {
		if l := c.any(ctx); l != nil {
			token := c.token(g)
			c.s.wg.Go(func() { c.s.revokeAt(ctx, l, g, token) })
		}
		retry.Sleep(ctx, 5*time.Millisecond)
	}
}

// live returns a grant that should be active, or nil. Only answers for such grants can be wrong.
func (o *simOracle) live(n int) *simGrant {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.grants) - 1 - n; i >= max(0, len(o.grants)-40); i-- {
		if g := o.grants[i]; g.known != 0 && g.revoked == 0 {
			return g
		}
	}
	return nil
}

// insist introspects at one node repeatedly, even while its lease expires, until the node has
// failed to answer a few times.
func (s *sim) insist(ctx context.Context, l *simLife, d time.Duration) {
	refused := 0
	for end := time.Now().Add(d); refused < 5 && time.Now().Before(end) && ctx.Err() == nil &&
		!l.dead.Load(); retry.Sleep(ctx, 20*time.Millisecond) {
		if g := s.o.live(s.intn(5)); g != nil && l.frozen.Load() == nil {
			if !l.n.leases.valid() {
				refused++
				s.wg.Go(func() { s.ask(ctx, l, g, g.access) })
				continue
			}
			s.ask(ctx, l, g, g.access)
		}
	}
}

// look introspects an old or new token. Sometimes the answering goroutine pauses in the middle.
func (c *simCaller) look(ctx context.Context) {
	l := c.any(ctx)
	if l == nil || len(c.own) == 0 {
		return
	}
	g := c.own[c.rng.IntN(len(c.own))]
	if c.rng.IntN(8) == 0 {
		d := time.Duration(c.rng.Int64N(int64(20*time.Millisecond) << c.rng.IntN(8)))
		l.pauses.Store(&d)
	}
	token := g.access
	if c.rng.IntN(2) == 0 {
		token = g.refresh
	}
	c.s.ask(ctx, l, g, token)
}

// everywhere introspects at all nodes concurrently. It does not wait for nodes without a lease.
func (c *simCaller) everywhere(ctx context.Context, g *simGrant) {
	token := g.access
	if c.s.o.known(g) && c.rng.IntN(2) == 0 {
		token = g.refresh
	}
	c.s.askAll(ctx, g, token)
}

func (s *sim) askAll(ctx context.Context, g *simGrant, token revoked.Digest) {
	for _, m := range s.nodes {
		l := m.now()
		switch {
		case l == nil || l.frozen.Load() != nil:
		case l.n.leases.valid():
			s.ask(ctx, l, g, token)
		default:
			s.wg.Go(func() { s.ask(ctx, l, g, token) })
		}
	}
}

// ask makes one introspection.
func (s *sim) ask(ctx context.Context, l *simLife, g *simGrant, token revoked.Digest) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	start, before := s.o.seq.Add(1), l.n.fsm.Stamp()
	st, err := l.n.Status(ctx, token, "rs")
	if l.dead.Load() {
		return
	}
	if err == nil {
		s.o.remember(g, simPast{token, before, l.n.fsm.Stamp(), st.Verdict})
	}
	if err != nil {
		s.o.count.add("answers: 503")
		return
	}
	s.o.answered(l, g, st, start, s.o.seq.Add(1))
}
