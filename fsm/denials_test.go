package fsm_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
	"revoked/fsm/snapshot"
)

// jwt returns a token of the issuer of [machine.trust], valid for an hour from the start.
func jwt(name string) *revoked.JWT {
	return &revoked.JWT{
		Issuer: testIss, Digests: []revoked.Digest{digest("jwt-" + name)}, JTI: name, ClientID: "app", Subject: "alice",
		Session: "s-" + name, GrantID: "g-" + name, IssuedAt: start, ExpiresAt: start.Add(time.Hour),
		Audience: []string{"rs"}, Thumbprint: thumb("a"),
	}
}

// jwtVerdict returns the verdict of a node whose clock shows the stamp of the log.
func (m *machine) jwtVerdict(j *revoked.JWT) revoked.Verdict {
	m.t.Helper()
	for _, d := range j.Digests {
		r, err := lookup(m.f, d)
		if err != nil {
			m.t.Fatal(err)
		}
		if r.Found {
			v, err := m.f.Decide(&r, m.now)
			if err != nil {
				m.t.Fatal(err)
			}
			return v.Verdict
		}
	}
	in := m.f.DecideJWT(j, m.now)
	if in.Issuer == nil {
		return revoked.Unknown
	}
	if k := in.Issuer.Key(j.Thumbprint); k != nil {
		in.Key = k.State
	}
	var err error
	if in.Denied, err = m.f.IsDenied(j, in.Issuer.OwnClients); err != nil {
		m.t.Fatal(err)
	}
	r := j.Record()
	return revoked.Decide(&r, in).Verdict
}

func (m *machine) wantJWT(j *revoked.JWT, want revoked.Verdict) {
	m.t.Helper()
	if got := m.jwtVerdict(j); got != want {
		m.t.Errorf("verdict of JWT %s: got %v, want %v", j.JTI, got, want)
	}
}

func (m *machine) revokeJWT(by string, j *revoked.JWT) error {
	m.t.Helper()
	return m.do(command.RevokeJWTOp(m.by(by), j, "test"))[0].Err
}

// with returns a copy of j after a change.
func with(j *revoked.JWT, change func(*revoked.JWT)) *revoked.JWT {
	next := *j
	change(&next)
	return &next
}

func TestRevokeJWT_Actor_MustOwnToken(t *testing.T) {
	bound := confidential("bound", revoked.RoleIssuer)
	bound.Issuers = []string{testIss}
	unseen := func(j *revoked.JWT) {
		*j = revoked.JWT{Issuer: testIss, JTI: j.JTI}
	}
	for _, tt := range []struct {
		name   string
		by     string
		issuer func(*revoked.Issuer)
		token  func(*revoked.JWT)
		want   error
		ends   bool
	}{
		{"administrator", "admin", nil, nil, nil, true},
		{"administrator, by jti", "admin", nil, unseen, nil, true},
		{"C32: client of the same name at the issuer", "app", nil, nil, revoked.ErrForeignToken, false},
		{"own client", "app", func(i *revoked.Issuer) { i.OwnClients = true }, nil, nil, true},
		{"another client", "other", func(i *revoked.Issuer) { i.OwnClients = true }, nil, revoked.ErrForeignToken, false},
		{"own client by jti", "app", func(i *revoked.Issuer) { i.OwnClients = true }, unseen, revoked.ErrForbidden, false},
		{"foreign and expired", "other", nil,
			func(j *revoked.JWT) { j.IssuedAt, j.ExpiresAt = start-9e6, start }, nil, false},
		{"issuer bound to the iss, by jti", "bound", nil, unseen, nil, true},
		{"issuer bound to the iss, with the token", "bound", nil, nil, revoked.ErrForeignToken, false},
		{"C41: issuer with an empty list, by jti", "issuer", nil, unseen, revoked.ErrForbidden, false},
		{"resource server by jti", "rs", nil, unseen, revoked.ErrForbidden, false},
		{"issuer that reuses jti, by jti", "admin", func(i *revoked.Issuer) { i.JTI = false }, unseen,
			revoked.ErrUnprocessable, false},
		{"unknown issuer", "admin", nil, func(j *revoked.JWT) { j.Issuer = "https://x.example" },
			revoked.ErrUnprocessable, false},
		{"disabled issuer", "admin", func(i *revoked.Issuer) { i.Disabled = true }, nil, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.must(command.PutClientOp(m.by("admin"), bound, 0))
			m.trust(tt.issuer)
			j := jwt("1")
			if tt.token != nil {
				tt.token(j)
			}
			op := command.RevokeJWTOp(m.by(tt.by), j, "why")
			dry, noop := m.f.DryRun(op)
			wantErr(t, m.do(op)[0].Err, tt.want)
			if noop == tt.ends || noop && fmt.Sprint(dry.Err == nil) != fmt.Sprint(tt.want == nil) {
				t.Errorf("dry run: got %v, %v", dry.Err, noop)
			}
			if inactive := m.jwtVerdict(jwt("1")) == revoked.Dead; inactive != tt.ends {
				t.Errorf("got inactive %t, want %t", inactive, tt.ends)
			}
			m.wantEvent(tt.ends)
			if r, noop := m.f.DryRun(op); tt.ends && (!noop || r.Err != nil) {
				t.Errorf("retry: got %v, %v, want a no-op", r.Err, noop)
			}
			agree(t, m, 2)
		})
	}
}

