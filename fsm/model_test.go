package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm/command"
)

// A model is a simple implementation of the rules: it never drops a record and scans all of them.
type model struct {
	grants     map[string]*modelGrant
	tokens     map[string]*modelToken
	tombstones map[string][]modelTombstone
	cutoffs    []modelCutoff
	jwts       map[string]bool // JWTs that were revoked, by name
	families   map[string]bool // grants of the issuer that a revoked JWT claimed
	tombed     map[string]bool // JWTs that an administrator revoked as unknown tokens
	window     time.Duration
	skew       time.Duration
}

type modelGrant struct {
	by              string // client that registered the grant
	client, subject string
	ended           bool
	latest          revoked.Time // latest issued_at of a refresh token
	live            string       // active refresh token
}

type modelToken struct {
	grant    string
	iat, exp revoked.Time
	seen     revoked.Time // time of registration
	refresh  bool
	ended    bool // rotated, or cut off when it was registered
}

type modelTombstone struct {
	client string // "": any
	until  revoked.Time
}

type modelCutoff struct {
	client, subject string
	before, at      revoked.Time
}

func (c *modelCutoff) covers(g *modelGrant, t *modelToken) bool {
	iat := t.iat
	if t.seen <= c.at {
		iat = min(iat, t.seen) // a token that was registered by then was also issued by then
	}
	return (c.client == "" || c.client == g.client) && (c.subject == "" || c.subject == g.subject) &&
		iat.Unix() <= c.before.Unix()
}

func (m *model) cut(g *modelGrant, t *modelToken) bool {
	return slices.ContainsFunc(m.cutoffs, func(c modelCutoff) bool { return c.covers(g, t) })
}

func (m *model) active(name string, now revoked.Time) bool {
	t := m.tokens[name]
	if t == nil {
		return false
	}
	g := m.grants[t.grant]
	return !t.ended && !g.ended && !m.cut(g, t) && t.exp > now && (!t.refresh || g.live == name)
}

func (m *model) register(by string, rules uint32, r revoked.Registration, names []string, now revoked.Time) (err bool) {
	foreign := func(g *modelGrant) bool { return rules > 0 && g.by != by }
	g := m.grants[r.GrantID]
	if g != nil && (g.client != r.ClientID || r.Subject != "" && g.subject != r.Subject || foreign(g)) {
		return true
	}
	var fresh []int
	for i, n := range names {
		if t := m.tokens[n]; t == nil {
			fresh = append(fresh, i)
			spec := &r.Tokens[i]
			ahead := spec.Kind == revoked.RefreshToken && spec.IssuedAt > now.Add(m.skew)
			if spec.ExpiresAt <= now || rules > 0 && ahead {
				return true
			}
		}
	}
	for _, n := range names {
		t := m.tokens[n]
		if t == nil {
			continue
		}
		if len(fresh) > 0 && t.grant != r.GrantID || m.grants[t.grant].client != r.ClientID ||
			foreign(m.grants[t.grant]) {
			return true
		}
	}
	if len(fresh) == 0 {
		return false
	}
	if g == nil {
		g = &modelGrant{by: by, client: r.ClientID, subject: r.Subject}
		m.grants[r.GrantID] = g
	}
	bound := false
	for _, i := range fresh {
		spec := &r.Tokens[i]
		t := &modelToken{grant: r.GrantID, iat: spec.IssuedAt, seen: now, exp: spec.ExpiresAt,
			refresh: spec.Kind == revoked.RefreshToken}
		t.ended = g.ended || m.cut(g, t)
		for _, s := range m.tombstones[names[i]] {
			bound = bound || ((s.client == "" || s.client == r.ClientID) && now < s.until)
		}
		bound = bound || m.jwts[names[i]] || m.families[r.GrantID]
		if t.refresh && !t.ended && t.iat >= g.latest {
			g.latest, g.live = t.iat, names[i]
		}
		m.tokens[names[i]] = t
	}
	g.ended = g.ended || bound
	return false
}

