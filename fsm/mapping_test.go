package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
)

// A claimed is a JWT with all claims that its issuer signed. Each version of the issuer's record
// maps these claims in its own way.
type claimed struct {
	jwt    revoked.JWT
	claims map[string]string
}

var allClaims = []string{"c1", "c2", "s1", "s2", "g1", "g2"}

// mapped returns a token of the issuer of [machine.trust], issued at iat, with lifetime life. The
// value of claim c1 is "c1-" followed by name, and so on for c2, s1, s2, g1 and g2.
func mapped(name string, iat revoked.Time, life time.Duration) *claimed {
	c := &claimed{jwt: *jwt(name), claims: map[string]string{}}
	c.jwt.IssuedAt, c.jwt.ExpiresAt = iat, iat.Add(life)
	for _, claim := range allClaims {
		c.claims[claim] = claim + "-" + name
	}
	return c
}

// read returns the token as a node reads it now.
func (m *machine) read(c *claimed) *revoked.JWT {
	i := m.f.Issuer(testIss)
	membership := func(p revoked.ClaimMapping) revoked.Membership {
		return revoked.Membership{ClientID: c.claims[p.ClientClaim], Session: c.claims[p.SessionClaim],
			GrantID: c.claims[p.GrantClaim], OwnClients: p.OwnClients, HasGrants: p.GrantClaim != ""}
	}
	j, now := c.jwt, membership(i.Mapping())
	j.ClientID, j.Session, j.GrantID = now.ClientID, now.Session, now.GrantID
	j.Earlier, j.MappingVersion = i.EarlierOf(j.IssuedAt, now, membership), i.MappingVersion
	return &j
}

func (m *machine) wantClaimed(what string, c *claimed, want revoked.Verdict) {
	m.t.Helper()
	if got := m.jwtVerdict(m.read(c)); got != want {
		m.t.Errorf("%s: JWT %s: got %v, want %v", what, c.jwt.JTI, got, want)
	}
}

// mapTo returns a change of the record to another mapping.
func mapTo(client, session, grant string, own bool) func(*revoked.Issuer) {
	return func(i *revoked.Issuer) {
		i.ClientClaim, i.SessionClaim, i.GrantClaim, i.OwnClients = client, session, grant, own
	}
}

// After a revocation by client, session or grant, the issuer's claims for them change: a claim is
// added, removed, replaced or restored. The token must stay inactive.
func TestPutIssuer_ChangedMapping_TokensStayRevoked(t *testing.T) {
	mappings := map[string]func(*revoked.Issuer){
		"other claims": mapTo("c2", "s2", "g2", true), "fewer claims": mapTo("c2", "", "", false),
		"no own clients": mapTo("c1", "s1", "g1", false), "the same": mapTo("c1", "s1", "g1", true),
	}
	type end struct {
		name   string
		before func(*revoked.Issuer)
		end    func(m *machine, c *claimed)
	}
	cut := func(sel revoked.Selector) func(*machine, *claimed) {
		return func(m *machine, _ *claimed) { m.must(command.CutoffOp(m.by("admin"), sel, 0, "")) }
	}
	all := mapTo("c1", "s1", "g1", true)
	for _, tt := range []end{
		{"cut-off by client", all, cut(revoked.Selector{ClientID: "c1-x"})},
		{"cut-off by session", all, cut(revoked.Selector{Session: "s1-x", Issuer: testIss})},
		{"cut-off by grant", all, cut(revoked.Selector{GrantID: "g1-x", Subject: "alice"})},
		{"revoked sibling", all, func(m *machine, c *claimed) {
			sibling := mapped("y", c.jwt.IssuedAt, time.Hour)
			sibling.claims["g1"] = c.claims["g1"]
			m.must(command.RevokeJWTOp(m.by("admin"), m.read(sibling), ""))
		}},
		{"revoked session", func(i *revoked.Issuer) { mapTo("c1", "s1", "", true)(i); i.RevokeSession = true },
			func(m *machine, c *claimed) {
				sibling := mapped("y", c.jwt.IssuedAt, time.Hour)
				sibling.claims["s1"] = c.claims["s1"]
				m.must(command.RevokeJWTOp(m.by("admin"), m.read(sibling), ""))
			}},
		{"revoked registered grant", all, func(m *machine, c *claimed) {
			r := pair("z")
			r.GrantID = c.claims["g1"]
			m.register(r)
			m.must(command.DeleteGrantOp(m.by("admin"), r.GrantID, ""))
		}},
		{"tombstone of its own client", mapTo("c1", "s1", "g1", true), func(m *machine, c *claimed) {
			c.claims["c1"] = "app"
			m.must(command.RevokeOp(m.by("app"), c.jwt.Digests[0], ""))
		}},
	} {
		for name, to := range mappings {
			m := newMachine(t)
			m.trust(tt.before)
			c, unrelated := mapped("x", m.now, 20*time.Hour), mapped("unrelated", m.now, 20*time.Hour)
			m.wantClaimed("before", c, revoked.Active)
			tt.end(m, c)
			m.later(time.Minute)
			m.wantClaimed(tt.name, c, revoked.Dead)
			wantErr(t, m.change(func(i *revoked.Issuer) { i.RevokeSession = false; to(i) }), nil)
			m.wantClaimed(tt.name+", "+name, c, revoked.Dead)
			m.later(time.Hour)
			m.drain()
			wantErr(t, m.change(mapTo("", "", "", false)), nil)
			m.wantClaimed(tt.name+", "+name+", none", c, revoked.Dead)
			m.wantClaimed(tt.name+", "+name+", none", unrelated, revoked.Active)
			wantErr(t, m.change(tt.before), nil)
			m.wantClaimed(tt.name+", "+name+", none, back", c, revoked.Dead)
			m.wantClaimed(tt.name+", "+name+", none, back", unrelated, revoked.Active)
			m.sameAs(m.replayed(3))
		}
	}
}