// wantEvent checks whether the feed has an event for the revoked JWT with the jti 1.
func (m *machine) wantEvent(want bool) {
	m.t.Helper()
	events, _, err := m.f.Events(0, 100)
	if err != nil {
		m.t.Fatal(err)
	}
	got := false
	for _, e := range events {
		if e.Kind == revoked.EventJWT {
			got = true
			if e.JTI != "1" || e.Selector.Issuer != testIss || e.Reason != "why" || len(e.Digests) > 1 {
				m.t.Errorf("event: got %+v", e)
			}
		}
	}
	if got != want {
		m.t.Errorf("event: got %t, want %t", got, want)
	}
}

// C26: a token with either form of its signature is the same token.
func TestRevokeJWT_OtherSignature_IsRevoked(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.JTI = false })
	j := jwt("1")
	j.Digests = append(j.Digests, digest("twin"))
	twin := with(j, func(t *revoked.JWT) { t.Digests = []revoked.Digest{digest("twin"), j.Digests[0]} })
	m.wantJWT(twin, revoked.Active)
	wantErr(t, m.revokeJWT("admin", j), nil)
	m.wantJWT(j, revoked.Dead)
	m.wantJWT(twin, revoked.Dead)
	m.wantJWT(with(jwt("2"), func(t *revoked.JWT) { t.JTI = "1" }), revoked.Active) // the issuer reuses jti
	if m.changes.tokens[digest("twin")] == 0 || m.changes.tokens[digest("jwt-1")] == 0 {
		t.Error("got no change of the digests, want one")
	}
}

// JW-11: a denial stays until the token has expired according to every clock, and is then dropped.
func TestRevokeJWT_Denial_LastsUntilTokenExpiry(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   func(j *revoked.JWT) *revoked.JWT
		life time.Duration // lifetime of the token
		held time.Duration
	}{
		{"verified", func(j *revoked.JWT) *revoked.JWT { return j }, time.Hour, time.Hour + 10*time.Second},
		{"jti without an expiry", func(*revoked.JWT) *revoked.JWT { return &revoked.JWT{Issuer: testIss, JTI: "1"} },
			24 * time.Hour, 24*time.Hour + 10*time.Second},
		{"jti with an expiry", func(j *revoked.JWT) *revoked.JWT {
			return &revoked.JWT{Issuer: testIss, JTI: "1", ExpiresAt: j.ExpiresAt}
		}, time.Hour, time.Hour + 10*time.Second},
		{"jti with an expiry that no active token has", func(*revoked.JWT) *revoked.JWT {
			return &revoked.JWT{Issuer: testIss, JTI: "1", ExpiresAt: start.Add(1e6 * time.Hour)}
		}, 24 * time.Hour, 24*time.Hour + 10*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(nil)
			j := jwt("1")
			j.ExpiresAt = start.Add(tt.life)
			wantErr(t, m.revokeJWT("admin", tt.by(j)), nil)
			denied := func() bool {
				got, err := m.f.IsDenied(j, false)
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			m.later(tt.held - time.Second)
			m.drain()
			if !denied() {
				t.Error("before its end: got no denial, want one")
			}
			m.later(7 * time.Minute)
			m.drain()
			if denied() {
				t.Error("after its end: got a denial, want none")
			}
			m.sameAs(m.replayed(3))
		})
	}
}

