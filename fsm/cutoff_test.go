package fsm_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm"
)

func TestCutoffRules(t *testing.T) {
	sel := func(s revoked.Selector) revoked.Selector { return s }
	for _, tt := range []struct {
		name   string
		sel    revoked.Selector
		before revoked.Time
		want   revoked.Verdict
	}{
		{"the subject", sel(revoked.Selector{Subject: "alice"}), 0, revoked.Dead},
		{"another subject", sel(revoked.Selector{Subject: "bob"}), 0, revoked.Active},
		{"the client", sel(revoked.Selector{ClientID: "app"}), 0, revoked.Dead},
		{"the session", sel(revoked.Selector{Session: "s-1"}), 0, revoked.Dead},
		{"the grant", sel(revoked.Selector{GrantID: "g-1"}), 0, revoked.Dead},
		{"the issuer", sel(revoked.Selector{Issuer: "https://as.example"}), 0, revoked.Dead},
		{"all that is named must match", sel(revoked.Selector{Subject: "alice", ClientID: "other"}), 0, revoked.Active},
		{"two that match", sel(revoked.Selector{Subject: "alice", ClientID: "app"}), 0, revoked.Dead},
		{"the second of the issue counts as before", sel(revoked.Selector{Subject: "alice"}), start, revoked.Dead},
		{"issued a second later", sel(revoked.Selector{Subject: "alice"}), start - 1e6, revoked.Active},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			r := pair("1")
			r.Tokens[0].IssuedAt += 999_999
			m.register(r)
			n, err := m.f.CountMatching(context.Background(), tt.sel, tt.before, m.now)
			if want := map[revoked.Verdict]int{revoked.Dead: 1}[tt.want]; err != nil || n != want {
				t.Errorf("matching: got %d, %v, want %d", n, err, want)
			}
			m.must(fsm.CutoffOp(m.by("admin"), tt.sel, tt.before, "why"))
			m.want("a-1", tt.want)
			m.want("r-1", tt.want)
			m.drain()
			m.want("a-1", tt.want)
			tok, _, _ := m.f.LookupToken(digest("a-1"))
			if dead := tok.State == revoked.Revoked; dead != (tt.want == revoked.Dead) {
				t.Errorf("after Reap: got state %v", tok.State)
			}
			if v, err := m.f.View("g-1", m.now); err != nil || (v.ByCutoff != nil) != (tt.want == revoked.Dead) {
				t.Errorf("view: got %+v, %v", v.ByCutoff, err)
			}
			m.sameAs(m.replayed(2))
		})
	}
}

func TestATokenOfAFastClockIsNotSavedFromACutoff(t *testing.T) {
	m := newMachine(t)
	ahead := pair("1")
	for i := range ahead.Tokens {
		ahead.Tokens[i].IssuedAt = m.now.Add(time.Minute)
	}
	m.register(ahead)
	m.later(2 * time.Second)
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)

	// What is registered after the cut-off is judged by its issued_at, fast clock or not.
	m.later(2 * time.Second)
	later := pair("2")
	for i := range later.Tokens {
		later.Tokens[i].IssuedAt = m.now.Add(time.Minute)
	}
	if r := m.register(later); r.Revoked {
		t.Error("issued after the cut-off: dead from the start")
	}
	m.want("a-2", revoked.Active)
	m.drain()
	m.want("a-2", revoked.Active)
	m.sameAs(m.replayed(3))
}

func TestCutoffEndsWhatIsRegisteredLater(t *testing.T) {
	m := newMachine(t)
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
	if got := m.register(pair("1")); !got.Revoked {
		t.Errorf("got %+v, want revoked", got)
	}
	m.want("a-1", revoked.Dead)
	if got := m.register(pair("1")); !got.Revoked || got.Created {
		t.Errorf("a repeat: got %+v", got)
	}
	m.later(2 * time.Second)
	r := pair("1")
	r.Tokens = []revoked.TokenRegistration{access("a-2", m.now, time.Hour)}
	if got := m.register(r); got.Revoked {
		t.Errorf("issued after the cut-off: got %+v", got)
	}
	m.want("a-2", revoked.Active)
}

