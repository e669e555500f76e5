package fsm_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

func TestRegister_Rules_ResultOrError(t *testing.T) {
	with := func(change func(*revoked.Registration)) revoked.Registration {
		r := pair("1")
		change(&r)
		return r
	}
	tests := []struct {
		name  string
		actor string
		reg   revoked.Registration
		err   error
		want  revoked.RegisterResult
	}{
		{"retry", "issuer", pair("1"), nil, revoked.RegisterResult{GrantID: "g-1"}},
		{"retry with another grant id", "issuer",
			with(func(r *revoked.Registration) { r.GrantID = "generated" }), nil, revoked.RegisterResult{GrantID: "g-1"}},
		{"retry with other subject, session and issuer", "issuer",
			with(func(r *revoked.Registration) {
				r.GrantID, r.Subject, r.Session, r.Issuer = "generated", "bob", "s-2", ""
			}), nil, revoked.RegisterResult{GrantID: "g-1"}},
		{"retry by a client bound to another issuer", "narrow",
			with(func(r *revoked.Registration) {
				r.GrantID, r.Issuer = "generated", "https://else.example"
			}), revoked.ErrConflict, revoked.RegisterResult{}},
		{"new token without subject, session and issuer", "issuer", with(func(r *revoked.Registration) {
			r.Subject, r.Session, r.Issuer = "", "", ""
			r.Tokens = []revoked.TokenRegistration{access("a-2", start, time.Hour)}
		}), nil, revoked.RegisterResult{GrantID: "g-1", Created: true}},
		{"subject for a grant without one", "issuer",
			with(func(r *revoked.Registration) { r.GrantID = "g-0" }), revoked.ErrConflict, revoked.RegisterResult{}},
		{"known tokens of two grants", "issuer", with(func(r *revoked.Registration) {
			r.GrantID, r.Subject, r.Session, r.Issuer, r.Tokens = "g-0", "", "", "",
				[]revoked.TokenRegistration{r.Tokens[0], access("a-0", start, time.Hour)}
		}), nil, revoked.RegisterResult{GrantID: "g-1"}},
		{"known tokens of two clients", "issuer", with(func(r *revoked.Registration) {
			r.GrantID, r.Tokens = "generated", []revoked.TokenRegistration{r.Tokens[0], access("a-other", start, time.Hour)}
		}), revoked.ErrConflict, revoked.RegisterResult{}},
		{"other subject", "issuer", with(func(r *revoked.Registration) { r.Subject = "bob" }), revoked.ErrConflict,
			revoked.RegisterResult{}},
		{"other session", "issuer", with(func(r *revoked.Registration) { r.Session = "s-2" }), revoked.ErrConflict,
			revoked.RegisterResult{}},
		{"other issuer", "issuer", with(func(r *revoked.Registration) { r.Issuer = "https://x" }),
			revoked.ErrConflict, revoked.RegisterResult{}},
		{"other client", "issuer", with(func(r *revoked.Registration) { r.ClientID = "other" }), revoked.ErrConflict,
			revoked.RegisterResult{}},
		{"known token for another client", "issuer",
			with(func(r *revoked.Registration) {
				r.GrantID, r.ClientID = "g-2", "other"
			}), revoked.ErrConflict, revoked.RegisterResult{}},
		{"known and new token in another grant", "issuer", with(func(r *revoked.Registration) {
			r.GrantID = "g-2"
			r.Tokens = append(r.Tokens, access("new", start, time.Hour))
		}), revoked.ErrConflict, revoked.RegisterResult{}},
		{"new token in the grant", "issuer", with(func(r *revoked.Registration) {
			r.Scope, r.Username, r.Audience = "less", "else", nil
			r.Tokens = []revoked.TokenRegistration{access("a-2", start, time.Hour)}
		}), nil, revoked.RegisterResult{GrantID: "g-1", Created: true}},
		{"unknown client", "issuer", with(func(r *revoked.Registration) { r.ClientID, r.GrantID = "nobody", "g-9" }),
			revoked.ErrUnknownClient, revoked.RegisterResult{}},
		{"expired token", "issuer", with(func(r *revoked.Registration) {
			r.Tokens = []revoked.TokenRegistration{access("old", start.Add(-time.Hour), time.Hour)}
		}), revoked.ErrInvalid, revoked.RegisterResult{}},
		{"no tokens", "issuer", with(func(r *revoked.Registration) { r.Tokens = nil }), revoked.ErrInvalid,
			revoked.RegisterResult{}},
		{"zero digest", "issuer", with(func(r *revoked.Registration) { r.Tokens[0].Digest = revoked.Digest{} }),
			revoked.ErrInvalid, revoked.RegisterResult{}},
		{"duplicate token", "issuer", with(func(r *revoked.Registration) { r.Tokens[1].Digest = r.Tokens[0].Digest }),
			revoked.ErrInvalid, revoked.RegisterResult{}},
		{"cnf is not an object", "issuer", with(func(r *revoked.Registration) { r.Tokens[0].CNF = []byte("[]") }),
			revoked.ErrInvalid, revoked.RegisterResult{}},
		{"by an administrator", "admin", pair("2"), nil, revoked.RegisterResult{GrantID: "g-2", Created: true}},
		{"by a plain client", "app", pair("2"), revoked.ErrForbidden, revoked.RegisterResult{}},
		{"by a resource server", "rs", pair("2"), revoked.ErrForbidden, revoked.RegisterResult{}},
		{"by a client bound to another issuer", "narrow", pair("2"), revoked.ErrForbidden, revoked.RegisterResult{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			narrow := confidential("narrow", revoked.RoleIssuer)
			narrow.Issuers = []string{"https://else.example"}
			m.must(command.PutClientOp(m.by("admin"), narrow, 0))
			m.register(pair("1"))
			m.register(revoked.Registration{GrantID: "g-0", ClientID: "app",
				Tokens: []revoked.TokenRegistration{access("a-0", start, time.Hour)}})
			m.register(revoked.Registration{GrantID: "g-other", ClientID: "other",
				Tokens: []revoked.TokenRegistration{access("a-other", start, time.Hour)}})
			_, _, before := m.f.Hashes()
			r := m.do(command.RegisterOp(m.by(tt.actor), tt.reg))[0]
			wantErr(t, r.Err, tt.err)
			if tt.err != nil {
				if _, _, after := m.f.Hashes(); after != before {
					t.Error("state hash after a refusal: got a different one, want the same")
				}
				return
			}
			got := r.Register
			if got.Index != uint64(len(m.log)) {
				t.Errorf("got index %d, want %d", got.Index, len(m.log))
			}
			got.Index = 0
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRegister_AllFields_Kept(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].CNF = []byte(`{"x5t#S256":"abc"}`)
	r.Tokens[1].NotBefore = start.Add(time.Minute)
	r.Tokens[1].IssuedAt = start + 123456
	m.register(r)
	for i, reg := range r.Tokens {
		got, ok, err := m.f.LookupToken(reg.Digest)
		if err != nil || !ok {
			t.Fatalf("lookup: got found %t, %v, want the token", ok, err)
		}
		want := revoked.Token{
			Digest: reg.Digest, Kind: reg.Kind, State: revoked.Live, GrantID: "g-1", IssuedAt: reg.IssuedAt,
			ExpiresAt: reg.ExpiresAt, NotBefore: reg.NotBefore, Scope: r.Scope, Username: r.Username, Audience: r.Audience,
			JTI: reg.JTI, CNF: reg.CNF,
		}
		if reg.IssuedAt > m.now {
			want.RegisteredAt = m.now
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("token %d: got %+v, want %+v", i, got, want)
		}
	}
	g, ok, err := m.f.LookupGrant("g-1")
	if err != nil || !ok || g.Subject != "alice" || g.RegisteredBy != "issuer" || g.TokenCount != 2 ||
		g.LiveRefresh != digest("r-1") || g.LatestExpiry != start.Add(24*time.Hour) || g.CreatedIndex != 2 ||
		g.CreatedAt != start {
		t.Errorf("grant: got %+v, found %t, %v, want that of the registration", g, ok, err)
	}
}

func TestRegister_NoIssuedAt_UsesStamp(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].IssuedAt = 0
	m.register(r)
	if got, _, _ := m.f.LookupToken(digest("a-1")); got.IssuedAt != start {
		t.Errorf("got issued_at %d, want %d", got.IssuedAt, start)
	}
}

func TestRegister_SeveralRefreshTokens_NewestIsActive(t *testing.T) {
	add := func(m *machine, name string, iat revoked.Time) revoked.RegisterResult {
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{refresh(name, iat, 24*time.Hour)}
		return m.register(r)
	}
	t.Run("latest issued_at is active", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		add(m, "r-2", start.Add(time.Second))
		m.want("r-1", revoked.Dead)
		m.want("r-2", revoked.Active)
		m.want("a-1", revoked.Active)
	})
	t.Run("older token is rotated immediately", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		if got := add(m, "r-0", start.Add(-time.Second)); got.Revoked {
			t.Errorf("rotated token: got %+v, want not Revoked", got)
		}
		m.want("r-0", revoked.Dead)
		m.want("r-1", revoked.Active)
	})
	t.Run("equal issued_at", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		add(m, "r-2", start)
		m.want("r-1", revoked.Dead)
		m.want("r-2", revoked.Active)
	})
	t.Run("two in one registration", func(t *testing.T) {
		m := newMachine(t)
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{refresh("r-b", start.Add(time.Second), time.Hour),
			refresh("r-a", start, time.Hour), refresh("r-c", start.Add(time.Second), time.Hour)}
		m.register(r)
		m.want("r-a", revoked.Dead)
		m.want("r-b", revoked.Dead)
		m.want("r-c", revoked.Active)
	})
	t.Run("revocation of a rotated token", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		add(m, "r-2", start.Add(time.Second))
		if r := m.revoke("app", "r-1"); r.Err != nil {
			t.Fatal(r.Err)
		}
		m.want("r-2", revoked.Dead)
		m.want("a-1", revoked.Dead)
	})
	t.Run("older token after the latest expired", func(t *testing.T) {
		m := newMachine(t)
		r := pair("1")
		r.Tokens[0].ExpiresAt = start.Add(100 * time.Hour)
		m.register(r)
		m.later(25 * time.Hour)
		m.drain()
		add2 := pair("1")
		add2.Tokens = []revoked.TokenRegistration{refresh("r-0", start.Add(-time.Second), 90*time.Hour)}
		m.register(add2)
		m.want("r-0", revoked.Dead)
	})
}

