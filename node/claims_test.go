package node

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"revoked"
)

// A simTrust is the part of the oracle that records trusted issuers and their tokens. The oracle's
// lock guards it. The invariants for JWTs are:
//
//	I1 after a change that ends a token is acknowledged, no node ever answers active for it again;
//	   no node does so while its issuer is disabled, or does not allow its algorithm
//	I2 a token is active only with an issuer and a key that exist, and while the node's clock and its
//	   newest stamp allow it; a token that nothing ends is never inactive
//	I3 a node that is current has every acknowledged change
//
// The other invariants are about the entries of the log, whatever they contain.
type simTrust struct {
	issuers []*simIssuer
	tokens  []*simJWT
	endings []*simEnding
}

// A simIssuer is a trusted issuer, with the callers' view of its record.
type simIssuer struct {
	n       int
	record  revoked.Issuer // as created
	configs []*simConfig
	keys    []*simKey    // in the order of their creation
	gone    bool         // its deletion was called
	signed  atomic.Int64 // number of tokens
}

// A simConfig is a version of the record. Each replaces the one that its caller has read.
type simConfig struct {
	began, acked     int64
	ifVersion, index uint64
	disabled         bool
	skew             time.Duration
	only             string // the only algorithm; empty: all
	lifetime         time.Duration
	mapping          revoked.ClaimMapping
	remaps           bool // it replaces another mapping
}

func (c *simConfig) lets(t *simJWT) bool {
	return !c.disabled && (c.only == "" || c.only == t.key.signer.algorithm) && t.lifetime() <= c.lifetime
}

// A simKey is a key of one issuer.
type simKey struct {
	issuer *simIssuer
	signer *simSigner
	began  int64 // given to a node, or published for the fetches
	known  int64 // when every current node began to verify with it
	gone   *simEnding
	banned bool // acknowledged
}

// A simJWT is a token and the sequence numbers of the events in its history, like simGrant.
type simJWT struct {
	issuer    *simIssuer
	key       *simKey
	encodings []string
	jwt       revoked.JWT
	claims    map[string]string // the claims that a mapping may use

	revoking, revoked int64
	unverified        bool              // it was revoked as an unknown token
	seen              map[*simLife]bool // processes that answered active
}

func (t *simJWT) String() string {
	return fmt.Sprintf("JWT %s of %s, key %s", t.jwt.JTI, t.jwt.Issuer, t.key.signer.record.Thumbprint[:6])
}

func (t *simJWT) lifetime() time.Duration { return t.jwt.ExpiresAt.Sub(t.jwt.IssuedAt) }

// by returns the token as one mapping reads it.
func (t *simJWT) by(m revoked.ClaimMapping) *revoked.JWT {
	j := t.jwt
	j.ClientID, j.Session, j.GrantID = t.claims[cmp.Or(m.ClientClaim, "client_id")], t.claims[m.SessionClaim],
		t.claims[m.GrantClaim]
	return &j
}

// A simEnding is a change that ends tokens permanently, including those that are signed later.
type simEnding struct {
	began, acked int64
	touches      func(*simJWT) bool // tokens that it may end
	covers       func(*simJWT) bool // tokens that it ends, once acknowledged
}

// begin must be called before a change that may end tokens.
func (o *simOracle) begin(touches func(*simJWT) bool) *simEnding {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.beginLocked(touches)
}

func (o *simOracle) beginLocked(touches func(*simJWT) bool) *simEnding {
	e := &simEnding{began: o.seq.Add(1), touches: touches}
	o.trust.endings = append(o.trust.endings, e)
	for _, t := range o.trust.tokens {
		e.apply(t)
	}
	return e
}

// final must be called once the change is acknowledged. It ends the tokens that covers returns.
func (o *simOracle) final(e *simEnding, covers func(*simJWT) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finalLocked(e, covers)
}

func (o *simOracle) finalLocked(e *simEnding, covers func(*simJWT) bool) {
	if e.acked != 0 {
		return
	}
	e.acked, e.covers = o.seq.Add(1), covers
	for _, t := range o.trust.tokens {
		e.apply(t)
	}
}

func (e *simEnding) apply(t *simJWT) {
	if t.revoking == 0 && e.touches(t) {
		t.revoking = e.began
	}
	if t.revoked == 0 && e.acked != 0 && e.covers(t) {
		t.revoked = e.acked
	}
}

