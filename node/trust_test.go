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
	"revoked/node/jwks"
)

// A simAuthority is the operator of the trusted issuers. It creates, patches and deletes them and
// changes their keys, one change at a time.
type simAuthority struct {
	s   *sim
	rng *rand.Rand
	b   *simBearer
}

const (
	simIssuers        = 5
	simAuthorityThink = 3 * time.Second // average pause between two changes
)

// simShape returns the record of issuer n. The shapes repeat after simIssuers.
func simShape(n int) revoked.Issuer {
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer, i.MaxLifetime = fmt.Sprintf("as%d", n), fmt.Sprintf("https://as%d.example", n), 2*time.Minute
	switch n % simIssuers {
	case 0:
		i.GrantClaim, i.OwnClients = "gid", true
	case 1:
		i.RevokeSession = true
	case 2:
		i.JWKSURI = "https://keys.example/" + i.Name
	case 3:
		i.JTI, i.RequireAudience = false, false
	case simRemapped:
		i.RevokeSession = true
		mapBy(&i, simMappings[0])
	}
	return i
}

// simRegistering is the iss of the registered tokens. The record of this issuer never changes.
const simRegistering = "https://registered.example"

// trustRegistering creates the record of the issuer of the registered tokens.
func (a *simAuthority) trustRegistering(ctx context.Context) {
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer, i.MaxLifetime, i.ClockSkew = "registering", simRegistering, time.Minute, 0
	i.Keys = []revoked.IssuerKey{simSigners()[0].record}
	i.Keys[0].State = revoked.KeyActive
	for ctx.Err() == nil && !a.s.o.failed() {
		if l := a.node(ctx); l != nil {
			_, _, err := l.n.CreateIssuer(ctx, l.actor("admin"), i)
			if err == nil || errors.Is(err, revoked.ErrConflict) {
				return
			}
			a.note("issuer of registered tokens: %v", err)
		}
		retry.Sleep(ctx, 100*time.Millisecond)
	}
}

// denyRegistered revokes a registered grant by the jti of its access token. The denial expires long
// before the token.
func (s *sim) denyRegistered(ctx context.Context, l *simLife, g *simGrant) bool {
	return s.revokeBy(ctx, l, g, g.access, func() (res revoked.RevokeResult, err error) {
		res.Index, err = l.n.RevokeJTI(ctx, l.actor("admin"), revoked.JTIRevocation{
			Issuer: simRegistering, JTI: g.id, ExpiresAt: revoked.TimeOf(time.Now().Add(time.Second))})
		if err == nil {
			s.o.count.add("race: jti of a registered token revoked")
		}
		return res, err
	})
}

// simRemapped is the number of the issuer whose mapping changes.
const simRemapped = 4

// simMappings are the mappings of that issuer.
var simMappings = []revoked.ClaimMapping{
	{SessionClaim: "sid", GrantClaim: "gid"},
	{ClientClaim: "c2", SessionClaim: "s2", GrantClaim: "g2", OwnClients: true},
	{SessionClaim: "sid"},
}

func mapBy(i *revoked.Issuer, m revoked.ClaimMapping) {
	i.ClientClaim, i.SessionClaim, i.GrantClaim, i.OwnClients = m.ClientClaim, m.SessionClaim, m.GrantClaim, m.OwnClients
}

func (i *simIssuer) remapped() bool { return i.n%simIssuers == simRemapped }

// simIssuerNames returns the iss of all issuers that a schedule may have.
func simIssuerNames() (names []string) {
	for n := range 16 {
		names = append(names, simShape(n).Issuer)
	}
	return names
}

func (a *simAuthority) run(ctx context.Context) {
	a.trustRegistering(ctx)
	for range simIssuers {
		a.create(ctx)
	}
	for ctx.Err() == nil && !a.s.o.failed() {
		retry.Sleep(ctx, time.Duration(a.rng.ExpFloat64()*float64(simAuthorityThink)))
		i := a.issuer()
		switch n := a.rng.IntN(100); {
		case n < 18:
			a.disable(ctx, i)
		case n < 24:
			a.forAWhile(ctx, i, func(c *simConfig) { c.lifetime = time.Minute },
				func(c *simConfig) { c.lifetime = 2 * time.Minute })
		case n < 50 && i.remapped():
			mapping := simMappings[a.rng.IntN(len(simMappings))]
			a.patch(ctx, i, func(c *simConfig) { c.mapping = mapping })
			a.s.presentSome(ctx, i, a.rng)
		case n < 40:
			skew := []time.Duration{0, 2 * time.Second, 5 * time.Second}[a.rng.IntN(3)]
			a.patch(ctx, i, func(c *simConfig) { c.skew = skew })
		case n < 50:
			a.narrow(ctx, i)
		case n < 70:
			a.rotate(ctx, i)
		case n < 80:
			a.ban(ctx, i)
		case n < 95:
			a.refresh(ctx, i)
		default:
			a.remove(ctx, i)
			a.create(ctx)
		}
	}
}