// C35: the issuer may keep refreshing a session. So a grant or a session stays denied.
func TestRevokeJWT_GrantOrSession_EndsLaterTokens(t *testing.T) {
	later := func(m *machine, j *revoked.JWT) *revoked.JWT {
		return with(j, func(j *revoked.JWT) {
			j.JTI, j.Digests = "later", []revoked.Digest{digest("later")}
			j.IssuedAt, j.ExpiresAt = m.now, m.now.Add(time.Hour)
		})
	}
	for _, tt := range []struct {
		name           string
		issuer         func(*revoked.Issuer)
		grant, session bool // whether a grant or a session is revoked
	}{
		{"neither", nil, false, false},
		{"grant claim", func(i *revoked.Issuer) { i.GrantClaim = "gid" }, true, false},
		{"session", func(i *revoked.Issuer) { i.RevokeSession = true }, false, true},
		{"grant claim and session", func(i *revoked.Issuer) { i.GrantClaim, i.RevokeSession = "gid", true }, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(tt.issuer)
			foreign := pair("2") // a grant of another issuer with the same id
			foreign.Issuer = "https://x.example"
			m.register(pair("1"))
			m.register(foreign)
			one, two := jwt("1"), jwt("2")
			m.later(2 * time.Hour) // both have expired
			for _, j := range []*revoked.JWT{one, two} {
				m.wantJWT(j, revoked.Dead)
				wantErr(t, m.revokeJWT("admin", j), nil)
			}
			if inactive := m.verdict("r-1") == revoked.Dead; inactive != tt.grant {
				t.Errorf("refresh token of the registered grant: got inactive %t, want %t", inactive, tt.grant)
			}
			m.want("r-2", revoked.Active)
			for range 5 {
				m.later(1900 * time.Hour)
				m.drain()
				byGrant := later(m, with(one, func(j *revoked.JWT) { j.Session = "x" }))
				bySession := later(m, with(one, func(j *revoked.JWT) { j.GrantID = "x" }))
				if inactive := m.jwtVerdict(byGrant) == revoked.Dead; inactive != tt.grant {
					t.Errorf("later token of the grant: got inactive %t, want %t", inactive, tt.grant)
				}
				if inactive := m.jwtVerdict(bySession) == revoked.Dead; inactive != tt.session {
					t.Errorf("later token of the session: got inactive %t, want %t", inactive, tt.session)
				}
			}
			m.wantJWT(later(m, jwt("3")), revoked.Active)
			m.sameAs(m.replayed(4))
		})
	}
}

// The revocation of a registered grant also revokes the JWTs of its issuer that claim it.
func TestRevoke_RegisteredGrant_EndsItsJWTs(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.GrantClaim = "gid" })
	foreign := pair("2")
	foreign.Issuer = ""
	m.register(pair("1"))
	m.register(foreign)
	m.wantJWT(jwt("1"), revoked.Active)
	m.revoke("app", "r-1")
	m.revoke("app", "r-2")
	m.wantJWT(jwt("1"), revoked.Dead)
	m.wantJWT(jwt("2"), revoked.Active)
	m.later(5000 * time.Hour)
	m.drain()
	fresh := with(jwt("1"), func(j *revoked.JWT) { j.IssuedAt, j.ExpiresAt = m.now, m.now.Add(time.Hour) })
	m.wantJWT(fresh, revoked.Dead)

	// The same holds if the issuer gets its grant claim after the revocation of the grant.
	m = newMachine(t)
	m.trust(nil)
	m.register(pair("1"))
	m.revoke("app", "r-1")
	wantErr(t, m.change(func(i *revoked.Issuer) { i.GrantClaim = "gid" }), nil)
	m.wantJWT(jwt("1"), revoked.Dead)
}

