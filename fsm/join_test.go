package fsm_test

import (
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// joinMachine returns a machine with grants of three issuers: the unbound issuer, the unbound
// issuer2, whose grant names no issuer, and bound, whose grant belongs to https://as.example.
func joinMachine(t *testing.T) *machine {
	m := newMachine(t)
	for _, id := range []string{"bound", "bound2"} {
		c := confidential(id, revoked.RoleIssuer)
		c.Issuers = []string{"https://as.example"}
		m.must(command.PutClientOp(m.by("admin"), c, 0))
	}
	m.register(pair("1"))
	bare := revoked.Registration{GrantID: "g-0", ClientID: "app",
		Tokens: []revoked.TokenRegistration{access("a-0", start, time.Hour)}}
	m.must(command.RegisterOp(m.by("issuer2"), bare))
	m.must(command.RegisterOp(m.by("bound"), pair("b")))
	return m
}

func TestRegister_ExistingGrant_ChecksCaller(t *testing.T) {
	join := func(grant, token string) revoked.Registration {
		return revoked.Registration{GrantID: grant, ClientID: "app", Issuer: "https://as.example",
			Tokens: []revoked.TokenRegistration{access(token, start, time.Hour)}}
	}
	bare := func(grant, token string) revoked.Registration {
		r := join(grant, token)
		r.Issuer = ""
		return r
	}
	guess := func(change func(*revoked.Registration)) revoked.Registration {
		r := join("g-1", "new")
		change(&r)
		return r
	}
	for _, tt := range []struct {
		name  string
		actor string
		reg   revoked.Registration
		err   error
	}{
		{"registrant joins", "issuer", join("g-1", "new"), nil},
		{"registrant joins without an issuer", "issuer", bare("g-1", "new"), nil},
		{"registrant retries", "issuer", join("drawn", "a-1"), nil},
		{"administrator joins", "admin", join("g-1", "new"), nil},
		{"administrator retries", "admin", join("drawn", "a-0"), nil},
		{"bound issuer joins a grant of its issuer", "bound", join("g-1", "new"), nil},
		{"bound issuer joins a grant of another client with its issuer", "bound2", join("g-b", "new"), nil},
		{"bound issuer retries", "bound2", join("drawn", "a-b"), nil},
		{"bound issuer and a grant without issuer", "bound", join("g-0", "new"), revoked.ErrConflict},
		{"bound issuer and a token without issuer", "bound", join("drawn", "a-0"), revoked.ErrConflict},
		{"unbound issuer joins", "issuer2", bare("g-1", "new"), revoked.ErrConflict},
		{"unbound issuer joins a grant of a bound one", "issuer", bare("g-b", "new"), revoked.ErrConflict},
		{"unbound issuer sends a known token", "issuer2", bare("drawn", "a-1"), revoked.ErrConflict},
		{"unbound issuer sends a known refresh token", "issuer2", bare("drawn", "r-1"), revoked.ErrConflict},
		{"unbound issuer adds to a known token", "issuer2", guess(func(r *revoked.Registration) {
			r.Tokens = append(r.Tokens, access("a-1", start, time.Hour))
		}), revoked.ErrConflict},
		{"unbound issuer guesses the subject", "issuer2",
			guess(func(r *revoked.Registration) { r.Subject = "alice" }), revoked.ErrConflict},
		{"unbound issuer guesses a wrong subject", "issuer2",
			guess(func(r *revoked.Registration) { r.Subject = "bob" }), revoked.ErrConflict},
		{"unbound issuer guesses another client", "issuer2",
			guess(func(r *revoked.Registration) { r.ClientID = "other" }), revoked.ErrConflict},
		{"registrant names another subject", "issuer",
			guess(func(r *revoked.Registration) { r.Subject = "bob" }), revoked.ErrConflict},
		{"known token of another grant", "issuer", func() revoked.Registration {
			r := join("g-9", "new")
			r.Tokens = append(r.Tokens, access("a-1", start, time.Hour))
			return r
		}(), revoked.ErrConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := joinMachine(t)
			op := command.RegisterOp(m.by(tt.actor), tt.reg)
			reviewed := m.f.Review(op)
			wantErr(t, reviewed, tt.err)
			r := m.do(op)[0]
			wantErr(t, r.Err, tt.err)
			if tt.err == nil {
				return
			}
			const want = "conflict: the grant or a token is already registered with other properties or by " +
				"another caller; use another grant_id and other tokens"
			if r.Err.Error() != want || reviewed.Error() != want || r.Register.GrantID != "" || r.Register.Revoked {
				t.Errorf("got %q, %q, %+v, want the same text for all refusals: %q", r.Err, reviewed, r.Register, want)
			}
		})
	}
}

