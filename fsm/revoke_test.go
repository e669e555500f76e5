package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm"
)

func TestRevokeRules(t *testing.T) {
	tests := []struct {
		name   string
		before func(m *machine)
		actor  string
		token  string
		err    error
		access revoked.Verdict // of a-1 afterwards
	}{
		{"its client by the access token", nil, "app", "a-1", nil, revoked.Dead},
		{"its client by the refresh token", nil, "app", "r-1", nil, revoked.Dead},
		{"an administrator", nil, "admin", "a-1", nil, revoked.Dead},
		{"another client", nil, "other", "a-1", revoked.ErrForeignToken, revoked.Active},
		{"another client, of a grant that is dead", func(m *machine) { m.revoke("app", "a-1") }, "other", "a-1", nil, revoked.Dead},
		{"another client, of a token that was cut off", func(m *machine) {
			m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
		}, "other", "a-1", nil, revoked.Dead},
		{"another client, of a rotated token, changes nothing", func(m *machine) {
			r := pair("1")
			r.Tokens = []revoked.TokenRegistration{refresh("r-2", start.Add(time.Second), time.Hour)}
			m.register(r)
		}, "other", "r-1", nil, revoked.Active},
		{"its client by an expired token", func(m *machine) {
			r := pair("1")
			r.Tokens = []revoked.TokenRegistration{access("short", start, time.Minute)}
			m.register(r)
			m.later(10 * time.Minute)
			m.drain()
		}, "app", "short", nil, revoked.Dead},
		{"an unknown token", nil, "app", "nobody's", nil, revoked.Active},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.register(pair("1"))
			if tt.before != nil {
				tt.before(m)
			}
			wantErr(t, m.revoke(tt.actor, tt.token).Err, tt.err)
			m.want("a-1", tt.access)
			m.sameAs(m.replayed(3))
		})
	}
}

func TestTheFirstRevocationNeverMoves(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	m.revoke("app", "a-1")
	m.later(time.Minute)
	r := m.revoke("admin", "r-1")
	if r.Err != nil || r.Index != uint64(len(m.log)) {
		t.Fatalf("repeat: got %+v", r)
	}
	g, _, _ := m.f.LookupGrant("g-1")
	want := revoked.Revocation{At: start, By: "app", Reason: "test", Index: 3}
	if g.Revoked == nil || *g.Revoked != want {
		t.Errorf("got %+v, want %+v", g.Revoked, want)
	}
	res, settled := m.f.Settled(fsm.RevokeOp(m.by("app"), digest("a-1"), "again"))
	if !settled || res.Err != nil || res.Index != m.f.Applied() {
		t.Errorf("settled: got %+v, %v", res, settled)
	}
}

func TestTombstones(t *testing.T) {
	late := func(m *machine, client string) revoked.RegisterResult {
		r := pair("1")
		r.ClientID = client
		r.Tokens = []revoked.TokenRegistration{access("a-1", m.now, time.Hour), refresh("r-1", m.now, time.Hour)}
		return m.register(r)
	}
	t.Run("a registration that comes late is dead, and its grant", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		m.later(30 * time.Minute)
		if got := late(m, "app"); !got.Created || !got.Revoked {
			t.Errorf("got %+v", got)
		}
		m.want("a-1", revoked.Dead)
		m.want("r-1", revoked.Dead)
		if g, _, _ := m.f.LookupGrant("g-1"); g.Revoked == nil || g.Revoked.Index != 2 || g.Revoked.At != start {
			t.Errorf("the revocation is not the tombstone's: got %+v", g.Revoked)
		}
		m.sameAs(m.replayed(1))
	})
	t.Run("a tombstone ends a grant that was there", func(t *testing.T) {
		m := newMachine(t)
		m.register(pair("1"))
		m.revoke("app", "a-2")
		r := pair("1")
		r.Tokens = []revoked.TokenRegistration{access("a-2", start, time.Hour)}
		if got := m.register(r); !got.Revoked {
			t.Errorf("got %+v", got)
		}
		m.want("a-1", revoked.Dead)
	})
	t.Run("it binds the client that revoked", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("other", "r-1")
		if got := late(m, "app"); got.Revoked {
			t.Errorf("got %+v", got)
		}
		m.want("a-1", revoked.Active)
	})
	t.Run("an administrator's binds every client", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("other", "r-1")
		m.revoke("admin", "r-1")
		if got := late(m, "app"); !got.Revoked {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("it holds for a whole window after every repeat", func(t *testing.T) {
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
			t.Errorf("got %+v", got)
		}
	})
	t.Run("it is dropped in the end", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		m.later(3 * time.Hour)
		m.drain()
		if got := late(m, "app"); got.Revoked {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a repeat changes nothing and counts once", func(t *testing.T) {
		m := newMachine(t)
		m.revoke("app", "r-1")
		if _, settled := m.f.Settled(fsm.RevokeOp(m.by("app"), digest("r-1"), "")); !settled {
			t.Error("got unsettled, want settled")
		}
		if _, settled := m.f.Settled(fsm.RevokeOp(m.by("other"), digest("r-1"), "")); settled {
			t.Error("another client's tombstone is not its own")
		}
	})
}