// A token belongs to its client, session and grant under both mappings. So a revocation of any of
// them ends it, even after the change. The revocation of the token itself ends its grants under
// both mappings. A token that is issued after the change has only the client, session and grant of
// the new mapping.
func TestPutIssuer_ChangedMapping_BothMappingsApply(t *testing.T) {
	m := newMachine(t)
	m.trust(mapTo("c1", "s1", "g1", false))
	old := mapped("x", m.now, 20*time.Hour)
	sibling, sameNew := mapped("y", m.now, 20*time.Hour), mapped("z", m.now, 20*time.Hour)
	sibling.claims["g1"], sameNew.claims["g2"] = old.claims["g1"], old.claims["g2"]
	stale := m.read(old)
	wantErr(t, m.change(mapTo("c2", "", "g2", false)), nil)
	m.later(time.Minute)
	fresh := mapped("new", m.now, 20*time.Hour)
	fresh.claims["g1"], fresh.claims["c1"] = old.claims["g1"], "gone"
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: "gone"}, 0, ""))
	for _, c := range []*claimed{old, sibling, sameNew, fresh} {
		m.wantClaimed("before", c, revoked.Active)
	}
	// The entry of a node that read the claims before the change would end only one of the grants.
	wantErr(t, m.revokeJWT("admin", stale), revoked.ErrConflict)
	m.wantClaimed("stale claims", old, revoked.Active)
	m.must(command.RevokeJWTOp(m.by("admin"), m.read(old), ""))
	for _, c := range []*claimed{old, sibling, sameNew} {
		m.wantClaimed("revoked", c, revoked.Dead)
	}
	m.wantClaimed("issued after the change", fresh, revoked.Active)
	agree(t, m, 3)
}

// If a client is disabled or deleted, no token that belongs to it under an earlier mapping is
// active.
func TestPutIssuer_ChangedMapping_ClientStaysDisabled(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		m := newMachine(t)
		m.trust(mapTo("c1", "", "", false))
		c := mapped("x", m.now.Add(30*time.Second), 20*time.Hour) // after the cut-off of a deletion
		c.claims["c1"] = "other"
		if deleted {
			m.must(command.DeleteClientOp(m.by("admin"), "other"))
		} else {
			next := *confidential("other")
			next.Disabled = true
			m.must(command.PutClientOp(m.by("admin"), &next, m.by("other").Version))
		}
		m.later(time.Minute)
		m.wantClaimed("before", c, revoked.Suspended)
		wantErr(t, m.change(mapTo("c2", "", "", false)), nil)
		m.wantClaimed("after", c, revoked.Suspended)
	}
}