func (m *model) revoke(client string, admin bool, name string, now revoked.Time) (foreign bool) {
	t := m.tokens[name]
	if t == nil {
		if admin {
			client = ""
		}
		m.tombstones[name] = append(m.tombstones[name], modelTombstone{client, now.Add(m.window)})
		return false
	}
	g := m.grants[t.grant]
	if g.client != client && !admin {
		return m.active(name, now)
	}
	g.ended = true
	return false
}

// The test generates histories and compares every verdict with that of the model after each step.
// At the end it compares the state with those after a replay, a crash and a restore. Most times
// stay within the windows after which the state machine may drop records.
func TestFSM_RandomHistories_MatchModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		s := m.f.Settings()
		s.LateRegistrationWindow = 10 * time.Minute
		m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
		m.trust(func(i *revoked.Issuer) { i.GrantClaim = "gid" })
		mod := &model{grants: map[string]*modelGrant{}, tokens: map[string]*modelToken{},
			tombstones: map[string][]modelTombstone{}, window: 10 * time.Minute, skew: s.MaxClockSkew,
			jwts: map[string]bool{}, families: map[string]bool{}, tombed: map[string]bool{}}
		names := []string{"t0", "t1", "t2", "t3", "t4", "t5"}
		clients := []string{"app", "other"}
		pick := func(l []string) string { return rapid.SampledFrom(l).Draw(r, "pick") }
		for step := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.IntRange(0, 10).Draw(r, "step") {
			case 0, 1, 2, 3:
				toks := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 2, rapid.ID).Draw(r, "tokens")
				reg := pair("x")
				reg.GrantID, reg.ClientID, reg.Subject = pick([]string{"g0", "g1",
					"g2"}), pick(clients), pick([]string{"alice", "bob", ""})
				reg.Tokens = nil
				for _, n := range toks {
					// Each token has one issued_at and one lifetime; t3 to t5 are refresh tokens.
					i := revoked.Time(n[1] - '0')
					spec := access(n, start.Add(time.Duration(i)*time.Minute), time.Hour)
					spec.NotBefore = 0
					if i >= 3 {
						spec = refresh(n, start.Add(time.Duration(i)*time.Minute), 2*time.Hour)
					}
					reg.Tokens = append(reg.Tokens, spec)
				}
				by := pick([]string{"issuer", "issuer2"})
				m.rules = rapid.SampledFrom([]uint32{0, command.Rules}).Draw(r, "rules")
				res := m.do(command.RegisterOp(m.by(by), reg))[0]
				if want := mod.register(by, m.rules, reg, toks, m.now); (res.Err != nil) != want {
					r.Fatalf("step %d: register %v in %s: got %v, want refused %v", step, toks, reg.GrantID, res.Err,
						want)
				}
			case 4, 5, 6:
				actor := pick([]string{"app", "other", "admin"})
				name := pick(names)
				if actor == "admin" && mod.tokens[name] == nil {
					mod.tombed[name] = true
				}
				op := command.RevokeOp(m.by(actor), digest(name), "")
				dry, noop := m.f.DryRun(op)
				_, _, before := m.f.Hashes()
				res := m.do(op)[0]
				if _, _, after := m.f.Hashes(); noop && (after != before || (dry.Err == nil) != (res.Err == nil)) {
					r.Fatalf("step %d: got a change or another result (%v, then %v), want a no-op", step, dry.Err,
						res.Err)
				}
				// A tombstone may outlive its window. The revocation of a foreign token that it ended then is
				// not refused.
				tomb := mod.tokens[name] != nil && anyTombstone(mod, mod.tokens[name].grant)
				if want := mod.revoke(actor, actor == "admin", name, m.now); (res.Err != nil) != want &&
					!(want && tomb) {
					r.Fatalf("step %d: revoke %s by %s: got %v, want refused %v", step, name, actor, res.Err, want)
				}
			case 7:
				c := modelCutoff{before: start.Add(time.Duration(rapid.IntRange(-1, 5).Draw(r,
					"minute")) * time.Minute)}
				if rapid.Bool().Draw(r, "by client") {
					c.client = pick(clients)
				} else {
					c.subject = pick([]string{"alice", "bob"})
				}
				c.before, c.at = min(c.before, m.now), m.now
				m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: c.client, Subject: c.subject},
					c.before, ""))
				mod.cutoffs = append(mod.cutoffs, c)
			case 8:
				m.later(time.Duration(rapid.IntRange(1, 12).Draw(r, "minutes")) * time.Minute)
			case 9:
				name := pick(names[:3])
				m.must(command.RevokeJWTOp(m.by("admin"), modelJWT(name), ""))
				mod.revokeJWT(name)
			case 10:
				if c := m.f.Backlog(m.now, atMost); c != nil {
					m.apply(c)
				}
			}
			for _, n := range names[:3] {
				v := m.jwtVerdict(modelJWT(n))
				_, registered, err := m.f.LookupToken(digest(n))
				if err != nil {
					r.Fatal(err)
				}
				ended := mod.jwtEnded(n, m.now, registered)
				if v == revoked.Active && ended {
					r.Fatalf("step %d: JWT %s: got active, want inactive", step, n)
				}
				// A tombstone that outlived its window may have ended the grant that the JWT claims.
				if v != revoked.Active && !ended && mod.tokens[n] == nil && modelJWT(n).IssuedAt <= m.now &&
					!anyTombstone(mod, modelJWT(n).GrantID) {
					r.Fatalf("step %d: JWT %s: got %v, want active", step, n, v)
				}
			}
			for _, n := range names {
				got := m.verdict(n) == revoked.Active
				want := mod.active(n, m.now)
				// The state machine drops only tokens that have expired. A tombstone may outlive its
				// window.
				if got && !want {
					r.Fatalf("step %d: token %s: got active, want not active", step, n)
				}
				if want && !got && len(mod.tombstones[n]) == 0 && !anyTombstone(mod, mod.tokens[n].grant) {
					r.Fatalf("step %d: token %s: got %v, want active", step, n, m.verdict(n))
				}
			}
		}
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: got %v, want none", m.fatal)
		}
		if rapid.IntRange(0, 2).Draw(r, "compare") == 0 {
			agree(t, m, rapid.IntRange(1, 9).Draw(r, "batch"))
		}
		if err := m.f.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