// signed adds a token, which earlier changes may have ended.
func (o *simOracle) signed(t *simJWT) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.trust.endings {
		e.apply(t)
	}
	o.trust.tokens = append(o.trust.tokens, t)
}

// possible returns the versions that a read between two points in time may have found. The first
// result is nil if no version was acknowledged before. A version whose outcome is unknown takes
// effect only if the one that it replaces is the newest.
func (i *simIssuer) possible(start, end int64) (last *simConfig, all []*simConfig) {
	for _, c := range i.configs {
		if c.acked != 0 && c.acked < start && (last == nil || c.index > last.index) {
			last = c
		}
	}
	for _, c := range i.configs {
		switch {
		case c.began > end:
		case c == last, last == nil, c.acked != 0 && c.index > last.index, c.acked == 0 && c.ifVersion >= last.index:
			all = append(all, c)
		}
	}
	return last, all
}

// remappedBetween reports whether a change of the mapping began and was acknowledged between two
// moments.
func (i *simIssuer) remappedBetween(start, end int64) bool {
	return slices.ContainsFunc(i.configs, func(c *simConfig) bool {
		return c.remaps && c.began > start && c.acked != 0 && c.acked < end
	})
}

// always reports whether a condition holds under the mapping of each version that a change may have
// found between began and now. Before the first version it is the mapping of the record that will
// be created.
func (o *simOracle) always(i *simIssuer, began int64, holds func(revoked.ClaimMapping) bool) bool {
	_, confs := i.possible(began, o.seq.Load())
	if len(confs) == 0 {
		return holds(i.record.Mapping())
	}
	return !slices.ContainsFunc(confs, func(c *simConfig) bool { return !holds(c.mapping) })
}

// A simAsk holds the facts about a node when a call began and when it ended.
type simAsk struct {
	l              *simLife
	start, end     int64
	clock0, clock1 revoked.Time
	stamp0, stamp1 revoked.Time
	jumps          int64
	steady         bool // the node's wall clock did not jump during the call
}

func (s *sim) askBegins(l *simLife) simAsk {
	clock := l.of.clock
	return simAsk{l: l, jumps: clock.jumps.Load(), clock0: revoked.TimeOf(clock.Wall()), stamp0: l.n.fsm.Stamp(),
		start: s.o.seq.Add(1)}
}

func (s *sim) askEnds(a *simAsk) {
	clock := a.l.of.clock
	a.end, a.stamp1, a.clock1 = s.o.seq.Add(1), a.l.n.fsm.Stamp(), revoked.TimeOf(clock.Wall())
	a.steady = a.jumps%2 == 0 && a.jumps == clock.jumps.Load()
}

// answeredJWT checks one introspection of a JWT: I1 and I2.
func (o *simOracle) answeredJWT(t *simJWT, st revoked.TokenStatus, a *simAsk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.revoking != 0 && t.revoking < a.end && (t.revoked == 0 || t.revoked > a.start) {
		o.count.add("race: JWT read during its own revocation")
	}
	_, confs := t.issuer.possible(a.start, a.end)
	if st.Verdict == revoked.Active {
		o.activeJWT(t, confs, a)
		return
	}
	o.count.add("answers: JWT inactive")
	o.inactiveJWT(t, st.Verdict, a)
}

func (o *simOracle) activeJWT(t *simJWT, confs []*simConfig, a *simAsk) {
	o.count.add("answers: JWT active")
	skew := time.Duration(0)
	for _, c := range confs {
		skew = max(skew, c.skew)
	}
	switch {
	case t.revoked != 0 && t.revoked < a.start:
		o.failLocked("I1", "%s answered active for %v after a change that ends it was acknowledged", a.l.self, t)
	case t.key.began == 0 || t.key.began > a.end || len(confs) == 0:
		o.failLocked("I2", "%s answered active for %v, whose issuer or key does not exist", a.l.self, t)
	case !slices.ContainsFunc(confs, func(c *simConfig) bool { return c.lets(t) }):
		o.failLocked("I1", "%s answered active for %v after its issuer was disabled, or lost the algorithm", a.l.self, t)
	case a.steady && (t.jwt.ExpiresAt <= a.clock0 || t.jwt.ExpiresAt <= a.stamp0):
		o.failLocked("I2", "%s answered active for %v, which has expired", a.l.self, t)
	case a.steady && max(t.jwt.IssuedAt, t.jwt.NotBefore) > min(a.clock1, a.stamp1).Add(skew):
		o.failLocked("I2", "%s answered active for %v, which is not yet valid", a.l.self, t)
	}
	t.seen[a.l] = true
	if t.key.known == 0 {
		t.key.known = a.end
		o.count.add("race: JWT active by a key that was just fetched")
	}
}