// Without own_clients, a client loses its rights, but its earlier revocations stay in force.
func TestPutIssuer_NoOwnClients_KeepsRevocations(t *testing.T) {
	m := newMachine(t)
	m.trust(mapTo("c1", "", "", true))
	a, b := mapped("a", m.now, 20*time.Hour), mapped("b", m.now, 20*time.Hour)
	a.claims["c1"], b.claims["c1"] = "app", "app"
	wantErr(t, m.revokeJWT("app", m.read(a)), nil)
	wantErr(t, m.change(mapTo("c1", "", "", false)), nil)
	wantErr(t, m.revokeJWT("app", m.read(b)), revoked.ErrForeignToken)
	m.wantClaimed("after", a, revoked.Dead)
	m.wantClaimed("after", b, revoked.Active)
}

// A cut-off may cover tokens issued after the change, because of the earlier clock skews.
func TestPutIssuer_ChangedMapping_FutureCutoffApplies(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { mapTo("c1", "", "", false)(i); i.ClockSkew = time.Minute })
	s := m.f.Settings()
	s.MaxClockSkew = time.Minute
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: "c1-x"}, m.now.Add(time.Minute), ""))
	s = m.f.Settings()
	s.MaxClockSkew = time.Second
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	c, later := mapped("x", m.now.Add(2*time.Minute), time.Hour), mapped("x", m.now.Add(121*time.Second), time.Hour)
	wantErr(t, m.change(func(i *revoked.Issuer) { mapTo("c2", "", "", false)(i); i.ClockSkew = 0 }), nil)
	m.later(5 * time.Minute)
	m.wantClaimed("within the cut-off", c, revoked.Dead)
	m.wantClaimed("after the cut-off", later, revoked.Active)
}

// The number of mappings is limited. A mapping is dropped once every token that was seen under it
// has expired. A mapping that is set again does not count twice.
func TestPutIssuer_ManyMappings_Refused(t *testing.T) {
	m := newMachine(t)
	m.trust(mapTo("c0", "", "", false))
	first := m.now
	to := func(n int) error { return m.change(mapTo(fmt.Sprint("c", n), "", "", false)) }
	for n := 1; n <= revoked.MaxEarlierMappings; n++ {
		wantErr(t, to(n), nil)
		m.later(time.Minute)
	}
	before := *m.f.Issuer(testIss)
	// 5 s of max_clock_skew and 5 s of clock_skew after the first change, then 24 h and the skews.
	free := first.Add(10*time.Second + 24*time.Hour + 5*time.Minute + 5*time.Second)
	err := to(99)
	if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), free.Std().Format(time.RFC3339)) {
		t.Errorf("got %v, want it refused until %s", err, free.Std().Format(time.RFC3339))
	}
	if after := m.f.Issuer(testIss); after.Version != before.Version || after.ClientClaim != before.ClientClaim {
		t.Errorf("got %+v after a refused change, want %+v", after, before)
	}
	for range 3 {
		wantErr(t, to(3), nil)
		wantErr(t, to(4), nil)
	}
	wantErr(t, m.change(func(i *revoked.Issuer) { i.Disabled = true }), nil)
	wantErr(t, to(99), revoked.ErrUnprocessable)
	m.later(free.Sub(m.now) - time.Second)
	m.drain()
	wantErr(t, to(99), revoked.ErrUnprocessable)
	m.later(time.Second)
	wantErr(t, to(99), nil)
	agree(t, m, 4)
	m.later(25 * time.Hour)
	m.drain()
	if got := m.f.Issuer(testIss).Earlier; len(got) != 0 {
		t.Errorf("got %+v, want no earlier mapping once every token has expired", got)
	}
	if m.f.Issuer(testIss).MappingVersion == 0 {
		t.Error("got mapping version 0, want that of the last change")
	}
}

