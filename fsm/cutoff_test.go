package fsm_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

func TestCutoff_Selectors_EndMatchingTokens(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sel    revoked.Selector
		before revoked.Time
		want   revoked.Verdict
	}{
		{"subject", revoked.Selector{Subject: "alice"}, 0, revoked.Dead},
		{"other subject", revoked.Selector{Subject: "bob"}, 0, revoked.Active},
		{"client", revoked.Selector{ClientID: "app"}, 0, revoked.Dead},
		{"session", revoked.Selector{Session: "s-1"}, 0, revoked.Dead},
		{"grant", revoked.Selector{GrantID: "g-1"}, 0, revoked.Dead},
		{"issuer", revoked.Selector{Issuer: "https://as.example"}, 0, revoked.Dead},
		{"subject and other client", revoked.Selector{Subject: "alice", ClientID: "other"}, 0, revoked.Active},
		{"subject and client", revoked.Selector{Subject: "alice", ClientID: "app"}, 0, revoked.Dead},
		{"same second", revoked.Selector{Subject: "alice"}, start, revoked.Dead},
		{"issued one second later", revoked.Selector{Subject: "alice"}, start - 1e6, revoked.Active},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			r := pair("1")
			r.Tokens[0].IssuedAt += 999_999
			m.register(r)
			n, err := m.f.CountMatching(context.Background(), tt.sel, tt.before, m.now)
			if want := map[revoked.Verdict]int{revoked.Dead: 1}[tt.want]; err != nil || n != want {
				t.Errorf("matching grants: got %d, %v, want %d", n, err, want)
			}
			m.must(command.CutoffOp(m.by("admin"), tt.sel, tt.before, "why"))
			m.want("a-1", tt.want)
			m.want("r-1", tt.want)
			m.drain()
			m.want("a-1", tt.want)
			tok, _, _ := m.f.LookupToken(digest("a-1"))
			if isRevoked := tok.State == revoked.Revoked; isRevoked != (tt.want == revoked.Dead) {
				t.Errorf("after Compact: got state %v, want revoked %t", tok.State, tt.want == revoked.Dead)
			}
			if v, err := m.f.View("g-1", m.now); err != nil || (v.ByCutoff != nil) != (tt.want == revoked.Dead) {
				t.Errorf("view: got cut-off %+v, %v, want one %t", v.ByCutoff, err, tt.want == revoked.Dead)
			}
			m.sameAs(m.replayed(2))
		})
	}
}

func TestCutoff_FutureIssuedAt_RevokesToken(t *testing.T) {
	m := newMachine(t)
	m.rules = 0 // the newest rules refuse such a refresh token
	ahead := pair("1")
	for i := range ahead.Tokens {
		ahead.Tokens[i].IssuedAt = m.now.Add(time.Minute)
	}
	m.register(ahead)
	m.later(2 * time.Second)
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)

	// For a token registered after the cut-off, issued_at is used, even if it is in the future.
	m.later(2 * time.Second)
	later := pair("2")
	for i := range later.Tokens {
		later.Tokens[i].IssuedAt = m.now.Add(time.Minute)
	}
	if r := m.register(later); r.Revoked {
		t.Error("token issued after the cut-off: got revoked, want active")
	}
	m.want("a-2", revoked.Active)
	m.drain()
	m.want("a-2", revoked.Active)
	m.sameAs(m.replayed(3))
}

func TestCutoff_LateRegistration_Revoked(t *testing.T) {
	m := newMachine(t)
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
	if got := m.register(pair("1")); !got.Revoked {
		t.Errorf("got %+v, want Revoked", got)
	}
	m.want("a-1", revoked.Dead)
	if got := m.register(pair("1")); !got.Revoked || got.Created {
		t.Errorf("retry: got %+v, want Revoked and not Created", got)
	}
	m.later(2 * time.Second)
	r := pair("1")
	r.Tokens = []revoked.TokenRegistration{access("a-2", m.now, time.Hour)}
	if got := m.register(r); got.Revoked {
		t.Errorf("token issued after the cut-off: got %+v, want not Revoked", got)
	}
	m.want("a-2", revoked.Active)
}

