package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"revoked"
	"revoked/internal/retry"
)

// A simBearer gets tokens of the trusted issuers, which are not registered, presents them at random
// nodes and revokes them in every way.
type simBearer struct {
	s   *sim
	rng *rand.Rand
}

const simBearerThink = 500 * time.Millisecond // average pause between the calls from a bearer

// trustLoad runs the issuers and a bearer of their tokens until ctx ends.
func (s *sim) trustLoad(ctx context.Context) {
	rng := rand.New(rand.NewPCG(s.seed, 200))
	a := &simAuthority{s: s, rng: rng, b: &simBearer{s: s, rng: rng}}
	b := &simBearer{s: s, rng: rand.New(rand.NewPCG(s.seed, 201))}
	s.wg.Go(func() { a.run(ctx) })
	s.wg.Go(func() { b.run(ctx) })
}

func (b *simBearer) run(ctx context.Context) {
	for ctx.Err() == nil && !b.s.o.failed() {
		retry.Sleep(ctx, time.Duration(b.rng.ExpFloat64()*float64(simBearerThink)))
		t := b.pick()
		switch n := b.rng.IntN(100); {
		case t == nil || n < 30:
			if t = b.sign(""); t != nil {
				b.s.present(ctx, t)
			}
		case n < 34:
			b.revokeUnseen(ctx)
		case n < 52:
			b.revoke(ctx, t)
		case n < 58:
			b.revokeJTI(ctx, t)
		case n < 62:
			b.cutOff(ctx, t)
		case n < 65:
			b.foreign(ctx, t)
		case n < 75:
			b.s.present(ctx, t)
		default:
			b.look(ctx, t)
		}
	}
}

// someone returns a running node. A call to a frozen node waits until it thaws.
func (s *sim) someone(ctx context.Context, rng *rand.Rand) *simLife {
	for range 8 {
		if l := s.nodes[rng.IntN(len(s.nodes))].now(); l != nil {
			if l.thawed(ctx); !l.dead.Load() {
				return l
			}
		}
	}
	return nil
}

// pick returns a token, mostly a new one, or nil without tokens.
func (b *simBearer) pick() *simJWT {
	b.s.o.mu.Lock()
	defer b.s.o.mu.Unlock()
	all := b.s.o.trust.tokens
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1-min(b.rng.IntN(len(all)), b.rng.IntN(60))]
}

// sign returns a new token, or nil if no issuer exists yet. The key may be banned, not yet
// published or no longer published. The issuer may have been deleted.
func (b *simBearer) sign(jti string) *simJWT {
	o := b.s.o
	o.mu.Lock()
	var keys []*simKey
	for n, i := range o.trust.issuers {
		if !i.gone || n == len(o.trust.issuers)-1-simIssuers { // the newest deleted one
			keys = append(keys, i.keys...)
		}
	}
	if len(keys) == 0 {
		o.mu.Unlock()
		return nil
	}
	k := keys[b.rng.IntN(len(keys))]
	for n := 0; k.gone != nil && n < 2; n++ {
		k = keys[b.rng.IntN(len(keys))]
	}
	o.mu.Unlock()
	t := b.claims(k, jti)
	o.signed(t)
	o.count.add("calls: JWT signed")
	return t
}