// With a shorter max_lifetime, earlier mappings are dropped sooner. A later increase must not make
// the tokens that they ended active again.
func TestPutIssuer_LifetimeChanges_TokensStayInactive(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { mapTo("c1", "", "", false)(i); i.Keys = issuerKeys("a", "b") })
	c := mapped("x", m.now, 20*time.Hour)
	byKey := mapped("k", m.now, 20*time.Hour)
	byKey.jwt.Thumbprint = thumb("b")
	byJTI := mapped("j", m.now, 20*time.Hour)
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: "c1-x"}, 0, ""))
	lifetime := func(d time.Duration) func(*revoked.Issuer) {
		return func(i *revoked.Issuer) { i.MaxLifetime = d }
	}
	wantErr(t, m.change(func(i *revoked.Issuer) {
		mapTo("c2", "", "", false)(i)
		i.MaxLifetime, i.Keys = time.Minute, issuerKeys("a")
	}), nil)
	m.must(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: testIss, JTI: "j"}, ""))
	m.later(10 * time.Minute)
	m.drain()
	if i := m.f.Issuer(testIss); len(i.Earlier) != 0 || i.Key(thumb("b")) != nil {
		t.Fatalf("got %+v, want the mapping and the retired key dropped", i)
	}
	for _, change := range []func(*revoked.Issuer){
		lifetime(24 * time.Hour), func(i *revoked.Issuer) { i.Keys = issuerKeys("a", "b") }, lifetime(48 * time.Hour),
		lifetime(time.Minute), lifetime(30 * time.Hour), func(i *revoked.Issuer) { i.ClockSkew = 5 * time.Minute },
		lifetime(720 * time.Hour),
	} {
		wantErr(t, m.change(change), nil)
		m.later(time.Minute)
		m.drain()
		m.wantClaimed("after an increase", c, revoked.Suspended)
		m.wantClaimed("after an increase", byJTI, revoked.Suspended)
		if v := m.jwtVerdict(m.read(byKey)); v == revoked.Active {
			t.Error("token of a key that was retired: got active")
		}
	}
}

// An issuer's clock may be ahead. So an increase affects only tokens that are issued more than the
// larger of the two skews after the increase.
func TestPutIssuer_RaisedLifetimeLowerSkew_LaterTokens(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime, i.ClockSkew = time.Hour, 5*time.Minute })
	c := mapped("x", m.now.Add(4*time.Minute), 10*time.Hour)
	m.wantClaimed("before", c, revoked.Suspended)
	m.must(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: testIss, JTI: "x"}, ""))
	wantErr(t, m.change(func(i *revoked.Issuer) { i.MaxLifetime, i.ClockSkew = 24*time.Hour, 0 }), nil)
	m.later(2 * time.Hour)
	m.drain()
	m.wantClaimed("after its denial", c, revoked.Suspended)
}

// The revocation of a token with an iat in the future lasts until the token expires.
func TestRevokeJWT_FutureIat_StaysRevoked(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
	c, long := mapped("x", m.now.Add(30*time.Minute), time.Hour), mapped("y", m.now.Add(30*time.Minute), 10*time.Hour)
	for _, c := range []*claimed{c, long} {
		m.must(command.RevokeJWTOp(m.by("admin"), m.read(c), ""))
	}
	m.later(10 * time.Minute)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.MaxLifetime = 24 * time.Hour }), nil)
	m.later(65 * time.Minute)
	m.drain()
	m.wantClaimed("longer than a token that existed then", c, revoked.Dead)
	m.later(4 * time.Hour)
	m.drain()
	m.wantClaimed("longer than max_lifetime was", long, revoked.Dead)
	if n := m.f.Denials(); n != 2 {
		t.Errorf("got %d denials, want those of the longer token only", n)
	}
}

// The tokens of a deleted issuer stay revoked, even if another issuer is created with its iss.
// Neither the new record nor a short cutoff_retention makes them active.
func TestDeleteIssuer_RecreatedLonger_StaysRevoked(t *testing.T) {
	m := newMachine(t)
	s := m.f.Settings()
	s.CutoffRetention = time.Hour
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime, i.ClockSkew = 720*time.Hour, 5*time.Minute })
	c := mapped("x", m.now, 700*time.Hour)
	ahead := mapped("y", m.now.Add(4*time.Minute), 700*time.Hour)
	m.wantClaimed("before", c, revoked.Active)
	m.wantClaimed("before", ahead, revoked.Active)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.MaxLifetime = time.Minute }), nil)
	m.must(command.DeleteIssuerOp(m.by("admin"), "as1"))
	m.later(3 * time.Hour) // no issuer exists, and the retention has ended
	m.drain()
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime, i.ClockSkew = 720*time.Hour, 0 })
	for range 4 {
		m.wantClaimed("created anew", c, revoked.Dead)
		m.wantClaimed("created anew", ahead, revoked.Dead)
		m.later(150 * time.Hour)
		m.drain()
	}
	m.later(150 * time.Hour)
	m.drain()
	j := m.read(c)
	if r := j.Record(); m.f.DecideJWT(j, m.now).Cutoff(&r.Grant, &r.Token, 0) {
		t.Error("got the cut-off of the deletion, want it dropped once every token has expired")
	}
}