// modelJWT returns the JWT with that name: t0 to t2 claim the grants g0 to g2. It expires later
// than the access token that a registration creates from it.
func modelJWT(name string) *revoked.JWT {
	j := jwt(name)
	i := revoked.Time(name[1] - '0')
	j.Digests, j.JTI, j.GrantID, j.Session = []revoked.Digest{digest(name)}, "jti-"+name, "g"+name[1:], ""
	j.IssuedAt = start.Add(time.Duration(i) * time.Minute)
	j.ExpiresAt = j.IssuedAt.Add(5 * time.Hour)
	return j
}

// jwtEnded reports whether the JWT with that name must not be active. While it is registered, only
// its record, its jti and its digest are considered; the other claims are ignored.
func (m *model) jwtEnded(name string, now revoked.Time, registered bool) bool {
	j := modelJWT(name)
	if m.jwts[name] || m.tombed[name] || j.ExpiresAt <= now {
		return true
	}
	if t := m.tokens[name]; t != nil && (t.ended || m.grants[t.grant].ended || m.cut(m.grants[t.grant], t)) {
		return true
	}
	if registered {
		return false
	}
	if g := m.grants[j.GrantID]; m.families[j.GrantID] || g != nil && g.ended {
		return true
	}
	return slices.ContainsFunc(m.cutoffs, func(c modelCutoff) bool {
		return (c.client == "" || c.client == j.ClientID) && (c.subject == "" || c.subject == j.Subject) &&
			j.IssuedAt.Unix() <= c.before.Add(m.skew).Unix()
	})
}