func TestCutoffsOfOneSelectorMerge(t *testing.T) {
	m := newMachine(t)
	alice := revoked.Selector{Subject: "alice"}
	count := func() uint64 {
		h, err := m.f.WriteSnapshot(context.Background(), new(discard))
		if err != nil {
			t.Fatal(err)
		}
		return h.Cutoffs
	}
	for range 5 {
		m.later(time.Second)
		m.must(fsm.CutoffOp(m.by("admin"), alice, 0, ""))
	}
	if n := count(); n != 1 {
		t.Errorf("got %d cut-offs, want 1", n)
	}
	m.must(fsm.CutoffOp(m.by("admin"), alice, start-5e6, ""))
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, ""))
	if n := count(); n != 3 {
		t.Errorf("got %d cut-offs, want 3", n)
	}
	m.drain()
	m.later(9601 * time.Hour)
	m.drain()
	if n := count(); n != 0 {
		t.Errorf("after their retention: got %d cut-offs, want none", n)
	}
	m.sameAs(m.replayed(3))
}

func TestCutoffRefusals(t *testing.T) {
	m := newMachine(t)
	for _, tt := range []struct {
		name, actor string
		sel         revoked.Selector
		before      revoked.Time
		err         error
	}{
		{"an issuer", "issuer", revoked.Selector{Subject: "alice"}, 0, revoked.ErrForbidden},
		{"nothing is selected", "admin", revoked.Selector{}, 0, revoked.ErrInvalid},
		{"the future", "admin", revoked.Selector{Subject: "alice"}, start.Add(time.Minute), revoked.ErrUnprocessable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantErr(t, m.do(fsm.CutoffOp(m.by(tt.actor), tt.sel, tt.before, ""))[0].Err, tt.err)
		})
	}
}

func TestReapGoesOnWhereItStopped(t *testing.T) {
	m := newMachine(t)
	fill(m, "g-big", 0, 500)
	for i := range 30 {
		m.register(pair(fmt.Sprint(i)))
	}
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Issuer: "https://as.example"}, 0, ""))
	steps := 0
	for {
		typ, _, ok := m.f.Backlog(m.now)
		if !ok {
			break
		}
		if typ != fsm.TypeReap || steps > 1000 {
			t.Fatalf("step %d: got %s", steps, typ)
		}
		m.apply(fsm.TypeReap, &fsm.Reap{Limit: 17})
		steps++
	}
	if tokens, grants := m.f.Counts(); tokens != 0 || grants != 31 {
		t.Errorf("got %d tokens and %d grants, want 0 and 31", tokens, grants)
	}
	if steps < 20 {
		t.Errorf("got %d steps of 17 rows", steps)
	}
	m.sameAs(m.replayed(5))
}

func TestDeletedClientsTokensStayDead(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].IssuedAt = start.Add(10 * time.Minute) // the issuer's clock is ahead
	r.Tokens[0].NotBefore = 0
	m.register(r)
	op := fsm.DeleteClientOp(m.by("admin"), "app")
	m.must(op)
	m.want("a-1", revoked.Dead)
	if !m.f.ClientDeleted("app") {
		t.Error("the deletion is not remembered")
	}
	if r, settled := m.f.Settled(op); !settled || r.Err != nil {
		t.Errorf("a repeat: got %+v, settled %v", r, settled)
	}
	wantErr(t, m.do(fsm.DeleteClientOp(m.by("admin"), "ghost"))[0].Err, revoked.ErrNotFound)
	m.must(fsm.PutClientOp(m.by("admin"), confidential("app"), 0))
	m.want("a-1", revoked.Dead)
	m.later(20 * time.Minute)
	m.want("a-1", revoked.Dead)
	m.drain()
	m.want("a-1", revoked.Dead)
	fresh := pair("2")
	fresh.Tokens = []revoked.TokenRegistration{access("a-2", m.now, time.Hour)}
	if got := m.register(fresh); got.Revoked {
		t.Errorf("a token of the new client: got %+v", got)
	}
	m.want("a-2", revoked.Active)
	m.sameAs(m.replayed(2))
}

func TestAnEpochOfARecoveredClusterEndsEverything(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].IssuedAt, r.Tokens[0].NotBefore = start.Add(time.Minute), 0 // an issuer ahead
	m.register(r)
	m.apply(fsm.TypeEpoch, &fsm.Epoch{Term: 2, Node: "n", EndsBefore: int64(start), Reason: "quorum lost"})
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)
	if got := m.register(pair("2")); !got.Revoked {
		t.Errorf("issued before: got %+v", got)
	}
	m.later(2 * time.Second)
	later := pair("3")
	later.Tokens = []revoked.TokenRegistration{access("a-3", m.now, time.Hour)}
	if got := m.register(later); got.Revoked {
		t.Errorf("issued after: got %+v", got)
	}
	m.drain()
	m.want("a-3", revoked.Active)
	m.want("r-1", revoked.Dead)
	m.sameAs(m.replayed(2))
}