// C28: a registration may name an earlier expiry than the JWT. Then its rows are removed before the
// JWT expires.
func TestExpire_RegisteredJWT_StaysInactive(t *testing.T) {
	life := 23 * time.Hour
	reg := func(name string) revoked.Registration {
		r := pair(name)
		r.Tokens = []revoked.TokenRegistration{access("jwt-"+name, start, time.Minute)}
		r.Tokens[0].JTI = name
		return r
	}
	noJTI := func(r *revoked.Registration) { r.Tokens[0].JTI = "" }
	for _, tt := range []struct {
		name   string
		change func(*revoked.Registration)
		end    func(m *machine, r revoked.Registration)
	}{
		{"revoked", func(*revoked.Registration) {}, func(m *machine, r revoked.Registration) {
			m.register(r)
			m.revoke("app", "jwt-1")
		}},
		{"revoked, without a jti and an issuer", func(r *revoked.Registration) { noJTI(r); r.Issuer = "" },
			func(m *machine, r revoked.Registration) {
				m.register(r)
				m.revoke("app", "jwt-1")
			}},
		{"cut off", func(*revoked.Registration) {}, func(m *machine, r revoked.Registration) {
			r.Session = "s-9" // a cut-off that does not cover the claims of the JWT
			m.register(r)
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Session: "s-9"}, 0, ""))
		}},
		{"cut off, without a jti", noJTI, func(m *machine, r revoked.Registration) {
			r.Session = "s-9"
			m.register(r)
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Session: "s-9"}, 0, ""))
		}},
		{"registered after its revocation", noJTI, func(m *machine, r revoked.Registration) {
			m.revoke("app", "jwt-1")
			m.register(r)
		}},
		{"registered in a revoked grant", noJTI, func(m *machine, r revoked.Registration) {
			other := pair("x")
			other.GrantID, other.Tokens = r.GrantID, other.Tokens[:1]
			m.register(other)
			m.revoke("app", "a-x")
			m.register(r)
		}},
		{"one of many tokens", noJTI, func(m *machine, r revoked.Registration) {
			fill(m, r.GrantID, 0, 70)
			m.register(r)
			m.revoke("app", "jwt-1")
		}},
		{"cut off among many tokens", noJTI, func(m *machine, r revoked.Registration) {
			fill(m, r.GrantID, 0, 70)
			m.register(r)
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{GrantID: r.GrantID}, 0, ""))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(nil)
			r := reg("1")
			tt.change(&r)
			tt.end(m, r)
			j := jwt("1")
			j.ExpiresAt = j.IssuedAt.Add(life)
			j.GrantID, j.Session = "", ""
			for range 22 {
				m.wantJWT(j, revoked.Dead)
				m.later(time.Hour)
				m.drain()
			}
			m.wantJWT(j, revoked.Dead)
			m.sameAs(m.replayed(3))
		})
	}
}

// A cut-off outlives every JWT that it covers, even if cutoff_retention is shorter.
func TestExpireCutoff_ShortRetention_OutlivesJWTs(t *testing.T) {
	m := newMachine(t)
	m.trust(nil)
	s := m.f.Settings()
	s.CutoffRetention, s.LateRegistrationWindow = time.Hour, time.Minute
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	j := with(jwt("1"), func(j *revoked.JWT) { j.ExpiresAt = start.Add(24 * time.Hour) })
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
	for range 23 {
		m.later(time.Hour)
		m.drain()
		m.wantJWT(j, revoked.Dead)
	}
	m.later(3 * time.Hour)
	m.drain()
	fresh := with(j, func(j *revoked.JWT) { j.IssuedAt = start }) // as if it were still active
	if got := m.f.DecideJWT(fresh, m.now); got.Cutoff(&revoked.Grant{Subject: "alice"}, &revoked.Token{}, 0) {
		t.Error("after every token: got the cut-off, want it dropped")
	}
}