// An earlier cut-off may cover tokens that were issued later than those that the deletion covers.
// It ended tokens by the claims of the deleted record; the next record may map other claims.
func TestDeleteIssuer_FutureCutoff_StaysRevoked(t *testing.T) {
	m := newMachine(t)
	s := m.f.Settings()
	s.MaxClockSkew = time.Minute
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	m.trust(mapTo("c1", "", "", false))
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: "c1-x"}, m.now.Add(time.Minute), ""))
	c := mapped("x", m.now.Add(65*time.Second), 700*time.Hour)
	later := mapped("y", m.now.Add(66*time.Second), 700*time.Hour)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.MaxLifetime = time.Minute }), nil)
	m.must(command.DeleteIssuerOp(m.by("admin"), "as1"))
	m.later(time.Hour)
	m.drain()
	m.trust(func(i *revoked.Issuer) { mapTo("c2", "", "", false)(i); i.MaxLifetime, i.ClockSkew = 720*time.Hour, 0 })
	m.wantClaimed("created anew", c, revoked.Dead)
	m.wantClaimed("issued after both cut-offs", later, revoked.Active)
}

func TestWriteSnapshot_EarlierMappings_GoldenBytes(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.trust(mapTo("c1", "s1", "g1", true))
	c := mapped("x", m.now, 20*time.Hour)
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{GrantID: "g1-x"}, 0, ""))
	wantErr(t, m.change(mapTo("c2", "", "", false)), nil)
	wantErr(t, m.change(mapTo("", "sid", "g2", false)), nil)
	golden := goldenSnapshot(t, m, "snapshot-mappings")
	if h, err := snapshot.Read(bytes.NewReader(golden), nil); err != nil || h.Commands != 3 {
		t.Errorf("head: got version %d, %v, want 3", h.Commands, err)
	}
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(golden))); err != nil {
		t.Fatal(err)
	}
	r.now = m.now
	r.wantClaimed("restored", c, revoked.Dead)
	if got := r.f.Issuer(testIss).Earlier; !slices.Equal(got, m.f.Issuer(testIss).Earlier) || len(got) != 2 {
		t.Errorf("got %+v, want the two mappings", got)
	}
	// The record expires in the same way.
	r.log = slices.Clone(m.log)
	for _, v := range []*machine{m, r} {
		v.later(25 * time.Hour)
		v.drain()
	}
	m.sameAs(r)
}

// A mappingModel records which tokens have been revoked. It never drops a record.
type mappingModel struct {
	tokens []*claimed
	ended  map[*claimed]bool
	named  map[string]bool // values that a revocation or a cut-off has named, under any mapping
}

// isNamed reports whether a revocation or a cut-off has named a client, session or grant of c.
func (m *mappingModel) isNamed(c *claimed) bool {
	return slices.ContainsFunc(allClaims, func(claim string) bool { return m.named[c.claims[claim]] })
}

// belongs reports whether c has that value in the claim.
func (c *claimed) belongs(claim, value string) bool {
	return claim != "" && value != "" && c.claims[claim] == value
}