// claims signs a token with k. Its issuer may have a clock that is ahead. Issuers use the same ids
// for different things.
func (b *simBearer) claims(k *simKey, jti string) *simJWT {
	record, now := &k.issuer.record, time.Now()
	number := k.issuer.signed.Add(1)
	iat := now.Add(time.Duration(b.rng.IntN(8)-5) * time.Second).Unix()
	exp := now.Add(3*time.Second + time.Duration(b.rng.Int64N(int64(12*time.Second)))).Unix()
	if exp = max(exp, iat+3); b.rng.IntN(2) == 0 {
		exp = now.Add(90 * time.Second).Unix()
	}
	switch {
	case jti != "":
	case !record.JTI:
		jti = "same"
	default:
		jti = fmt.Sprintf("j%d", number)
	}
	t := &simJWT{issuer: k.issuer, key: k, seen: map[*simLife]bool{}}
	// The grants share their ids with registered grants, but are different grants.
	grant, session := fmt.Sprintf("g%d", 1+b.rng.IntN(60)), fmt.Sprintf("s%d", b.rng.IntN(12))
	t.jwt = revoked.JWT{Issuer: record.Issuer, JTI: jti, ClientID: []string{"app", "web", "cli"}[b.rng.IntN(3)],
		Subject: fmt.Sprintf("u%d", b.rng.IntN(12)), Session: session, Thumbprint: k.signer.record.Thumbprint,
		IssuedAt: revoked.Time(iat * 1e6), ExpiresAt: revoked.Time(exp * 1e6)}
	if record.GrantClaim != "" {
		t.jwt.GrantID = grant
	}
	t.claims = map[string]string{
		"client_id": t.jwt.ClientID, "sid": session, "gid": grant, "c2": []string{"app", "web", "cli"}[b.rng.IntN(3)],
		"s2": fmt.Sprintf("s%d", b.rng.IntN(12)), "g2": fmt.Sprintf("g%d", 1+b.rng.IntN(60)),
	}
	if k.issuer.remapped() { // tokens often share a grant
		t.claims["gid"], t.claims["g2"] = fmt.Sprintf("g%d", 1+b.rng.IntN(6)), fmt.Sprintf("g%d", 1+b.rng.IntN(6))
		grant, t.jwt.GrantID = t.claims["gid"], t.claims["gid"]
	}
	nbf := ""
	if b.rng.IntN(4) == 0 {
		t.jwt.NotBefore = t.jwt.IssuedAt.Add(2 * time.Second)
		nbf = fmt.Sprintf(`,"nbf":%d`, iat+2)
	}
	t.encodings = k.signer.sign(fmt.Sprintf(
		`{"iss":%q,"sub":%q,"aud":"rs","client_id":%q,"jti":%q,"sid":%q,"gid":%q,"c2":%q,"s2":%q,"g2":%q,`+
			`"iat":%d,"exp":%d%s}`, record.Issuer, t.jwt.Subject, t.jwt.ClientID, jti, session, grant, t.claims["c2"],
		t.claims["s2"], t.claims["g2"], iat, exp, nbf))
	for _, raw := range t.encodings {
		t.jwt.Digests = append(t.jwt.Digests, revoked.DigestToken(raw))
	}
	return t
}

// present introspects a token at all nodes. It does not wait for nodes without a lease.
func (s *sim) present(ctx context.Context, t *simJWT) {
	for _, m := range s.nodes {
		l := m.now()
		switch {
		case l == nil || l.frozen.Load() != nil:
		case l.n.leases.valid():
			s.askJWT(ctx, l, t)
		default:
			s.wg.Go(func() { s.askJWT(ctx, l, t) })
		}
	}
}

// presentNewest introspects the n newest tokens at all nodes.
func (s *sim) presentNewest(ctx context.Context, n int) {
	s.o.mu.Lock()
	newest := slices.Clone(s.o.trust.tokens[max(0, len(s.o.trust.tokens)-n):])
	s.o.mu.Unlock()
	for _, t := range newest {
		s.present(ctx, t)
	}
}

// presentSome introspects two of the newest tokens of an issuer at all nodes.
func (s *sim) presentSome(ctx context.Context, i *simIssuer, rng *rand.Rand) {
	s.o.mu.Lock()
	var some []*simJWT
	for _, t := range slices.Backward(s.o.trust.tokens) {
		if t.issuer == i && rng.IntN(2) == 0 && len(some) < 2 {
			some = append(some, t)
		}
	}
	s.o.mu.Unlock()
	for _, t := range some {
		s.present(ctx, t)
	}
}

// look introspects a token at one node. Sometimes the answering goroutine pauses in the middle.
func (b *simBearer) look(ctx context.Context, t *simJWT) {
	l := b.s.someone(ctx, b.rng)
	if l == nil {
		return
	}
	if b.rng.IntN(8) == 0 {
		d := time.Duration(b.rng.Int64N(int64(20*time.Millisecond) << b.rng.IntN(8)))
		l.pauses.Store(&d)
	}
	b.s.askJWT(ctx, l, t)
}

// ends reports whether the revocation of a token, once verified, also revokes another one.
func (t *simJWT) ends(other *simJWT) bool {
	a, b, i := &t.jwt, &other.jwt, &t.issuer.record
	switch {
	case t == other:
		return true
	case t.issuer != other.issuer:
		return false
	case i.JTI && a.JTI == b.JTI, i.GrantClaim != "" && a.GrantID == b.GrantID:
		return true
	}
	return i.GrantClaim == "" && i.RevokeSession && a.Session == b.Session
}