// C27: for a JWT, the cut-offs of a restore and of a deleted client consider only iat.
func TestCutoff_Whole_CoversJWTsByIssuedAt(t *testing.T) {
	at := func(m *machine, iat revoked.Time) *revoked.JWT {
		return with(jwt("1"), func(j *revoked.JWT) { j.IssuedAt, j.ExpiresAt = iat, iat.Add(10*time.Hour) })
	}
	for name, cut := range map[string]func(m *machine){
		"recovery": func(m *machine) { m.apply(&command.Epoch{Term: 2, Node: "n", EndsBefore: int64(m.now)}) },
		"client deleted, its id used again": func(m *machine) {
			m.must(command.DeleteClientOp(m.by("admin"), "app"))
			m.must(command.PutClientOp(m.by("admin"), confidential("app"), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(nil)
			m.later(time.Hour)
			before := m.now
			cut(m)
			m.later(time.Minute)
			m.wantJWT(at(m, start), revoked.Dead)
			m.wantJWT(at(m, before), revoked.Dead)
			m.wantJWT(at(m, before.Add(5*time.Second)), revoked.Dead) // C30
			m.wantJWT(at(m, before.Add(6*time.Second)), revoked.Active)
		})
	}
}

// C39: the record of a deleted client is kept until cutoff_retention ends.
func TestDeleteClient_JWTsOfClient_StayInactive(t *testing.T) {
	m := newMachine(t)
	m.trust(nil)
	m.must(command.DeleteClientOp(m.by("admin"), "app"))
	fresh := func() *revoked.JWT {
		return with(jwt("1"), func(j *revoked.JWT) { j.IssuedAt, j.ExpiresAt = m.now, m.now.Add(time.Hour) })
	}
	m.later(time.Hour)
	m.wantJWT(fresh(), revoked.Suspended)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.RefuseUnknownClients = true }), nil)
	m.later(10000 * time.Hour)
	m.drain()
	m.wantJWT(fresh(), revoked.Suspended)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.RefuseUnknownClients = false }), nil)
	m.wantJWT(fresh(), revoked.Active)
}

// A token that was revoked before it could be verified stays revoked, for the clients of its
// tombstone.
func TestTombstone_UnverifiedJWT_RevokesIt(t *testing.T) {
	for _, tt := range []struct {
		name, by string
		own      bool
		inactive bool
	}{
		{"by an administrator", "admin", false, true},
		{"C32: by a client of the same name at the issuer", "app", false, false},
		{"by the client", "app", true, true},
		{"by another client", "other", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(func(i *revoked.Issuer) { i.OwnClients = tt.own })
			j := with(jwt("1"), func(j *revoked.JWT) { j.ExpiresAt = start.Add(24 * time.Hour) })
			if r := m.revoke(tt.by, "jwt-1"); r.Err != nil || !r.Unknown {
				t.Fatalf("got %+v, want a tombstone", r)
			}
			for range 23 {
				if inactive := m.jwtVerdict(j) == revoked.Dead; inactive != tt.inactive {
					t.Fatalf("got inactive %t, want %t", inactive, tt.inactive)
				}
				m.later(time.Hour)
				m.drain()
			}
		})
	}
	// Of two bindings, that of the administrator applies.
	m := newMachine(t)
	m.trust(nil)
	m.revoke("app", "jwt-1")
	m.revoke("admin", "jwt-1")
	m.wantJWT(jwt("1"), revoked.Dead)
}

// A registration takes precedence over the claims, even if it commits between the lookup and the
// entry.
func TestRevokeJWT_Registered_RecordTakesPrecedence(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.OwnClients = true })
	r := pair("1")
	r.ClientID, r.Tokens = "other", []revoked.TokenRegistration{access("jwt-1", start, time.Hour)}
	m.register(r)
	wantErr(t, m.revokeJWT("app", jwt("1")), revoked.ErrForeignToken) // the claims name app
	m.want("jwt-1", revoked.Active)
	wantErr(t, m.revokeJWT("other", jwt("1")), nil)
	m.want("jwt-1", revoked.Dead)
}

