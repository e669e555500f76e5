package fsm_test

import (
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// keepCutoffs sets cutoff_retention.
func (m *machine) keepCutoffs(d time.Duration) {
	m.t.Helper()
	s := m.f.Settings()
	s.CutoffRetention = d
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
}

// A repeated revocation revokes the tokens that the issuer added to a grant or a session since the
// first revocation. The denial outlasts them, even if cutoff_retention is hardly longer than their
// lifetime.
func TestRevokeJWT_RepeatedForLaterToken_OutlivesIt(t *testing.T) {
	for _, retention := range []time.Duration{time.Hour, 24 * time.Hour, 25 * time.Hour, 1000 * time.Hour} {
		for _, claim := range []string{"g1", "s1"} {
			m := newMachine(t)
			m.keepCutoffs(retention)
			m.trust(func(i *revoked.Issuer) {
				mapTo("c1", "s1", "g1", false)(i)
				if claim == "s1" {
					i.GrantClaim, i.RevokeSession = "", true
				}
			})
			first := mapped("a", m.now, 24*time.Hour)
			m.must(command.RevokeJWTOp(m.by("admin"), m.read(first), ""))
			m.later(time.Hour)
			second, third := mapped("b", m.now, 24*time.Hour), mapped("c", m.now, 24*time.Hour)
			second.claims[claim], third.claims[claim] = first.claims[claim], first.claims[claim]
			m.must(command.RevokeJWTOp(m.by("admin"), m.read(second), ""))
			m.later(24*time.Hour - time.Second)
			m.drain()
			m.wantClaimed(claim+", "+retention.String(), third, revoked.Dead)
			m.sameAs(m.replayed(3))
		}
	}
}

// The revocation of a jti without an expiry lasts as long as the longest token that exists, even if
// an earlier revocation named an expiry that was too early. A further revocation writes nothing.
func TestRevokeJWT_JTIAfterOneWithExpiry_OutlivesToken(t *testing.T) {
	m := newMachine(t)
	m.trust(nil)
	c := mapped("x", m.now, 24*time.Hour)
	byJTI := func(exp revoked.Time) *revoked.JWT { return &revoked.JWT{Issuer: testIss, JTI: "x", ExpiresAt: exp} }
	m.must(command.RevokeJWTOp(m.by("admin"), byJTI(m.now.Add(23*time.Hour)), ""))
	m.must(command.RevokeJWTOp(m.by("admin"), byJTI(0), ""))
	m.later(time.Minute)
	_, _, before := m.f.Hashes()
	m.must(command.RevokeJWTOp(m.by("admin"), byJTI(0), ""))
	if _, _, after := m.f.Hashes(); after != before {
		t.Error("retry: got another state, want the same")
	}
	m.later(24*time.Hour - 61*time.Second)
	m.drain()
	m.wantClaimed("before its expiry", c, revoked.Dead)
}

// A tombstone from before the first issuer is as short as the window for late registrations. A
// repeated revocation covers every JWT that exists: the key that verifies the token may be
// published later.
func TestTombstone_RepeatedWithIssuer_OutlivesJWT(t *testing.T) {
	for _, by := range []string{"admin", "app"} {
		m := newMachine(t)
		c := mapped("x", m.now, 24*time.Hour)
		c.claims["c1"], c.jwt.Thumbprint = "app", thumb("b")
		m.revoke(by, "jwt-x")
		m.later(10 * time.Minute)
		m.trust(mapTo("c1", "", "", true))
		m.revoke(by, "jwt-x")
		wantErr(t, m.change(func(i *revoked.Issuer) { i.Keys = issuerKeys("a", "b") }), nil)
		m.later(24*time.Hour - 10*time.Minute - time.Second)
		m.drain()
		m.wantClaimed("revoked by "+by, c, revoked.Dead)
	}
}