// mayEnd reports whether the revocation of a token may also revoke another one. Any mapping may
// apply, and values of different claims may be equal.
func (t *simJWT) mayEnd(other *simJWT) bool {
	if !t.issuer.remapped() || t.issuer != other.issuer {
		return t.ends(other)
	}
	shares := func(names ...string) bool {
		return slices.ContainsFunc(names, func(a string) bool {
			return slices.ContainsFunc(names, func(b string) bool { return t.claims[a] == other.claims[b] })
		})
	}
	return t == other || t.jwt.JTI == other.jwt.JTI || shares("gid", "g2") || shares("sid", "s2")
}

// endsBy reports whether the revocation of a token also revokes another one under one mapping.
func (t *simJWT) endsBy(m revoked.ClaimMapping, other *simJWT) bool {
	a, b := t.by(m), other.by(m)
	if m.GrantClaim != "" {
		return a.GrantID == b.GrantID
	}
	return a.Session == b.Session
}

// covers returns a filter for the tokens that the acknowledged revocation of t has revoked. If the
// mapping of the issuer changes, these are tokens issued by stamp that every possible mapping
// covers.
func (s *sim) covers(t *simJWT, e *simEnding, stamp revoked.Time) func(*simJWT) bool {
	if !t.issuer.remapped() {
		return t.ends
	}
	return func(other *simJWT) bool {
		return t == other || t.issuer == other.issuer && other.jwt.IssuedAt <= stamp &&
			s.o.always(t.issuer, e.began, func(m revoked.ClaimMapping) bool { return t.endsBy(m, other) })
	}
}

// revoke revokes a token at a node, often at two concurrently, and presents it at all nodes.
func (b *simBearer) revoke(ctx context.Context, t *simJWT) {
	by := "admin"
	if t.issuer.record.OwnClients && t.jwt.ClientID == "app" && b.rng.IntN(2) == 0 {
		by = "app"
	}
	if l := b.s.someone(ctx, b.rng); l != nil && b.rng.IntN(3) == 0 {
		b.s.wg.Go(func() { b.s.revokeJWT(ctx, l, t, by) })
	}
	if l := b.s.someone(ctx, b.rng); l != nil {
		b.s.revokeJWT(ctx, l, t, by)
	}
}

func (s *sim) revokeJWT(ctx context.Context, l *simLife, t *simJWT, by string) {
	o := s.o
	l.thawed(ctx)
	e, stamp := o.begin(t.mayEnd), l.n.fsm.Stamp()
	res, err := l.n.RevokeToken(ctx, l.actor(by), *t.presented(s.intn(2)))
	if err != nil || l.dead.Load() {
		o.count.add("calls: JWT revoke failed")
		return
	}
	o.acknowledgedAt(res.Index)
	covers := s.covers(t, e, stamp)
	if res.Unknown { // it did not verify: only the token itself has a tombstone
		covers = func(other *simJWT) bool { return t == other }
		o.count.add("calls: JWT revoke unknown")
	}
	o.mu.Lock()
	t.unverified = res.Unknown && t.revoked == 0
	if g := t.key.gone; g != nil && g.acked != 0 && g.acked < e.began && !res.Unknown {
		o.count.add("race: retired or banned key verifies a revocation")
	}
	o.finalLocked(e, covers)
	o.mu.Unlock()
	o.count.add("calls: JWT revoke")
	s.present(ctx, t)
}

// revokeJTI revokes a token by its jti, without presenting the token.
func (b *simBearer) revokeJTI(ctx context.Context, t *simJWT) {
	r := revoked.JTIRevocation{Issuer: t.jwt.Issuer, JTI: t.jwt.JTI}
	if b.rng.IntN(2) == 0 {
		r.ExpiresAt = t.jwt.ExpiresAt
	}
	if b.deny(ctx, r) {
		b.s.present(ctx, t)
	}
}

// deny revokes a jti. It reports whether that was acknowledged.
func (b *simBearer) deny(ctx context.Context, r revoked.JTIRevocation) bool {
	l, o := b.s.someone(ctx, b.rng), b.s.o
	if l == nil {
		return false
	}
	same := func(t *simJWT) bool {
		return t.issuer.record.JTI && t.jwt.Issuer == r.Issuer && t.jwt.JTI == r.JTI
	}
	e := o.begin(same)
	index, err := l.n.RevokeJTI(ctx, l.actor([]string{"admin", "as"}[b.rng.IntN(2)]), r)
	if err != nil || l.dead.Load() {
		o.count.add("calls: jti revoke failed")
		return false
	}
	o.acknowledgedAt(index)
	o.final(e, same)
	o.count.add("calls: jti revoke")
	return true
}