// The registration of a revoked JWT must not make it active. The denial of a jti also revokes the
// tokens that are already registered.
func TestRegister_DeniedJWT_IsRevoked(t *testing.T) {
	reg := func(iss string) revoked.Registration {
		r := pair("1")
		r.Issuer, r.Tokens = iss, []revoked.TokenRegistration{access("jwt-1", start, time.Hour)}
		r.Tokens[0].JTI = "1"
		return r
	}
	jti := &revoked.JWT{Issuer: testIss, JTI: "1"}
	other := with(jwt("1"), func(j *revoked.JWT) { j.JTI, j.Digests = "x", []revoked.Digest{digest("x")} })
	byDigest := with(other, func(j *revoked.JWT) { j.Digests = append(j.Digests, digest("jwt-1")) })
	for _, tt := range []struct {
		name, iss string
		revoke    *revoked.JWT
		inactive  bool
	}{
		{"jti", testIss, jti, true},
		{"jti of another issuer", "https://x.example", jti, false},
		{"digest", "", with(byDigest, func(j *revoked.JWT) { j.GrantID = "" }), true},
		{"grant", testIss, other, true},
		{"grant of another issuer", "https://x.example", other, false},
	} {
		for _, before := range []bool{false, true} {
			m := newMachine(t)
			m.trust(func(i *revoked.Issuer) { i.GrantClaim = "gid" })
			if before {
				m.register(reg(tt.iss))
				wantErr(t, m.revokeJWT("admin", tt.revoke), nil)
			} else {
				wantErr(t, m.revokeJWT("admin", tt.revoke), nil)
				if r := m.register(reg(tt.iss)); r.Revoked != tt.inactive {
					t.Errorf("%s: got state revoked %t, want %t", tt.name, r.Revoked, tt.inactive)
				}
			}
			want := tt.inactive
			if inactive := m.verdict("jwt-1") == revoked.Dead; inactive != want {
				t.Errorf("%s, registered before %t: got inactive %t, want %t", tt.name, before, inactive, want)
			}
			if r := m.register(reg(tt.iss)); r.Revoked != want {
				t.Errorf("%s, repeated registration: got revoked %t, want %t", tt.name, r.Revoked, want)
			}
			if err := m.revoke("other", "jwt-1").Err; (err == nil) != want {
				t.Errorf("%s: foreign revocation: got %v, want success %t", tt.name, err, want)
			}
			m.sameAs(m.replayed(2))
		}
	}
}