func TestRegister_FullGrant_Refused(t *testing.T) {
	m := newMachine(t)
	fill(m, "g-1", 0, revoked.MaxGrantTokens)
	r := pair("1")
	r.Tokens = r.Tokens[:1]
	res := m.do(command.RegisterOp(m.by("issuer"), r))[0]
	wantErr(t, res.Err, revoked.ErrGrantFull)
	v, err := m.f.View("g-1", m.now)
	if err != nil || len(v.Tokens) != revoked.MaxGrantTokens || v.State != revoked.Live {
		t.Fatalf("view: got %d tokens, state %v, error %v", len(v.Tokens), v.State, err)
	}
	if r := m.revoke("app", "big-9999"); r.Err != nil {
		t.Fatal(r.Err)
	}
	for _, i := range []int{0, 63, 64, 5000, 9999} {
		m.want(fmt.Sprintf("big-%d", i), revoked.Dead)
	}
	if tokens, grants := m.f.Counts(); tokens != revoked.MaxGrantTokens-64 || grants != 0 {
		t.Errorf("before Compact: got %d tokens and %d grants, want %d and 0", tokens, grants,
			revoked.MaxGrantTokens-64)
	}
	m.drain()
	if tokens, _ := m.f.Counts(); tokens != 0 {
		t.Errorf("tokens in state live after Compact: got %d, want 0", tokens)
	}
	events, _, err := m.f.Events(0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[revoked.Digest]bool{}
	for _, e := range events {
		for _, d := range e.Digests {
			listed[d] = true
		}
	}
	if len(listed) != revoked.MaxGrantTokens {
		t.Errorf("digests in the feed: got %d, want %d", len(listed), revoked.MaxGrantTokens)
	}
	m.later(48 * time.Hour)
	m.drain()
	if _, ok, _ := m.f.LookupGrant("g-1"); ok {
		t.Error("grant after its end: got a row, want none")
	}
	if _, ok, _ := m.f.LookupToken(digest("big-7000")); ok {
		t.Error("stub after the end of its grant: got a row, want none")
	}
	m.sameAs(m.replayed(7))
}

// fill registers n access tokens in a grant. Their names are "big-" and a number, starting at from.
func fill(m *machine, grant string, from, n int) {
	m.t.Helper()
	for i := from; i < from+n; {
		var ops []*command.Op
		for len(ops) < 100 && i < from+n {
			r := pair("1")
			r.GrantID, r.Tokens = grant, nil
			for len(r.Tokens) < 10 && i < from+n {
				r.Tokens = append(r.Tokens,
					access(fmt.Sprintf("big-%d", i), start, time.Hour+time.Duration(i)*time.Second))
				i++
			}
			ops = append(ops, command.RegisterOp(m.by("issuer"), r))
		}
		for _, r := range m.do(ops...) {
			if r.Err != nil {
				m.t.Fatal(r.Err)
			}
		}
	}
}

func TestRegister_OlderTokenEnded_IsReported(t *testing.T) {
	with := func(id string, tokens ...revoked.TokenRegistration) revoked.Registration {
		r := pair("1")
		if r.GrantID = id; tokens != nil {
			r.Tokens = tokens
		}
		return r
	}
	for _, tt := range []struct {
		name string
		reg  revoked.Registration
		want bool
	}{
		{"new grant", with("g-2", access("a-2", start, time.Hour), refresh("r-2", start, time.Hour)), false},
		{"further access token", with("g-1", access("a-2", start, time.Hour)), false},
		{"retry", with("g-1"), false},
		{"older refresh token", with("g-1", refresh("r-0", start.Add(-time.Hour), 2*time.Hour)), false},
		{"newer refresh token", with("g-1", refresh("r-2", start.Add(time.Second), time.Hour)), true},
		{"tombstoned token in an existing grant", with("g-1", access("ahead", start, time.Hour)), true},
		{"tombstoned token in a new grant", with("g-2", access("ahead", start, time.Hour)), false},
	} {
		m := newMachine(t)
		m.register(pair("1"))
		m.revoke("app", "ahead")
		if got := m.must(command.RegisterOp(m.by("issuer"), tt.reg)).Ended; got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
		if got := m.must(command.RegisterOp(m.by("issuer"), tt.reg)).Ended; tt.want && !got {
			t.Errorf("%s, retried: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

// A registration for an unknown client must not reach the log: its client_id may be a token.
func TestDryRun_UnknownClient_NoOp(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.ClientID = "nobody"
	if res, noop := m.f.DryRun(command.RegisterOp(m.by("issuer"), r)); !noop ||
		!errors.Is(res.Register.Err, revoked.ErrUnknownClient) && !errors.Is(res.Err, revoked.ErrUnknownClient) {
		t.Errorf("got %+v, no-op %t, want %v and no-op", res, noop, revoked.ErrUnknownClient)
	}
	if _, noop := m.f.DryRun(command.RegisterOp(m.by("issuer"), pair("1"))); noop {
		t.Error("new registration: got a no-op, want a change")
	}
}
