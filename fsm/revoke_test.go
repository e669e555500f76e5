package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

func TestRevoke_RefreshToken_EndsBothTokens(t *testing.T) {
	m := newMachine(t)
	got := m.register(pair("1"))
	if !got.Created || got.Revoked || got.GrantID != "g-1" {
		t.Fatalf("register: got %+v, want a created grant g-1", got)
	}
	m.want("a-1", revoked.Active)
	m.want("r-1", revoked.Active)
	if r := m.revoke("app", "r-1"); r.Err != nil || r.Index != 3 {
		t.Fatalf("revoke: got %+v, want success at index 3", r)
	}
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)
	if m.changes.grants["g-1"] == 0 || m.changes.tokens[digest("a-1")] == 0 {
		t.Errorf("Changes: got grants %v and tokens %v, want g-1 and a-1", m.changes.grants, m.changes.tokens)
	}
	m.sameAs(m.replayed(2))
	if got := fmt.Sprint(m.fatal); got != "[]" {
		t.Errorf("fatal: got %s, want none", got)
	}
}

func TestRevoke_Rules_VerdictAndError(t *testing.T) {
	tests := []struct {
		name   string
		before func(m *machine)
		actor  string
		token  string
		err    error
		access revoked.Verdict // verdict of a-1 afterwards
	}{
		{"access token by its client", nil, "app", "a-1", nil, revoked.Dead},
		{"refresh token by its client", nil, "app", "r-1", nil, revoked.Dead},
		{"administrator", nil, "admin", "a-1", nil, revoked.Dead},
		{"other client", nil, "other", "a-1", revoked.ErrForeignToken, revoked.Active},
		{"revoked grant by another client", func(m *machine) { m.revoke("app", "a-1") }, "other", "a-1", nil,
			revoked.Dead},
		{"cut-off token by another client", func(m *machine) {
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
		}, "other", "a-1", nil, revoked.Dead},
		{"rotated token by another client", func(m *machine) {
			r := pair("1")
			r.Tokens = []revoked.TokenRegistration{refresh("r-2", start.Add(time.Second), time.Hour)}
			m.register(r)
		}, "other", "r-1", nil, revoked.Active},
		{"expired token by its client", func(m *machine) {
			r := pair("1")
			r.Tokens = []revoked.TokenRegistration{access("short", start, time.Minute)}
			m.register(r)
			m.later(10 * time.Minute)
			m.drain()
		}, "app", "short", nil, revoked.Dead},
		{"unknown token", nil, "app", "unknown", nil, revoked.Active},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.register(pair("1"))
			if tt.before != nil {
				tt.before(m)
			}
			res := m.revoke(tt.actor, tt.token)
			wantErr(t, res.Err, tt.err)
			if want := tt.token == "unknown"; res.Unknown != want {
				t.Errorf("got Unknown %t, want %t", res.Unknown, want)
			}
			m.want("a-1", tt.access)
			m.sameAs(m.replayed(3))
		})
	}
}

func TestRevoke_Retry_KeepsFirstRevocation(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	m.revoke("app", "a-1")
	m.later(time.Minute)
	r := m.revoke("admin", "r-1")
	if r.Err != nil || r.Index != uint64(len(m.log)) {
		t.Fatalf("retry: got %+v, want success at index %d", r, len(m.log))
	}
	g, _, _ := m.f.LookupGrant("g-1")
	want := revoked.Revocation{At: start, By: "app", Reason: "test", Index: 3}
	if g.Revoked == nil || *g.Revoked != want {
		t.Errorf("got %+v, want %+v", g.Revoked, want)
	}
	res, noop := m.f.DryRun(command.RevokeOp(m.by("app"), digest("a-1"), "again"))
	if !noop || res.Err != nil || res.Index != m.f.Applied() {
		t.Errorf("got %+v, no-op %t, want success and no-op", res, noop)
	}
}

func TestTombstone_LateRegistration_Revoked(t *testing.T) {
	late := func(m *machine, client string) revoked.RegisterResult {
		r := pair("1")
		r.ClientID = client
		r.Tokens = []revoked.TokenRegistration{access("a-1", m.now, time.Hour), refresh("r-1", m.now, time.Hour)}
		return m.register(r)
	}
	t.Run("late registration", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		m.later(30 * time.Minute)
		if got := late(m, "app"); !got.Created || !got.Revoked {
			t.Errorf("got %+v, want Created and Revoked", got)
		}
		m.want("a-1", revoked.Dead)
		m.want("r-1", revoked.Dead)
		if g, _, _ := m.f.LookupGrant("g-1"); g.Revoked == nil || g.Revoked.Index != 2 || g.Revoked.At != start {
			t.Errorf("got revocation %+v, want that of the tombstone", g.Revoked)
		}
		m.sameAs(m.replayed(1))
	})
	t.Run("existing grant", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		m.revoke("app", "a-2")
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{access("a-2", start, time.Hour)}
		if got := m.register(r); !got.Revoked {
			t.Errorf("got %+v, want Revoked", got)
		}
		m.want("a-1", revoked.Dead)
	})
	t.Run("of another client", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("other", "r-1")
		if got := late(m, "app"); got.Revoked {
			t.Errorf("got %+v, want not Revoked", got)
		}
		m.want("a-1", revoked.Active)
	})
	t.Run("of an administrator", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("other", "r-1")
		m.revoke("admin", "r-1")
		if got := late(m, "app"); !got.Revoked {
			t.Errorf("got %+v, want Revoked", got)
		}
	})
	t.Run("after retries", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		for range 6 {
			m.later(50 * time.Minute)
			m.drain()
			m.revoke("app", "r-1")
		}
		m.later(59 * time.Minute)
		m.drain()
		if got := late(m, "app"); !got.Revoked {
			t.Errorf("got %+v, want Revoked", got)
		}
	})
	t.Run("after its expiry", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		m.later(3 * time.Hour)
		m.drain()
		if got := late(m, "app"); got.Revoked {
			t.Errorf("got %+v, want not Revoked", got)
		}
	})
	t.Run("retry", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		if _, noop := m.f.DryRun(command.RevokeOp(m.by("app"), digest("r-1"), "")); !noop {
			t.Error("retry: got a change, want a no-op")
		}
		if _, noop := m.f.DryRun(command.RevokeOp(m.by("other"), digest("r-1"), "")); noop {
			t.Error("revocation by another client: got a no-op, want a change")
		}
	})
}

