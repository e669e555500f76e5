package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// withJTI returns a registration of two tokens for a month: the access token "a-"+name with that
// jti, and a refresh token.
func withJTI(name, iss, jti string, now revoked.Time) revoked.Registration {
	const month = 30 * 24 * time.Hour
	reg := pair(name)
	reg.Issuer = iss
	reg.Tokens = []revoked.TokenRegistration{access("a-"+name, now, month), refresh("r-"+name, now, month)}
	reg.Tokens[0].JTI = jti
	return reg
}

// denyUnseen returns the operation that denies a jti for a minute.
func (m *machine) denyUnseen(iss, jti string) *command.Op {
	j := &revoked.JWT{Issuer: iss, JTI: jti, ExpiresAt: m.now.Add(time.Minute)}
	return command.RevokeJWTOp(m.by("admin"), j, "leak")
}

// passDenials advances the time until all denials have ended.
func (m *machine) passDenials() {
	m.t.Helper()
	m.drain()
	for range 40 { // a denial stays until it has ended the last grants
		if m.f.Denials() == 0 {
			return
		}
		m.later(time.Hour)
		m.drain()
	}
	m.t.Errorf("after 40 hours: got %d denials, want none", m.f.Denials())
}

// A denial of a jti revokes the grant of the registered token with this jti. The token stays
// revoked after the denial is dropped. It does not matter whether it was registered before or after
// the denial, in the same entry or in another one.
func TestDenyJTI_RegisteredToken_EndsPermanently(t *testing.T) {
	const untrusted = "https://untrusted.example"
	for _, batch := range []int{1, 100} {
		m := newMachine(t)
		m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
		reg := func(name, iss string) *command.Op {
			return command.RegisterOp(m.by("issuer"), withJTI(name, iss, "j-"+name[:1], m.now))
		}
		m.must(reg("a1", testIss))
		m.must(reg("b1", untrusted))
		m.must(reg("c1", testIss))
		m.do(reg("d1", testIss), m.denyUnseen(testIss, "j-d"), reg("d2", testIss))
		m.must(m.denyUnseen(testIss, "j-a"))
		m.must(reg("a2", testIss))
		m.must(m.denyUnseen(testIss, "j-b"))
		if _, noop := m.f.DryRun(m.denyUnseen(testIss, "j-a")); !noop {
			t.Error("retry: got a change, want none")
		}
		r := m.replayed(batch)
		m.sameAs(r)
		for i := range 2 {
			for name, want := range map[string]revoked.Verdict{
				"a1": revoked.Dead, "a2": revoked.Dead, "b1": revoked.Active, "c1": revoked.Active,
				"d1": revoked.Dead, "d2": revoked.Dead,
			} {
				r.want("a-"+name, want)
				r.want("r-"+name, want)
			}
			if i == 0 {
				r.passDenials()
			}
		}
	}
}

// Tokens may share a jti, although they should not. One entry ends a limited number of grants. The
// denial stays until all of them have ended. The revocation of a token denies its jti, too.
func TestDenyJTI_ManyGrants_EndBeforeTheDenial(t *testing.T) {
	for _, how := range []string{"by jti", "by token"} {
		t.Run(how, func(t *testing.T) {
			const grants = 1200
			m := newMachine(t)
			m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
			ops := make([]*command.Op, grants)
			for i := range ops {
				ops[i] = command.RegisterOp(m.by("issuer"), withJTI(fmt.Sprint(i), testIss, "same", m.now))
			}
			m.do(ops...)
			if how == "by jti" {
				m.must(m.denyUnseen(testIss, "same"))
			} else {
				wantErr(t, m.revoke("app", "a-7").Err, nil)
			}
			restored := empty(t)
			if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
				t.Fatal(err)
			}
			restored.now, restored.log = m.now, m.log
			for _, v := range []*machine{m, restored} {
				for i := range grants {
					v.want(fmt.Sprint("a-", i), revoked.Dead)
				}
				v.passDenials()
				for i := range grants {
					v.want(fmt.Sprint("a-", i), revoked.Dead)
					v.want(fmt.Sprint("r-", i), revoked.Dead)
				}
			}
			m.sameAs(restored)
			m.sameAs(m.replayed(7))
		})
	}
}