func TestTombstoneQuota(t *testing.T) {
	m := newMachine(t)
	var ops []*fsm.Op
	for i := range 10_001 {
		ops = append(ops, fsm.RevokeOp(m.by("app"), digest(fmt.Sprint("unknown ", i)), ""))
	}
	res := m.do(ops...)
	if res[9999].Err != nil {
		t.Errorf("got %v for the last within the quota", res[9999].Err)
	}
	wantErr(t, res[10_000].Err, revoked.ErrQuota)
	if r := m.revoke("other", "unknown 10000"); r.Err != nil {
		t.Errorf("another client has its own: got %v", r.Err)
	}
	if r := m.revoke("app", "unknown 7"); r.Err != nil {
		t.Errorf("a repeat needs no quota: got %v", r.Err)
	}
	again := m.crash()
	for _, l := range m.log {
		again.f.Apply(l)
	}
	wantErr(t, again.revoke("app", "one more").Err, revoked.ErrQuota)
	m.later(3 * time.Hour)
	m.drain()
	if r := m.revoke("app", "unknown 10000"); r.Err != nil {
		t.Errorf("the quota is free again: got %v", r.Err)
	}
	m.sameAs(m.replayed(2))
}

func TestDeleteGrantRules(t *testing.T) {
	for _, tt := range []struct {
		name, actor, grant string
		err                error
	}{
		{"the issuer that registered it", "issuer", "g-1", nil},
		{"an administrator", "admin", "g-1", nil},
		{"another issuer", "issuer2", "g-1", revoked.ErrForbidden},
		{"its client", "app", "g-1", revoked.ErrForbidden},
		{"a grant that is unknown", "admin", "g-2", revoked.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.register(pair("1"))
			op := fsm.DeleteGrantOp(m.by(tt.actor), tt.grant, "gone")
			wantErr(t, m.do(op)[0].Err, tt.err)
			if tt.err != nil {
				m.want("a-1", revoked.Active)
				return
			}
			m.want("a-1", revoked.Dead)
			if r, settled := m.f.Settled(op); !settled || r.Err != nil {
				t.Errorf("a repeat: got %+v, settled %v", r, settled)
			}
			if r := m.do(op)[0]; r.Err != nil {
				t.Errorf("a repeat: got %v", r.Err)
			}
		})
	}
}

func TestActorMustBeAsItWas(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	old := m.by("app")
	c, _ := m.f.Client("app")
	changed := *c
	changed.AllowPublicRevocation = true
	m.must(fsm.PutClientOp(m.by("admin"), &changed, c.Version))
	op := fsm.RevokeOp(old, digest("a-1"), "")
	wantErr(t, m.do(op)[0].Err, revoked.ErrActorChanged)
	if r, settled := m.f.Settled(op); !settled {
		t.Error("got unsettled")
	} else {
		wantErr(t, r.Err, revoked.ErrActorChanged)
	}
	off, _ := m.f.Client("app")
	disabled := *off
	disabled.Disabled = true
	m.must(fsm.PutClientOp(m.by("admin"), &disabled, off.Version))
	m.want("a-1", revoked.Suspended)
	wantErr(t, m.do(fsm.RevokeOp(m.by("app"), digest("a-1"), ""))[0].Err, revoked.ErrActorChanged)
	wantErr(t, m.do(fsm.RevokeOp(revoked.Actor{ClientID: "ghost"}, digest("a-1"), ""))[0].Err, revoked.ErrActorChanged)
	nobody := fsm.RevokeOp(old, digest("a-1"), "")
	nobody.Actor = nil
	wantErr(t, m.do(nobody)[0].Err, revoked.ErrForbidden)
	wantErr(t, m.f.Admit(nobody), revoked.ErrForbidden)
	on, _ := m.f.Client("app")
	enabled := *on
	enabled.Disabled = false
	m.must(fsm.PutClientOp(m.by("admin"), &enabled, on.Version))
	m.want("a-1", revoked.Active)
}