func TestCutoff_SameSelector_Merges(t *testing.T) {
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
		m.must(command.CutoffOp(m.by("admin"), alice, 0, ""))
	}
	if n := count(); n != 1 {
		t.Errorf("got %d cut-offs, want 1", n)
	}
	m.must(command.CutoffOp(m.by("admin"), alice, start-5e6, ""))
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, ""))
	if n := count(); n != 3 {
		t.Errorf("got %d cut-offs, want 3", n)
	}
	m.drain()
	m.later(9601 * time.Hour)
	m.drain()
	if n := count(); n != 0 {
		t.Errorf("cut-offs after their retention: got %d, want 0", n)
	}
	m.sameAs(m.replayed(3))
}

func TestCutoff_BadRequests_Refused(t *testing.T) {
	m := newMachine(t)
	for _, tt := range []struct {
		name, actor string
		sel         revoked.Selector
		before      revoked.Time
		err         error
	}{
		{"issuer as actor", "issuer", revoked.Selector{Subject: "alice"}, 0, revoked.ErrForbidden},
		{"zero selector", "admin", revoked.Selector{}, 0, revoked.ErrInvalid},
		{"issued_before in the future", "admin", revoked.Selector{Subject: "alice"}, start.Add(time.Minute),
			revoked.ErrUnprocessable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantErr(t, m.do(command.CutoffOp(m.by(tt.actor), tt.sel, tt.before, ""))[0].Err, tt.err)
		})
	}
}

func TestCompact_SmallLimits_Continues(t *testing.T) {
	m := newMachine(t)
	fill(m, "g-big", 0, 500)
	for i := range 30 {
		m.register(pair(fmt.Sprint(i)))
	}
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Issuer: "https://as.example"}, 0, ""))
	steps := 0
	for {
		c := m.f.Backlog(m.now, atMost)
		if c == nil {
			break
		}
		if _, ok := c.(*command.Compact); !ok || steps > 1000 {
			t.Fatalf("step %d: got %T, want *command.Compact", steps, c)
		}
		m.apply(&command.Compact{Limit: 17})
		steps++
	}
	if tokens, grants := m.f.Counts(); tokens != 0 || grants != 31 {
		t.Errorf("got %d tokens and %d grants, want 0 and 31", tokens, grants)
	}
	if steps < 20 {
		t.Errorf("got %d steps of 17 rows, want at least 20", steps)
	}
	m.sameAs(m.replayed(5))
}

func TestDeleteClient_IdReused_TokensStayRevoked(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].IssuedAt = start.Add(10 * time.Minute) // the clock of the issuer is ahead
	r.Tokens[0].NotBefore = 0
	m.register(r)
	op := command.DeleteClientOp(m.by("admin"), "app")
	m.must(op)
	m.want("a-1", revoked.Dead)
	if r, noop := m.f.DryRun(op); !noop || r.Err != nil {
		t.Errorf("retry: got %+v, no-op %t, want success and no-op", r, noop)
	}
	wantErr(t, m.do(command.DeleteClientOp(m.by("admin"), "ghost"))[0].Err, revoked.ErrNotFound)
	m.must(command.PutClientOp(m.by("admin"), confidential("app"), 0))
	m.want("a-1", revoked.Dead)
	m.later(20 * time.Minute)
	m.want("a-1", revoked.Dead)
	m.drain()
	m.want("a-1", revoked.Dead)
	fresh := pair("2")
	fresh.Tokens = []revoked.TokenRegistration{access("a-2", m.now, time.Hour)}
	if got := m.register(fresh); got.Revoked {
		t.Errorf("token of the new client: got %+v, want not Revoked", got)
	}
	m.want("a-2", revoked.Active)
	m.sameAs(m.replayed(2))
}

func TestEpoch_AfterRecovery_EndsEverything(t *testing.T) {
	m := newMachine(t)
	r := pair("1")
	r.Tokens[0].IssuedAt, r.Tokens[0].NotBefore = start.Add(time.Minute), 0 // the clock of the issuer is ahead
	m.register(r)
	m.apply(&command.Epoch{Term: 2, Node: "n", EndsBefore: int64(start), Reason: "quorum lost"})
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)
	if got := m.register(pair("2")); !got.Revoked {
		t.Errorf("token issued before: got %+v, want Revoked", got)
	}
	m.later(2 * time.Second)
	later := pair("3")
	later.Tokens = []revoked.TokenRegistration{access("a-3", m.now, time.Hour)}
	if got := m.register(later); got.Revoked {
		t.Errorf("token issued after: got %+v, want not Revoked", got)
	}
	m.drain()
	m.want("a-3", revoked.Active)
	m.want("r-1", revoked.Dead)
	m.sameAs(m.replayed(2))
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