// In random histories, a token that has ended stays inactive, however the record changes. A token
// that no operation has revoked is active.
func TestIssuer_RandomChanges_TokensStayRevoked(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		defer m.f.Close()
		m.trust(mapTo("c1", "s1", "g1", false))
		mod := &mappingModel{ended: map[*claimed]bool{}, named: map[string]bool{}}
		pick := func(what string, l ...string) string { return rapid.SampledFrom(l).Draw(r, what) }
		record := func() *revoked.Issuer { return m.f.Issuer(testIss) }
		// seen are the tokens that a node may have reported as active.
		seen := func(c *claimed) bool { return c.jwt.IssuedAt <= m.now.Add(record().ClockSkew) }
		end := func(claim, value string) {
			for _, c := range mod.tokens {
				if c.belongs(claim, value) && seen(c) {
					mod.ended[c] = true
				}
			}
			mod.named[value] = true
		}
		for step := range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch i := *record(); rapid.IntRange(0, 9).Draw(r, "step") {
			case 0, 1:
				ahead := time.Duration(rapid.IntRange(-2, 4).Draw(r, "ahead")) * time.Second
				c := mapped(fmt.Sprint(step), m.now.Add(ahead), time.Duration(rapid.IntRange(1, 40).Draw(r, "life"))*time.Hour)
				for _, claim := range allClaims {
					c.claims[claim] = claim[:1] + pick("number", "1", "2") + pick("value", "-1", "-2", "-3")
				}
				mod.tokens = append(mod.tokens, c)
			case 2, 3:
				change := mapTo(pick("client", "c1", "c2", ""), pick("session", "s1", "s2", ""), pick("grant", "g1", "g2", ""),
					rapid.Bool().Draw(r, "own"))
				revoke := rapid.Bool().Draw(r, "revoke session")
				err := m.change(func(i *revoked.Issuer) { change(i); i.RevokeSession = revoke && i.SessionClaim != "" })
				if err != nil && len(i.Earlier) < revoked.MaxEarlierMappings {
					r.Fatalf("step %d: got %v with %d earlier mappings", step, err, len(i.Earlier))
				}
			case 4:
				hours := rapid.IntRange(1, 48).Draw(r, "hours")
				skew := time.Duration(rapid.IntRange(0, 5).Draw(r, "skew")) * time.Second
				wantErr(t, m.change(func(i *revoked.Issuer) {
					i.MaxLifetime, i.ClockSkew = time.Duration(hours)*time.Hour, skew
				}), nil)
			case 5:
				v := pick("kind", "c", "s", "g") + pick("number", "1", "2") + pick("value", "-1", "-2", "-3")
				s := revoked.Selector{Issuer: testIss}
				claim := map[byte]string{'c': i.ClientClaim, 's': i.SessionClaim, 'g': i.GrantClaim}[v[0]]
				*map[byte]*string{'c': &s.ClientID, 's': &s.Session, 'g': &s.GrantID}[v[0]] = v
				m.must(command.CutoffOp(m.by("admin"), s, 0, ""))
				end(claim, v)
			case 6, 7:
				if len(mod.tokens) == 0 {
					continue
				}
				c := rapid.SampledFrom(mod.tokens).Draw(r, "token")
				m.must(command.RevokeJWTOp(m.by("admin"), m.read(c), ""))
				mod.ended[c] = true
				for _, claim := range []string{"g1", "g2"} {
					if i.GrantClaim == claim {
						end(claim, c.claims[claim])
					}
				}
				if i.GrantClaim == "" && i.RevokeSession {
					end(i.SessionClaim, c.claims[i.SessionClaim])
				}
				for _, e := range m.read(c).Earlier {
					for _, v := range []string{e.GrantID, e.Session} {
						if v != "" {
							end("", v) // v may end other tokens as well
						}
					}
				}
			case 8:
				m.later(time.Duration(rapid.IntRange(1, 3*3600).Draw(r, "seconds")) * time.Second)
			case 9:
				m.drain()
			}
			m.later(time.Second)
			for _, c := range mod.tokens {
				v := m.jwtVerdict(m.read(c))
				if v == revoked.Active && mod.ended[c] {
					r.Fatalf("step %d: JWT %s: got active, want inactive: %+v", step, c.jwt.JTI, record())
				}
				i := record()
				good := c.jwt.ExpiresAt > m.now && c.jwt.IssuedAt <= m.now.Add(i.ClockSkew) &&
					c.jwt.ExpiresAt.Sub(c.jwt.IssuedAt) <= i.LifetimeOf(c.jwt.IssuedAt)
				if v != revoked.Active && good && !mod.ended[c] && !mod.isNamed(c) {
					r.Fatalf("step %d: JWT %s: got %v, want active: %+v", step, c.jwt.JTI, v, record())
				}
			}
		}
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: got %v, want none", m.fatal)
		}
		if rapid.IntRange(0, 3).Draw(r, "compare") == 0 {
			m.sameAs(m.replayed(rapid.IntRange(1, 9).Draw(r, "batch")))
		}
	})
}
