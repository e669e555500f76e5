package fsm_test

import (
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// statusOf returns the status of a registered or unknown token at the stamp of the log.
func (m *machine) statusOf(token string) *revoked.TokenStatus {
	m.t.Helper()
	r, err := lookup(m.f, digest(token))
	if err != nil {
		m.t.Fatal(err)
	}
	d, err := m.f.Decide(&r, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	return &revoked.TokenStatus{Decision: d, Record: r}
}

// Ending returns the cause of a token's end while the state has the record, before and after
// compaction.
func TestEnding_EachReason_NamesActorAndIndex(t *testing.T) {
	cutoff := func(client string, before revoked.Time) func(*machine) {
		return func(m *machine) {
			sel := revoked.Selector{Subject: "alice", ClientID: client}
			m.must(command.CutoffOp(m.by("admin"), sel, before, "cut "+client))
		}
	}
	revoke := func(by, token string) func(*machine) {
		return func(m *machine) { m.revoke(by, token) }
	}
	for _, tt := range []struct {
		name    string
		token   string
		changes []func(*machine)
		reason  revoked.Reason
		by      string // actor of the revocation, or "" without one
		text    string // reason of the revocation or the cut-off
		cutoff  bool
	}{
		{"active", "a-1", nil, revoked.ReasonActive, "", "", false},
		{"revoked by its client", "a-1", []func(*machine){revoke("app", "r-1")}, revoked.ReasonRevoked, "app", "test", false},
		{"cut off", "a-1", []func(*machine){cutoff("", start)}, revoked.ReasonCutOff, "", "cut ", true},
		{"cut off and compacted", "a-1", []func(*machine){cutoff("", start), (*machine).drain},
			revoked.ReasonCutOff, "", "cut ", true},
		{"compacted, before a cut-off with an earlier issued_before", "a-1",
			[]func(*machine){cutoff("", start), (*machine).drain, cutoff("app", start-60e6)},
			revoked.ReasonCutOff, "", "cut ", true},
		{"denied by its jti", "a-1", []func(*machine){func(m *machine) {
			if err := m.revokeJWT("admin", &revoked.JWT{Issuer: "https://as.example", JTI: "jti-a-1"}); err != nil {
				m.t.Fatal(err)
			}
		}}, revoked.ReasonRevoked, "admin", "test", false},
		{"denied by its jti, by an older entry", "a-1", []func(*machine){func(m *machine) {
			m.rules = command.RegisterRules
			if err := m.revokeJWT("admin", &revoked.JWT{Issuer: "https://as.example", JTI: "jti-a-1"}); err != nil {
				m.t.Fatal(err)
			}
		}}, revoked.ReasonDenied, "admin", "test", false},
		{"unknown", "x", nil, revoked.ReasonUnknown, "", "", false},
		{"unknown, revoked by a client", "x", []func(*machine){revoke("app", "x")},
			revoked.ReasonUnknown, "app", "test", false},
		{"unknown, revoked by an administrator", "x", []func(*machine){revoke("app", "x"), revoke("admin", "x")},
			revoked.ReasonUnknown, "admin", "test", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, command.RegisterRules)
			m.trust(func(i *revoked.Issuer) { i.Issuer = "https://as.example" })
			m.register(pair("1"))
			m.rules = command.Rules
			for _, change := range tt.changes {
				change(m)
			}
			st := m.statusOf(tt.token)
			end, err := m.f.Ending(st, digest(tt.token))
			if err != nil {
				t.Fatal(err)
			}
			if st.Reason != tt.reason || (end.Revoked != nil) != (tt.by != "") || (end.Cutoff != nil) != tt.cutoff {
				t.Fatalf("got %s, %+v, want %s by %q, cut-off %t", st.Reason, end, tt.reason, tt.by, tt.cutoff)
			}
			if r := end.Revoked; r != nil && (r.By != tt.by || r.Reason != tt.text || r.Index == 0 || r.At == 0) {
				t.Errorf("got %+v, want it by %s for %q", r, tt.by, tt.text)
			}
			if c := end.Cutoff; c != nil && (c.By != "admin" || c.Reason != tt.text || c.Index == 0 || c.Subject != "alice") {
				t.Errorf("got %+v, want it for %q", c, tt.text)
			}
		})
	}
}

// A JWT is denied by each of the properties that a denial can have.
func TestEnding_DeniedJWT_NamesTheDenial(t *testing.T) {
	for name, revoke := range map[string]func(m *machine, j *revoked.JWT) error{
		"with the token": func(m *machine, j *revoked.JWT) error { return m.revokeJWT("admin", j) },
		"by its jti": func(m *machine, j *revoked.JWT) error {
			return m.revokeJWT("admin", &revoked.JWT{Issuer: j.Issuer, JTI: j.JTI})
		},
		"by another token of its grant": func(m *machine, j *revoked.JWT) error {
			return m.revokeJWT("admin", with(j, func(j *revoked.JWT) {
				j.JTI, j.Digests = "other", []revoked.Digest{digest("other")}
			}))
		},
		"by a tombstone of its digest": func(m *machine, j *revoked.JWT) error {
			return m.do(command.RevokeOp(m.by("admin"), j.Digests[0], "test"))[0].Err
		},
		"by the registered grant that it claims": func(m *machine, j *revoked.JWT) error {
			r := pair("1")
			r.GrantID, r.Issuer = j.GrantID, j.Issuer
			m.register(r)
			return m.revoke("admin", "a-1").Err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.trust(func(i *revoked.Issuer) { i.GrantClaim = "gid" })
			j := jwt("1")
			st := &revoked.TokenStatus{Record: j.Record(), JWT: j, Foreign: true,
				Decision: revoked.Decision{Verdict: revoked.Dead, Reason: revoked.ReasonDenied}}
			if end, err := m.f.Ending(st, j.Digests[0]); err != nil || end.Revoked != nil {
				t.Fatalf("before: got %+v, %v, want nothing", end.Revoked, err)
			}
			if err := revoke(m, j); err != nil {
				t.Fatal(err)
			}
			m.now = m.now.Add(time.Second)
			m.wantJWT(j, revoked.Dead)
			end, err := m.f.Ending(st, j.Digests[0])
			if err != nil || end.Revoked == nil || end.Revoked.By != "admin" || end.Revoked.Reason != "test" ||
				end.Revoked.Index == 0 {
				t.Errorf("got %+v, %v, want it by admin", end.Revoked, err)
			}
		})
	}
}