// One Expire may end a grant whose tokens have two denied jtis, both due. The denial that is
// examined first extends the other one.
func TestExpire_GrantWithTwoJTIs_Succeeds(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
	for _, n := range []string{"1", "2"} {
		reg := withJTI(n, testIss, "x", m.now)
		reg.Tokens[1].JTI = "y"
		m.register(reg)
	}
	m.must(command.DeleteGrantOp(m.by("admin"), "g-1", ""))
	m.passDenials()
	m.want("r-2", revoked.Dead)
	m.sameAs(m.replayed(3))
	if len(m.fatal) > 0 {
		t.Errorf("got %v, want no error", m.fatal)
	}
}

// A cut-off ends the tokens that were issued before it, and Compact denies their jtis. These
// denials must not end the newer tokens of the grant.
func TestExpire_JTIOfCutOffToken_KeepsGrantActive(t *testing.T) {
	for _, expired := range []bool{false, true} {
		m := newMachine(t)
		m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
		m.beginHistory()
		reg := withJTI("old", testIss, "x", m.now)
		if expired { // another grant has an expired token with the same jti
			other := withJTI("other", testIss, "x", m.now)
			other.Tokens = other.Tokens[:1]
			other.Tokens[0].ExpiresAt = m.now.Add(time.Second)
			m.register(other)
		}
		m.register(reg)
		m.later(10 * time.Second)
		m.drain()
		m.must(command.CutoffOp(m.by("admin"), revoked.Selector{ClientID: "app"}, 0, ""))
		m.drain()
		m.later(time.Minute)
		fresh := withJTI("new", testIss, "z", m.now)
		fresh.GrantID = reg.GrantID
		m.register(fresh)
		if expired {
			other := withJTI("other", testIss, "z2", m.now)
			other.Tokens = other.Tokens[1:]
			m.register(other)
		}
		m.passDenials()
		m.want("a-old", revoked.Dead)
		m.want("r-new", revoked.Active)
		m.want("a-new", revoked.Active)
		if expired {
			m.want("r-other", revoked.Active)
		}
	}
}

// A denial by an older entry did not end the grant. A repeated revocation ends it, although the
// denial still exists.
func TestDenyJTI_OlderDenial_RetryEndsGrant(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.trust(nil)
	m.register(withJTI("1", testIss, "j", m.now))
	m.must(m.denyUnseen(testIss, "j"))
	m.want("r-1", revoked.Active)
	m.rules = command.Rules
	if _, noop := m.f.DryRun(m.denyUnseen(testIss, "j")); noop {
		t.Error("got a no-op, want a change")
	}
	m.must(m.denyUnseen(testIss, "j"))
	m.want("r-1", revoked.Dead)
	agree(t, m, 3)
}

// An older program does not write the index of the jtis. Each start adds it, as long as an older
// program can open the store.
func TestOpen_StoreWithoutIndex_FindsJTI(t *testing.T) {
	for _, rules := range []uint32{command.RegisterRules, command.JTIRules} {
		m := newMachine(t, rules)
		m.trust(nil)
		for _, n := range []string{"1", "2"} {
			m.register(withJTI(n, testIss, "j"+n, m.now))
		}
		for range 2 { // the second time, after a start that indexed every token
			m.f.Close()
			if rules == command.RegisterRules {
				dropIndex(t, m.dir)
			}
			m.open()
		}
		m.rules = command.Rules
		m.must(m.denyUnseen(testIss, "j1"))
		m.want("r-1", revoked.Dead)
		m.want("r-2", revoked.Active)
		m.sameAs(m.replayed(3))
	}
}