// revokeUnseen revokes a jti whose token is presented only afterwards.
func (b *simBearer) revokeUnseen(ctx context.Context) {
	jti := fmt.Sprintf("x%d", b.s.number())
	t := b.sign(jti)
	if t == nil || !t.issuer.record.JTI {
		return
	}
	if b.deny(ctx, revoked.JTIRevocation{Issuer: t.jwt.Issuer, JTI: jti}) {
		b.s.o.count.add("race: jti revoked before its JWT is presented")
		b.s.present(ctx, t)
	}
}

// cutOff revokes the tokens that share properties with t and were issued until a time near now.
func (b *simBearer) cutOff(ctx context.Context, t *simJWT) {
	l, o := b.s.someone(ctx, b.rng), b.s.o
	if l == nil {
		return
	}
	var sel revoked.Selector
	j := &t.jwt
	if t.issuer.remapped() {
		j = t.by(simMappings[b.rng.IntN(len(simMappings))])
	}
	switch b.rng.IntN(6) {
	case 0:
		sel.Issuer = j.Issuer
	case 1:
		sel.Subject = j.Subject
	case 2:
		sel.Session = j.Session
	case 3:
		sel.Issuer, sel.ClientID = j.Issuer, j.ClientID
	case 4:
		sel.Issuer, sel.GrantID, sel.Subject = j.Issuer, j.GrantID, j.Subject
	case 5:
		sel.ClientID, sel.Subject = j.ClientID, j.Subject
	}
	req := revoked.CutoffRequest{Selector: sel}
	// The default of IssuedBefore is the stamp of the cut-off, which is at least the newest one
	// here.
	least, most := l.n.fsm.Stamp(), revoked.TimeOf(time.Now().Add(time.Hour))
	if b.rng.IntN(3) > 0 {
		req.IssuedBefore = revoked.TimeOf(time.Now().Add(time.Duration(b.rng.Int64N(int64(12*time.Second))) - 9*time.Second))
		least, most = req.IssuedBefore, req.IssuedBefore
	}
	// A cut-off also covers tokens issued up to the issuer's clock skew later. The skew changes.
	within := func(t *simJWT, before revoked.Time, skew time.Duration) bool {
		return t.jwt.IssuedAt.Unix() <= before.Add(skew).Unix()
	}
	matches := func(t *simJWT, m revoked.ClaimMapping) bool {
		j := &t.jwt
		if t.issuer.remapped() {
			j = t.by(m)
		}
		r := j.Record()
		return sel.Matches(&r.Grant)
	}
	const longest = 5 * time.Second
	e := o.begin(func(t *simJWT) bool {
		return within(t, most, longest) &&
			slices.ContainsFunc(simMappings, func(m revoked.ClaimMapping) bool { return matches(t, m) })
	})
	res, err := l.n.RevokeMatching(ctx, l.actor("admin"), req)
	if err != nil || l.dead.Load() {
		o.count.add("calls: cut-off failed")
		return
	}
	o.acknowledgedAt(res.Index)
	o.mu.Lock()
	if most > least { // the stamp is not further ahead than two clocks that have jumped
		most = revoked.TimeOf(time.Now().Add(36 * time.Second))
	}
	skews := map[*simIssuer]time.Duration{}
	for _, i := range o.trust.issuers {
		_, confs := i.possible(e.began, o.seq.Load())
		for k, c := range confs {
			if k == 0 || c.skew < skews[i] {
				skews[i] = c.skew
			}
		}
	}
	o.finalLocked(e, func(t *simJWT) bool {
		return within(t, least, skews[t.issuer]) &&
			o.always(t.issuer, e.began, func(m revoked.ClaimMapping) bool { return matches(t, m) })
	})
	o.mu.Unlock()
	o.count.add("calls: cut-off")
	b.s.present(ctx, t)
}

// foreign makes a client that does not own a token try to revoke it. The call must revoke nothing.
func (b *simBearer) foreign(ctx context.Context, t *simJWT) {
	if t.issuer.record.OwnClients && t.jwt.ClientID == "app" || t.issuer.remapped() {
		return
	}
	l := b.s.someone(ctx, b.rng)
	if l == nil {
		return
	}
	_, err := l.n.RevokeToken(ctx, l.actor("app"), *t.presented(b.rng.IntN(2)))
	if errors.Is(err, revoked.ErrForeignToken) {
		b.s.o.count.add("calls: JWT revoke refused")
	}
	b.s.present(ctx, t)
}