// issuer returns an issuer that is not deleted.
func (a *simAuthority) issuer() *simIssuer {
	a.s.o.mu.Lock()
	defer a.s.o.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(a.s.o.trust.issuers), func(i *simIssuer) bool { return i.gone })
	return all[a.rng.IntN(len(all))]
}

// node returns a running node, or nil.
func (a *simAuthority) node(ctx context.Context) *simLife {
	return a.s.someone(ctx, a.rng)
}

func (a *simAuthority) note(format string, args ...any) {
	a.s.o.note(func() string { return "authority: " + fmt.Sprintf(format, args...) })
}

// create adds an issuer with two keys.
func (a *simAuthority) create(ctx context.Context) {
	o := a.s.o
	o.mu.Lock()
	n := len(o.trust.issuers)
	i := &simIssuer{n: n, record: simShape(n)}
	o.trust.issuers = append(o.trust.issuers, i)
	for range 2 {
		o.addKey(i)
	}
	o.mu.Unlock()
	for !a.patch(ctx, i, func(*simConfig) {}) && ctx.Err() == nil && !o.failed() {
		retry.Sleep(ctx, 100*time.Millisecond)
	}
}

// addKey adds a key that is new to the issuer, which from now on gives or publishes it.
func (o *simOracle) addKey(i *simIssuer) {
	if n := len(i.keys); n < len(simSigners()) {
		signer := simSigners()[(2*i.n+n)%len(simSigners())]
		i.keys = append(i.keys, &simKey{issuer: i, signer: signer, began: o.seq.Add(1)})
	}
}

// given returns the keys that an issuer gives or publishes, in the order of their thumbprints.
// Banned keys are included, and with retired also those that nodes have retired.
func (i *simIssuer) given(retired bool) (keys []revoked.IssuerKey) {
	for _, k := range i.keys {
		if k.gone == nil || k.banned || retired && k.gone.acked != 0 {
			keys = append(keys, k.signer.record)
			keys[len(keys)-1].State = revoked.KeyActive
		}
	}
	slices.SortFunc(keys, func(a, b revoked.IssuerKey) int {
		if a.Thumbprint < b.Thumbprint {
			return -1
		}
		return 1
	})
	return keys
}