func TestClientRules(t *testing.T) {
	m := newMachine(t)
	admin, _ := m.f.Client("admin")
	change := func(f func(c *revoked.Client)) *revoked.Client {
		c := *admin
		f(&c)
		return &c
	}
	for _, tt := range []struct {
		name string
		op   func() *fsm.Op
		err  error
	}{
		{"the last administrator is not disabled", func() *fsm.Op {
			return fsm.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Disabled = true }), admin.Version)
		}, revoked.ErrUnprocessable},
		{"nor demoted", func() *fsm.Op {
			return fsm.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Roles = nil }), admin.Version)
		}, revoked.ErrUnprocessable},
		{"nor left without a secret", func() *fsm.Op {
			return fsm.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Secrets = nil }), admin.Version)
		}, revoked.ErrUnprocessable},
		{"nor deleted", func() *fsm.Op { return fsm.DeleteClientOp(m.by("admin"), "admin") }, revoked.ErrUnprocessable},
		{"an id that is taken", func() *fsm.Op { return fsm.PutClientOp(m.by("admin"), confidential("app"), 0) }, revoked.ErrConflict},
		{"a version that is past", func() *fsm.Op { return fsm.PutClientOp(m.by("admin"), confidential("app"), 77) }, revoked.ErrConflict},
		{"an id that is unknown", func() *fsm.Op { return fsm.PutClientOp(m.by("admin"), confidential("ghost"), 1) }, revoked.ErrNotFound},
		{"not an administrator", func() *fsm.Op { return fsm.PutClientOp(m.by("issuer"), confidential("x"), 0) }, revoked.ErrForbidden},
		{"an unknown role", func() *fsm.Op { return fsm.PutClientOp(m.by("admin"), confidential("x", "root"), 0) }, revoked.ErrInvalid},
		{"an unknown type", func() *fsm.Op {
			c := confidential("x")
			c.Type = "secret"
			return fsm.PutClientOp(m.by("admin"), c, 0)
		}, revoked.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantErr(t, m.do(tt.op())[0].Err, tt.err)
		})
	}
	got := m.must(fsm.PutClientOp(m.by("admin"), confidential("x", revoked.RoleAdmin), 0))
	if got.Client.Version != uint64(len(m.log)) || got.Client.CreatedAt != m.now {
		t.Errorf("got %+v", got.Client)
	}
	m.must(fsm.DeleteClientOp(m.by("admin"), "admin"))
	if _, ok := m.f.Client("admin"); ok {
		t.Error("the first administrator is still there")
	}
	ids := ""
	for _, c := range m.f.Clients() {
		ids += c.ID + " "
	}
	if ids != "app issuer issuer2 other rs x " {
		t.Errorf("got clients %q", ids)
	}
}

func TestSettingsRules(t *testing.T) {
	m := newMachine(t)
	s := m.f.Settings()
	s.LeaseDuration = 10 * time.Second
	if r := m.must(fsm.PutSettingsOp(m.by("admin"), s, s.Version)); r.Settings.LeaseCeiling != 0 {
		t.Errorf("an increase has no ceiling: got %v", r.Settings.LeaseCeiling)
	}
	wantErr(t, m.do(fsm.PutSettingsOp(m.by("admin"), s, s.Version))[0].Err, revoked.ErrConflict)
	s = m.f.Settings()
	s.LeaseDuration = time.Second
	m.must(fsm.PutSettingsOp(m.by("admin"), s, s.Version))
	if got := m.f.Settings(); got.LeaseDuration != time.Second || got.LeaseCeiling != 10*time.Second || got.Version != uint64(len(m.log)) {
		t.Errorf("after a decrease: got %+v", got)
	}
	m.later(2 * time.Hour)
	if got := m.f.Settings(); got.LeaseCeiling != 0 {
		t.Errorf("long after: got a ceiling of %v", got.LeaseCeiling)
	}
	s = m.f.Settings()
	s.MaxClockSkew = 0
	wantErr(t, m.do(fsm.PutSettingsOp(m.by("admin"), s, s.Version))[0].Err, revoked.ErrUnprocessable)
	wantErr(t, m.do(fsm.PutSettingsOp(m.by("issuer"), s, s.Version))[0].Err, revoked.ErrUnprocessable)
	m.sameAs(m.replayed(3))
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