// inactiveJWT checks that something made a token inactive, because a node could keep the promise by
// refusing all tokens.
func (o *simOracle) inactiveJWT(t *simJWT, v revoked.Verdict, a *simAsk) {
	if t.seen[a.l] && t.revoked != 0 && t.revoked < a.start {
		delete(t.seen, a.l)
		if t.key.banned && t.key.gone.acked < a.start {
			o.count.add("race: key banned while its JWT was cached")
		}
		o.count.add("race: JWT revoked while it was cached")
	}
	if t.unverified && t.revoked < a.start && t.key.known != 0 && t.key.known < a.start {
		t.unverified = false
		o.count.add("race: JWT revoked before its key was known")
	}
	if t.revoked != 0 && t.jwt.ExpiresAt > a.clock1 && t.issuer.remappedBetween(t.revoked, a.start) {
		o.count.add("race: JWT read after the claims that ended it had changed")
	}
	if !a.steady || t.revoking != 0 && t.revoking < a.end || t.key.known == 0 || t.key.known >= a.start {
		return
	}
	last, confs := t.issuer.possible(a.start, a.end)
	skew := time.Duration(math.MaxInt64)
	for _, c := range confs {
		if !c.lets(t) {
			return
		}
		skew = min(skew, c.skew)
	}
	if last == nil || t.jwt.ExpiresAt <= a.clock1 || t.jwt.ExpiresAt <= a.stamp1 ||
		max(t.jwt.IssuedAt, t.jwt.NotBefore) > min(a.clock0, a.stamp0).Add(skew) {
		return
	}
	o.failLocked("I2", "%s answered %v for %v, which is valid", a.l.self, v, t)
}

// expiring returns the n newest tokens that are revoked and whose expiry is near.
func (o *simOracle) expiring(n int) (some []*simJWT) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := revoked.TimeOf(time.Now())
	for _, t := range slices.Backward(o.trust.tokens) {
		if t.revoked != 0 && t.jwt.ExpiresAt.Sub(now).Abs() < 25*time.Second && len(some) < n {
			some = append(some, t)
		}
	}
	return some
}

// endedJWTs returns the n newest tokens that an acknowledged change has ended and that have not
// expired. A node that becomes current afterwards has the change. The caller holds the lock.
func (o *simOracle) endedJWTs(n int) (dead []*simJWT) {
	now := revoked.TimeOf(time.Now())
	for _, t := range slices.Backward(o.trust.tokens) {
		if t.revoked != 0 && t.jwt.ExpiresAt > now && len(dead) < n {
			dead = append(dead, t)
		}
	}
	return dead
}

func (t *simJWT) presented(form int) *revoked.PresentedToken {
	raw := t.encodings[form%len(t.encodings)]
	return &revoked.PresentedToken{Digest: revoked.DigestToken(raw), JWT: []byte(raw), Caller: "rs"}
}

// askJWT makes one introspection of a JWT.
func (s *sim) askJWT(ctx context.Context, l *simLife, t *simJWT) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	a := s.askBegins(l)
	st, err := l.n.StatusOf(ctx, *t.presented(s.intn(2)))
	s.askEnds(&a)
	if l.dead.Load() {
		return
	}
	if err != nil {
		s.o.count.add("answers: JWT 503")
		return
	}
	s.o.answeredJWT(t, st, &a)
	s.countExpiry(t, &a)
}

// countExpiry counts the answers for which only the stamps kept a token inactive. Its denial was
// removed, and the clock of the node has not reached its expiry.
func (s *sim) countExpiry(t *simJWT, a *simAsk) {
	s.o.mu.Lock()
	counts := t.revoked != 0 && t.revoked < a.start && a.steady && a.clock1 < t.jwt.ExpiresAt &&
		t.jwt.ExpiresAt <= a.stamp1
	s.o.mu.Unlock()
	if !counts {
		return
	}
	if denied, err := a.l.n.fsm.IsDenied(&t.jwt, t.issuer.record.OwnClients); err == nil && !denied {
		s.o.count.add("race: denial expired before the JWT did by a node's clock")
	}
}