// patch creates an issuer or replaces its record. It reports whether the change was acknowledged.
func (a *simAuthority) patch(ctx context.Context, i *simIssuer, change func(*simConfig)) bool {
	l, o := a.node(ctx), a.s.o
	if l == nil {
		return false
	}
	next := i.record
	old, err := l.n.issuer(next.Name)
	c := &simConfig{skew: next.ClockSkew, lifetime: next.MaxLifetime, mapping: next.Mapping()}
	if err == nil {
		next, c.ifVersion = *old, old.Version
		c.disabled, c.skew, c.only, c.lifetime, c.mapping = old.Disabled, old.ClockSkew, "", old.MaxLifetime, old.Mapping()
		if len(old.Algorithms) == 1 {
			c.only = old.Algorithms[0]
		}
	}
	change(c)
	was := next.MaxLifetime
	c.remaps = c.mapping != next.Mapping()
	next.Disabled, next.ClockSkew, next.Algorithms, next.MaxLifetime = c.disabled, c.skew, nil, c.lifetime
	mapBy(&next, c.mapping)
	if c.only != "" {
		next.Algorithms = []string{c.only}
	}
	o.mu.Lock()
	keys := slices.Clone(i.keys)
	if next.JWKSURI == "" {
		next.Keys = i.given(false)
	}
	// An increase affects only tokens that are issued after it: older tokens that exceed the limit
	// still do.
	tooLong := func(t *simJWT) bool { return t.issuer == i && t.lifetime() > was }
	raise, stamp := (*simEnding)(nil), l.n.fsm.Stamp()
	if c.lifetime > was {
		raise = o.beginLocked(tooLong)
	}
	c.began = o.seq.Add(1)
	i.configs = append(i.configs, c)
	o.mu.Unlock()
	put := l.n.UpdateIssuer
	if c.ifVersion == 0 {
		put = l.n.CreateIssuer
	}
	record, index, err := put(ctx, l.actor("admin"), next)
	a.note("put %s (disabled %v, clock_skew %v, only %q, max_lifetime %v, %v) at %s: %d %v", next.Name, c.disabled,
		c.skew, c.only, c.lifetime, c.mapping, l.self, index, err)
	if err != nil || l.dead.Load() {
		o.count.add("calls: issuer failed")
		if errors.Is(err, revoked.ErrNoLeader) || errors.Is(err, revoked.ErrOverloaded) { // nothing was proposed
			o.mu.Lock()
			i.configs = slices.DeleteFunc(i.configs, func(other *simConfig) bool { return other == c })
			o.mu.Unlock()
		}
		return false
	}
	o.count.add("calls: issuer")
	o.acknowledgedAt(index)
	o.mu.Lock()
	defer o.mu.Unlock()
	c.index, c.acked = index, o.seq.Add(1)
	if raise != nil {
		o.finalLocked(raise, func(t *simJWT) bool { return tooLong(t) && t.jwt.IssuedAt <= stamp })
		o.count.add("calls: issuer with a longer max_lifetime")
	}
	if c.remaps {
		o.count.add("calls: issuer with other claims")
	}
	if next.JWKSURI != "" {
		o.learn(i, record, index)
		return true
	}
	for _, k := range keys {
		switch {
		case k.gone == nil && k.known == 0:
			k.known = c.acked
		case k.gone != nil && !k.banned: // retired: it is missing from the set
			o.finalLocked(k.gone, k.signs)
		}
	}
	return true
}

// signs reports whether a token is signed by k, for the issuer of k.
func (k *simKey) signs(t *simJWT) bool { return t.key == k }

// disable disables an issuer, and enables it again.
func (a *simAuthority) disable(ctx context.Context, i *simIssuer) {
	a.forAWhile(ctx, i, func(c *simConfig) { c.disabled = true }, func(c *simConfig) { c.disabled = false })
}

// forAWhile makes a change and undoes it after up to two seconds.
func (a *simAuthority) forAWhile(ctx context.Context, i *simIssuer, change, back func(*simConfig)) {
	a.patch(ctx, i, change)
	a.s.presentSome(ctx, i, a.rng)
	retry.Sleep(ctx, time.Duration(a.rng.Int64N(int64(2*time.Second))))
	for range 8 {
		if a.patch(ctx, i, back) || ctx.Err() != nil {
			break
		}
		retry.Sleep(ctx, 100*time.Millisecond)
	}
	a.s.presentSome(ctx, i, a.rng)
}

// narrow allows only one algorithm for a while, and then all again.
func (a *simAuthority) narrow(ctx context.Context, i *simIssuer) {
	only := []string{"EdDSA", "ES256"}[a.rng.IntN(2)]
	a.forAWhile(ctx, i, func(c *simConfig) { c.only = only }, func(c *simConfig) { c.only = "" })
}

// rotate adds a key and usually withdraws the oldest one. Setting an inline key set retires the
// withdrawn key immediately. Publishing a set retires it after two fetches without the key. Usually
// rotate also revokes a token before the nodes have its key.
func (a *simAuthority) rotate(ctx context.Context, i *simIssuer) {
	o := a.s.o
	o.mu.Lock()
	o.addKey(i)
	added := i.keys[len(i.keys)-1]
	if k := i.oldest(); k != nil && a.rng.IntN(3) > 0 {
		k.gone = o.beginLocked(k.signs)
	}
	o.mu.Unlock()
	var early *simJWT
	if l := a.node(ctx); l != nil && a.rng.IntN(3) > 0 {
		early = a.b.claims(added, "")
		o.signed(early)
		a.s.revokeJWT(ctx, l, early, "admin")
	}
	if i.record.JWKSURI == "" {
		a.patch(ctx, i, func(*simConfig) {})
	} else {
		a.refresh(ctx, i)
	}
	if early != nil {
		a.s.present(ctx, early)
	}
	a.s.presentSome(ctx, i, a.rng)
}

// oldest returns the oldest key in use, or nil if it is the only one.
func (i *simIssuer) oldest() *simKey {
	var in []*simKey
	for _, k := range i.keys {
		if k.gone == nil {
			in = append(in, k)
		}
	}
	if len(in) < 2 {
		return nil
	}
	return in[0]
}