func TestTombstone_Quota_PerClient(t *testing.T) {
	m := newMachine(t)
	var ops []*command.Op
	for i := range 10_001 {
		ops = append(ops, command.RevokeOp(m.by("app"), digest(fmt.Sprint("unknown ", i)), ""))
	}
	res := m.do(ops...)
	if res[9999].Err != nil {
		t.Errorf("last within the quota: got %v, want success", res[9999].Err)
	}
	wantErr(t, res[10_000].Err, revoked.ErrQuota)
	for i, token := range []string{"a-k0", "r-k1", "old"} { // active, active, rotated
		name := fmt.Sprint("k", i)
		m.register(pair(name))
		if token == "old" {
			older := pair(name)
			older.Tokens = []revoked.TokenRegistration{refresh(token, start.Add(-time.Second), time.Hour)}
			m.register(older)
		}
		if _, noop := m.f.DryRun(command.RevokeOp(m.by("app"), digest(token), "")); noop {
			t.Errorf("known token %s: got a no-op, want a change", token)
		}
		if r := m.revoke("app", token); r.Err != nil {
			t.Errorf("known token %s with a full quota: got %v, want success", token, r.Err)
		}
		m.want("a-"+name, revoked.Dead)
		m.want("r-"+name, revoked.Dead)
	}
	if r := m.revoke("other", "unknown 10000"); r.Err != nil {
		t.Errorf("other client: got %v, want success", r.Err)
	}
	if r := m.revoke("app", "unknown 7"); r.Err != nil {
		t.Errorf("retry: got %v, want success", r.Err)
	}
	again := m.crash()
	for _, l := range m.log {
		again.f.Apply(l)
	}
	wantErr(t, again.revoke("app", "one more").Err, revoked.ErrQuota)
	m.later(3 * time.Hour)
	m.drain()
	if r := m.revoke("app", "unknown 10000"); r.Err != nil {
		t.Errorf("after the expiry: got %v, want success", r.Err)
	}
	m.sameAs(m.replayed(2))
}

func TestDeleteGrant_ActorAndGrant_DecideResult(t *testing.T) {
	for _, tt := range []struct {
		name, actor, grant string
		err                error
	}{
		{"its issuer", "issuer", "g-1", nil},
		{"administrator", "admin", "g-1", nil},
		{"other issuer", "issuer2", "g-1", revoked.ErrForbidden},
		{"its client", "app", "g-1", revoked.ErrForbidden},
		{"unknown grant", "admin", "g-2", revoked.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.register(pair("1"))
			op := command.DeleteGrantOp(m.by(tt.actor), tt.grant, "gone")
			wantErr(t, m.do(op)[0].Err, tt.err)
			if tt.err != nil {
				m.want("a-1", revoked.Active)
				return
			}
			m.want("a-1", revoked.Dead)
			if r, noop := m.f.DryRun(op); !noop || r.Err != nil {
				t.Errorf("retry: got %+v, no-op %t, want success and no-op", r, noop)
			}
			if r := m.do(op)[0]; r.Err != nil {
				t.Errorf("retry: got %v, want success", r.Err)
			}
		})
	}
}

func TestApply_ActorChanged_Refused(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	old := m.by("app")
	c, _ := m.f.Client("app")
	changed := *c
	changed.Audiences = []string{"api"}
	m.must(command.PutClientOp(m.by("admin"), &changed, c.Version))
	op := command.RevokeOp(old, digest("a-1"), "")
	wantErr(t, m.do(op)[0].Err, revoked.ErrActorChanged)
	if r, noop := m.f.DryRun(op); !noop {
		t.Error("got a change, want a no-op")
	} else {
		wantErr(t, r.Err, revoked.ErrActorChanged)
	}
	off, _ := m.f.Client("app")
	disabled := *off
	disabled.Disabled = true
	m.must(command.PutClientOp(m.by("admin"), &disabled, off.Version))
	m.want("a-1", revoked.Suspended)
	wantErr(t, m.do(command.RevokeOp(m.by("app"), digest("a-1"), ""))[0].Err, revoked.ErrActorChanged)
	wantErr(t, m.do(command.RevokeOp(revoked.Actor{ClientID: "ghost"}, digest("a-1"), ""))[0].Err,
		revoked.ErrActorChanged)
	anonymous := command.RevokeOp(old, digest("a-1"), "")
	anonymous.Actor = nil
	wantErr(t, m.do(anonymous)[0].Err, revoked.ErrForbidden)
	wantErr(t, command.Admit(anonymous), revoked.ErrForbidden)
	on, _ := m.f.Client("app")
	enabled := *on
	enabled.Disabled = false
	m.must(command.PutClientOp(m.by("admin"), &enabled, on.Version))
	m.want("a-1", revoked.Active)
}