// The log of a new cluster soon has a command of version command.JTIRules. From then on, a start
// does not scan the tokens, however many the state has. Before that, a program that does not write
// the index may open the store.
func TestApply_VersionRaised_MarksIndexComplete(t *testing.T) {
	for _, tt := range []struct {
		rules   uint32
		audited bool // the entries have version command.Audit, which older programs support
		want    bool
	}{
		{command.RegisterRules, false, false},
		{command.RegisterRules, true, false},
		{command.JTIRules, false, true},
	} {
		m := newMachine(t, tt.rules)
		m.audited = tt.audited
		m.register(withJTI("1", testIss, "j1", m.now))
		m.f.Close()
		s := openStore(t, m.dir)
		mark, err := s.Get(rows.JTIsIndexedKey())
		if got := mark != nil; err != nil || got != tt.want {
			t.Errorf("rules %d, audited %t: got mark %t, %v, want %t", tt.rules, tt.audited, got, err, tt.want)
		}
		s.Release()
	}
}

// openStore opens the store of a closed state machine.
func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	n, err := store.Current(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(store.GenerationDir(dir, n), store.Options{
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dropIndex removes the index of the jtis from a store.
func dropIndex(t *testing.T, dir string) {
	t.Helper()
	s := openStore(t, dir)
	defer s.Release()
	b, keys := s.NewBatch(), 0
	err := s.Scan(rows.JTIsIndexedKey(), nil, func(key, _ []byte) (bool, error) {
		keys++
		return true, b.Delete(bytes.Clone(key))
	})
	if err != nil || keys != 2 {
		t.Fatalf("got %d keys, %v, want the two of the tokens and no other", keys, err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// After any history of tokens that share a jti, an inactive token is never active again.
func TestDenyJTI_RandomHistory_NeverActiveAgain(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		defer func() { m.f.Close() }()
		m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
		m.beginHistory() // so that the stub of an expired token has its jti
		var names []string
		inactive, key := map[string]bool{}, map[string]string{}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			iss := rapid.SampledFrom([]string{testIss, testIss, "https://untrusted.example"}).Draw(r, "issuer")
			jti := rapid.SampledFrom([]string{"j1", "j2"}).Draw(r, "jti")
			var ops []*command.Op
			for range rapid.IntRange(1, 4).Draw(r, "ops") {
				switch rapid.IntRange(0, 3).Draw(r, "op") {
				case 0, 1:
					name := fmt.Sprint(len(names))
					names, key[name] = append(names, name), iss+jti
					reg := withJTI(name, iss, jti, m.now)
					if rapid.Bool().Draw(r, "two") {
						reg.Tokens[1].JTI = rapid.SampledFrom([]string{"j1", "j2"}).Draw(r, "jti of the refresh token")
					}
					life := time.Duration(rapid.IntRange(1, 300).Draw(r, "life")) * time.Minute
					reg.Tokens[0].ExpiresAt = m.now.Add(life)
					ops = append(ops, command.RegisterOp(m.by("issuer"), reg))
				case 2:
					ops = append(ops, m.denyUnseen(testIss, jti))
				case 3:
					if len(names) > 0 {
						token := digest("a-" + rapid.SampledFrom(names).Draw(r, "token"))
						ops = append(ops, command.RevokeOp(m.by("app"), token, ""))
					}
				}
			}
			for i, res := range m.do(ops...) {
				if res.Err != nil {
					r.Fatalf("%v: got %v", ops[i], res.Err)
				}
			}
			if d := ops[max(len(ops)-1, 0):]; len(d) > 0 && d[0].GetRevokeJwt() != nil {
				for _, n := range names {
					if key[n] == testIss+d[0].GetRevokeJwt().Jti {
						inactive["a-"+n], inactive["r-"+n] = true, true
					}
				}
			}
			if rapid.Bool().Draw(r, "later") {
				m.later(time.Duration(rapid.IntRange(1, 100).Draw(r, "minutes")) * time.Minute)
			}
			if c := m.f.Backlog(m.now, atMost); c != nil && rapid.Bool().Draw(r, "expire") {
				m.apply(c)
			}
			if rapid.IntRange(0, 9).Draw(r, "restart") == 0 {
				m.f.Close()
				m.open()
			}
			for _, n := range names {
				for _, token := range []string{"a-" + n, "r-" + n} {
					active := m.verdict(token) == revoked.Active
					if active && inactive[token] {
						r.Fatalf("%s: got active, want inactive", token)
					}
					inactive[token] = inactive[token] || !active
				}
			}
		}
		m.sameAs(m.replayed(rapid.IntRange(1, 9).Draw(r, "batch")))
	})
}