// ban bans a key. The thief may still sign with it, and the issuer may still publish it.
func (a *simAuthority) ban(ctx context.Context, i *simIssuer) {
	l, o := a.node(ctx), a.s.o
	o.mu.Lock()
	k := i.oldest()
	if k == nil || l == nil {
		o.mu.Unlock()
		return
	}
	e := o.beginLocked(k.signs)
	o.mu.Unlock()
	index, err := l.n.BanIssuerKey(ctx, l.actor("admin"), i.record.Name, k.signer.record.Thumbprint)
	a.note("ban %s of %s at %s: %d %v", k.signer.record.Thumbprint[:6], i.record.Name, l.self, index, err)
	if err != nil || l.dead.Load() {
		o.count.add("calls: issuer failed")
		return
	}
	o.acknowledgedAt(index)
	o.mu.Lock()
	k.gone, k.banned = e, true
	o.finalLocked(e, k.signs)
	o.addKey(i)
	o.mu.Unlock()
	o.count.add("calls: key ban")
	a.s.presentSome(ctx, i, a.rng)
}

// refresh makes the leader fetch.
func (a *simAuthority) refresh(ctx context.Context, i *simIssuer) {
	l, o := a.node(ctx), a.s.o
	if l == nil || i.record.JWKSURI == "" {
		return
	}
	index, changed, err := l.n.RefreshIssuer(ctx, revoked.Actor{}, i.record.Name)
	a.note("refresh %s at %s: %d %v %v", i.record.Name, l.self, index, changed, err)
	if err != nil || l.dead.Load() {
		return
	}
	o.acknowledgedAt(index)
	o.count.add("calls: key fetch")
	if record, err := l.n.issuer(i.record.Name); err == nil {
		o.mu.Lock()
		o.learn(i, record, index)
		o.mu.Unlock()
	}
}

// learn copies the states of fetched keys from a node's record, unless the record is newer than
// index, which is acknowledged. The caller holds the lock.
func (o *simOracle) learn(i *simIssuer, record *revoked.Issuer, index uint64) {
	if record.KeysVersion > index {
		return
	}
	for _, k := range i.keys {
		switch had := record.Key(k.signer.record.Thumbprint); {
		case had == nil:
		case had.State == revoked.KeyRetired && k.gone != nil:
			if k.gone.acked == 0 {
				o.count.add("race: key retired by two fetches")
			}
			o.finalLocked(k.gone, k.signs)
		case had.State == revoked.KeyActive && k.known == 0:
			k.known = o.seq.Add(1)
		}
	}
}

// remove deletes an issuer permanently.
func (a *simAuthority) remove(ctx context.Context, i *simIssuer) {
	o := a.s.o
	all := func(t *simJWT) bool { return t.issuer == i }
	o.mu.Lock()
	i.gone = true
	e := o.beginLocked(all)
	o.mu.Unlock()
	for ctx.Err() == nil && !o.failed() {
		l := a.node(ctx)
		if l == nil {
			return
		}
		index, err := l.n.DeleteIssuer(ctx, l.actor("admin"), i.record.Name)
		a.note("delete %s at %s: %d %v", i.record.Name, l.self, index, err)
		if err == nil && !l.dead.Load() {
			o.acknowledgedAt(index)
			o.final(e, all)
			o.count.add("calls: issuer deleted")
			a.s.presentSome(ctx, i, a.rng)
			return
		}
		retry.Sleep(ctx, 100*time.Millisecond)
	}
}

// fetchKeys is the server of the published sets. It is slow, and sometimes fails.
func (s *sim) fetchKeys(ctx context.Context, uri string) (jwks.Set, error) {
	delay := time.Duration(s.intn(int(200 * time.Millisecond)))
	if s.intn(8) == 0 {
		delay *= 20
	}
	retry.Sleep(ctx, delay)
	if err := ctx.Err(); err != nil || s.intn(5) == 0 {
		return jwks.Set{}, fmt.Errorf("the server of %s does not answer: %v", uri, err)
	}
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	for _, i := range s.o.trust.issuers {
		if i.record.JWKSURI == uri {
			if slices.ContainsFunc(i.keys, func(k *simKey) bool { return k.banned }) {
				s.o.count.add("race: a banned key is fetched again")
			}
			return jwks.Set{Keys: i.given(s.intn(2) == 0)}, nil
		}
	}
	return jwks.Set{}, fmt.Errorf("no set at %s", uri)
}