// One client cannot fill the state with denials. Its quota limits neither the denials of other
// clients nor the revocation of registered tokens. A retry always succeeds.
func TestRevokeJWT_Quota_PerClient(t *testing.T) {
	const quota = 20
	m := newMachine(t)
	m.f.SetDenialQuota(quota)
	bound := confidential("bound", revoked.RoleIssuer)
	bound.Issuers = []string{testIss}
	m.must(command.PutClientOp(m.by("admin"), bound, 0))
	m.trust(func(i *revoked.Issuer) { i.OwnClients = true })
	unseen := func(i int) *revoked.JWT { return &revoked.JWT{Issuer: testIss, JTI: fmt.Sprint("unseen-", i)} }
	for i := range quota {
		if err := m.revokeJWT("bound", unseen(i)); err != nil {
			t.Fatalf("jti %d within the quota: got %v, want success", i, err)
		}
	}
	wantErr(t, m.revokeJWT("bound", unseen(quota)), revoked.ErrQuota)
	if r, noop := m.f.DryRun(command.RevokeJWTOp(m.by("bound"), unseen(quota), "")); noop && r.Err == nil {
		t.Error("dry run over the quota: got a success that changes nothing, want ErrQuota")
	}
	if err := m.revokeJWT("bound", unseen(0)); err != nil {
		t.Errorf("retry: got %v, want success", err)
	}
	used := 0
	for err := error(nil); err == nil; used++ { // each token has a denial of its digest and one of its jti
		if used > quota {
			t.Fatal("own tokens: got no end of the quota")
		}
		err = m.revokeJWT("app", jwt(fmt.Sprint("own-", used)))
		if want := err == nil; (m.jwtVerdict(jwt(fmt.Sprint("own-", used))) == revoked.Dead) != want {
			t.Errorf("own token %d: got error %v with another verdict", used, err)
		}
	}
	wantErr(t, m.revokeJWT("app", jwt("own-more")), revoked.ErrQuota)
	m.wantJWT(jwt("own-more"), revoked.Active)
	m.register(pair("1"))
	if r := m.revoke("app", "a-1"); r.Err != nil {
		t.Errorf("registered token: got %v, want success", r.Err)
	}
	if err := m.revokeJWT("admin", jwt("own-more")); err != nil {
		t.Errorf("administrator: got %v, want success", err)
	}
	m.wantJWT(jwt("own-more"), revoked.Dead)
	m.wantDenials()
	again := m.crash()
	again.f.SetDenialQuota(quota)
	for _, l := range m.log {
		again.f.Apply(l)
	}
	wantErr(t, again.revokeJWT("bound", unseen(quota)), revoked.ErrQuota)
	m.later(49 * time.Hour) // after the expiry of the longest token
	m.drain()
	m.wantDenials()
	if err := m.revokeJWT("bound", unseen(quota)); err != nil {
		t.Errorf("after the expiry: got %v, want success", err)
	}
	m.wantDenials()
}

// wantDenials compares the count of denials with the rows of the state.
func (m *machine) wantDenials() {
	m.t.Helper()
	var found uint64
	_, err := snapshot.Read(bytes.NewReader(m.backup()), func(key, _ []byte) error {
		if key[0] == rows.FamilyDenial {
			found++
		}
		return nil
	})
	if got := m.f.Denials(); err != nil || got != found {
		m.t.Errorf("denials: got %d, %v, want the %d rows of the state", got, err, found)
	}
}

// Expire removes every denial, whatever created it, and updates the counts. Only the stamps of the
// log decide when.
func TestExpire_Denials_AllRemoved(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.OwnClients, i.GrantClaim = true, "gid" })
	const tokens = 3000
	var ops []*command.Op
	for i := range tokens {
		j := jwt(fmt.Sprint("many-", i))
		switch i % 3 {
		case 0: // without an expiry
			j = &revoked.JWT{Issuer: testIss, JTI: j.JTI}
		case 1: // with denials of digest, jti and grant
			j.ExpiresAt = start.Add(time.Duration(i) * time.Second)
		}
		ops = append(ops, command.RevokeJWTOp(m.by("admin"), j, ""))
	}
	m.do(ops...)
	m.wantDenials()
	if got := m.f.Denials(); got < 2*tokens {
		t.Fatalf("got %d denials, want at least %d", got, 2*tokens)
	}
	for _, after := range []time.Duration{time.Hour, 25 * time.Hour, 10_000 * time.Hour} {
		m.later(after)
		m.drain()
		m.wantDenials()
	}
	if got := m.f.Denials(); got != 0 {
		t.Errorf("after the expiry: got %d denials, want none", got)
	}
	agree(t, m, 7)
}

// An Expire drops no row that is due after its stamp. A leader's clock may be far ahead while the
// token is still active on the other nodes.
func TestExpire_AheadOfStamp_KeepsDenials(t *testing.T) {
	m := newMachine(t)
	m.trust(nil)
	j := with(jwt("1"), func(j *revoked.JWT) { j.ExpiresAt = m.now.Add(time.Minute) })
	wantErr(t, m.revokeJWT("admin", j), nil)
	m.apply(&command.Expire{Stamp: int64(m.now), Before: int64(m.now.Add(time.Hour)), Limit: 1000})
	m.wantJWT(j, revoked.Dead)
}