func TestRegister_FutureRefreshToken_Refused(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	skew := m.f.Settings().MaxClockSkew
	add := func(tok revoked.TokenRegistration) error {
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{tok}
		op := command.RegisterOp(m.by("issuer"), r)
		reviewed := m.f.Review(op)
		res := m.do(op)[0]
		if (reviewed == nil) != (res.Err == nil) {
			t.Errorf("review: got %v, want %v", reviewed, res.Err)
		}
		return res.Err
	}
	for _, iat := range []revoked.Time{start.Add(skew) + 1, start.Add(time.Hour), command.MaxTime - 2} {
		tok := refresh("ahead", iat, 0)
		wantErr(t, add(tok), revoked.ErrUnprocessable)
	}
	m.want("r-1", revoked.Active)
	if err := add(access("a-2", start.Add(time.Hour), time.Hour)); err != nil {
		t.Errorf("access token: got %v, want no error: a cut-off also covers it by its registration time", err)
	}
	if err := add(refresh("r-2", start.Add(skew), time.Hour)); err != nil {
		t.Errorf("refresh token within max_clock_skew: got %v, want no error", err)
	}
	m.want("r-1", revoked.Dead)
	m.sameAs(m.replayed(2))
}

func TestRegister_AfterRecovery_NeedsIssuedAt(t *testing.T) {
	m := newMachine(t)
	m.register(pair("0"))
	m.apply(&command.Epoch{Term: 2, Node: "n", EndsBefore: int64(start), Reason: "quorum lost"})
	m.later(time.Minute)
	for _, kind := range []func(string, revoked.Time, time.Duration) revoked.TokenRegistration{access, refresh} {
		tok := kind("old", start, time.Hour)
		tok.IssuedAt, tok.NotBefore = 0, 0
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{tok}
		wantErr(t, m.do(command.RegisterOp(m.by("issuer"), r))[0].Err, revoked.ErrUnprocessable)
		wantErr(t, m.f.Review(command.RegisterOp(m.by("issuer"), r)), revoked.ErrUnprocessable)
	}
	if r := m.register(pair("1")); !r.Revoked {
		t.Errorf("token issued before: got %+v, want revoked", r)
	}
	known := pair("0")
	known.Tokens[0].IssuedAt, known.Tokens[0].NotBefore = 0, 0
	if r := m.register(known); r.Created || !r.Revoked {
		t.Errorf("known token: got %+v, want known and revoked", r)
	}
	later := pair("2")
	later.Tokens = []revoked.TokenRegistration{access("a-2", m.now, time.Hour)}
	if r := m.register(later); r.Revoked {
		t.Errorf("token issued after: got %+v, want active", r)
	}
	m.later(m.f.Settings().CutoffRetention + time.Hour)
	m.drain()
	free := pair("3")
	free.Tokens = free.Tokens[:1]
	free.Tokens[0].IssuedAt, free.Tokens[0].NotBefore, free.Tokens[0].ExpiresAt = 0, 0, 0
	if r := m.register(free); r.Revoked {
		t.Errorf("after cutoff_retention: got %+v, want active", r)
	}
	m.sameAs(m.replayed(3))
}

// An entry of an older leader keeps its rules. So members of both versions apply it in the same
// way.
func TestRegister_OlderEntry_KeepsItsRules(t *testing.T) {
	m := joinMachine(t)
	m.rules = 0
	m.apply(&command.Epoch{Term: 2, Node: "n", EndsBefore: int64(start.Add(-time.Hour)), Reason: "quorum lost"})
	tok := refresh("ahead", start.Add(time.Hour), time.Hour)
	r := revoked.Registration{GrantID: "g-2", ClientID: "app", Tokens: []revoked.TokenRegistration{tok}}
	m.must(command.RegisterOp(m.by("issuer"), r))
	r.Tokens[0] = refresh("joined", start.Add(2*time.Hour), time.Hour)
	m.must(command.RegisterOp(m.by("issuer2"), r))
	m.want("ahead", revoked.Dead)
	r.Tokens[0] = access("undated", start, time.Hour)
	r.Tokens[0].IssuedAt, r.Tokens[0].NotBefore = 0, 0
	m.must(command.RegisterOp(m.by("issuer"), r))
	m.want("undated", revoked.Active)
	m.sameAs(m.replayed(2))
}