// revokeJWT is the revocation of a JWT by an administrator. It ends the grant that the JWT claims
// and the grant in which the JWT is registered.
func (m *model) revokeJWT(name string) {
	j := modelJWT(name)
	m.jwts[name], m.families[j.GrantID] = true, true
	if g := m.grants[j.GrantID]; g != nil {
		g.ended = true
	}
	if t := m.tokens[name]; t != nil {
		m.grants[t.grant].ended = true
	}
}

// anyTombstone reports whether a token of the grant ever had a tombstone.
func anyTombstone(m *model, grant string) bool {
	for n := range m.tombstones {
		if t := m.tokens[n]; t != nil && t.grant == grant {
			return true
		}
	}
	return false
}

// agree compares a state with those after a replay, a crash with replay, and a restore. It also
// compares the state hash with that which snapshot.Read computes over all rows.
func agree(t *testing.T, m *machine, n int) {
	t.Helper()
	replayed := m.replayed(n)
	m.sameAs(replayed)
	restored := empty(t)
	backup := m.backup()
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(backup))); err != nil {
		t.Fatal(err)
	}
	m.sameAs(restored)
	crashed := m.crash()
	for i := 0; i < len(m.log); i += n {
		crashed.f.ApplyBatch(m.log[i:min(i+n, len(m.log))])
	}
	m.sameAs(crashed)
	if !bytes.Equal(crashed.backup(), backup) {
		t.Error("backup after the crash: got different bytes, want the same")
	}
	// A backup does not contain the queue, so compare the effects of the queue as time passes.
	restored.log, restored.now = append([]*raft.Log(nil), m.log...), m.now
	for _, v := range []*machine{m, restored} {
		for range 3 {
			v.later(time.Hour)
			v.drain()
		}
	}
	m.sameAs(restored)
	for _, v := range []*machine{replayed, restored, crashed} {
		if err := v.f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestExpire_MixedLifetimes_DropsOnlyExpired(t *testing.T) {
	m := newMachine(t)
	exp := map[string]revoked.Time{}
	grantExp := map[string]revoked.Time{}
	for i := range 40 {
		r := pair(fmt.Sprint(i))
		r.Tokens[0].ExpiresAt = start.Add(time.Duration(1+i*7%40) * time.Minute)
		r.Tokens[1].ExpiresAt = start.Add(time.Duration(1+i*11%90) * time.Minute)
		if i%10 == 0 {
			r.Tokens[1].ExpiresAt = 0
		}
		m.register(r)
		for j, n := range []string{"a-", "r-"} {
			name := n + fmt.Sprint(i)
			e := r.Tokens[j].ExpiresAt
			if e == 0 {
				e = revoked.MaxTime
			}
			exp[name], grantExp[r.GrantID] = e, max(grantExp[r.GrantID], e)
		}
	}
	skew := m.f.Settings().MaxClockSkew
	for range 100 {
		m.later(time.Minute)
		m.drain()
		before := m.now.Add(-skew)
		var live, grants uint64
		for name, e := range exp {
			tok, ok, err := m.f.LookupToken(digest(name))
			if err != nil {
				t.Fatal(err)
			}
			over := grantExp["g-"+name[2:]].Add(skew) <= before
			if ok == over {
				t.Fatalf("%s: got found %t, want %t", name, ok, !over)
			}
			if ok && (tok.State == revoked.Expired) != (e <= before) {
				t.Fatalf("%s: got state %v, want expired %t", name, tok.State, e <= before)
			}
			if e > before {
				live++
			}
		}
		for _, e := range grantExp {
			if e.Add(skew) > before {
				grants++
			}
		}
		if gotT, gotG := m.f.Counts(); gotT != live || gotG != grants {
			t.Fatalf("got %d tokens and %d grants, want %d and %d", gotT, gotG, live, grants)
		}
	}
	m.sameAs(m.replayed(4))
}
