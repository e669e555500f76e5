package bearer_test

import (
	"strings"
	"testing"

	"revoked"
	"revoked/fsm/command"
)

func TestExplain_UnverifiedToken_GivesReason(t *testing.T) {
	es := signers()[1]
	good := es.sign(nil)
	parts := strings.Split(good, ".")
	for _, tt := range []struct {
		name, token string
		reason      revoked.Reason
		issuer      revoked.IssuerReason
	}{
		{"opaque", "abc", revoked.ReasonUnknown, ""},
		{"three parts without a header", "a.b.c", revoked.ReasonUnknown, ""},
		{"claims that are not JSON", parts[0] + ".AAAA.AAAA", revoked.ReasonIssuer, revoked.RefusedFormat},
		{"issuer that is not trusted", es.sign(map[string]any{"iss": "https://x.example"}),
			revoked.ReasonIssuer, revoked.RefusedIssuer},
		{"another signature", parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86),
			revoked.ReasonIssuer, revoked.RefusedSignature},
		{"unknown key", signer{es.alg, "other", es.key}.sign(nil), revoked.ReasonIssuer, revoked.RefusedKey},
		{"no expiry", es.sign(map[string]any{"exp": nil}), revoked.ReasonIssuer, revoked.RefusedClaims},
	} {
		m := newMachine(t, nil)
		st := m.status(tt.token)
		x, err := m.Explain(present(tt.token), st)
		want := revoked.Decision{Verdict: revoked.Unknown, Reason: tt.reason, IssuerReason: tt.issuer}
		if err != nil || x.Decision != want || x.IsJWT != (tt.issuer != "") || x.JWT != nil || x.Record.Found {
			t.Errorf("%s: got %+v, %v, want %+v and no claims", tt.name, x, err, want)
		}
		// For such a token, the state can contain only a tombstone of its digest.
		m.must(command.RevokeOp(m.by("admin"), revoked.DigestToken(tt.token), "stolen"))
		x, err = m.Explain(present(tt.token), m.status(tt.token))
		want = revoked.Decision{Verdict: revoked.Unknown, Reason: revoked.ReasonDenied}
		if err != nil || x.Decision != want || x.Revoked == nil || x.Revoked.By != "admin" || x.Revoked.Reason != "stolen" {
			t.Errorf("%s, revoked: got %+v, %v, want it denied by admin", tt.name, x, err)
		}
	}
}

// The answer about a digest depends on the state alone: a node that has cached the JWT gives the
// same answer as other nodes.
func TestExplain_DigestOfCachedJWT_IsUnknown(t *testing.T) {
	m := newMachine(t, nil)
	token := signers()[1].sign(nil)
	m.want("with the token", token, revoked.Active)
	m.want("with the token again", token, revoked.Active)
	explain := func() revoked.Explanation {
		p := &revoked.PresentedToken{Digest: revoked.DigestToken(token)}
		st, err := m.Decider.Status(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		x, err := m.Explain(p, st)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	if x := explain(); x.Verdict != revoked.Unknown || x.Reason != revoked.ReasonUnknown || x.IsJWT || x.Record.Found {
		t.Errorf("got %+v, want it unknown", x)
	}
	m.must(command.RevokeJWTOp(m.by("admin"), m.verified(token), "stolen"))
	if x := explain(); x.Reason != revoked.ReasonDenied || x.Revoked == nil || x.Revoked.Reason != "stolen" {
		t.Errorf("after its revocation: got %+v, want it denied", x)
	}
}

// Explain returns the cut-off or the denial that revokes a token by an earlier mapping of its
// claims.
func TestExplain_EarlierMapping_ReturnsTheEnding(t *testing.T) {
	for name, sel := range map[string]revoked.Selector{
		"client": {ClientID: "app"}, "session": {Session: "s-1"}, "grant": {GrantID: "g-1", Issuer: iss},
	} {
		m := newMachine(t, func(i *revoked.Issuer) { i.GrantClaim = "gid" })
		token := signers()[1].sign(nil)
		m.must(command.CutoffOp(m.by("admin"), sel, 0, "why"))
		m.change(func(i *revoked.Issuer) { i.ClientClaim, i.SessionClaim, i.GrantClaim = "sub", "", "" })
		st := m.status(token)
		x, err := m.Explain(present(token), st)
		if err != nil || st.Reason != revoked.ReasonCutOff || x.Cutoff == nil || x.Cutoff.Selector != sel {
			t.Errorf("%s: got %+v, %v, want the cut-off %+v", name, x, err, sel)
		}
	}
	m := newMachine(t, func(i *revoked.Issuer) { i.GrantClaim = "gid" })
	sibling := m.verified(signers()[1].sign(map[string]any{"jti": "j2"}))
	m.must(command.RevokeJWTOp(m.by("admin"), sibling, "why"))
	m.change(func(i *revoked.Issuer) { i.GrantClaim = "" })
	token := signers()[1].sign(nil)
	st := m.status(token)
	x, err := m.Explain(present(token), st)
	if err != nil || st.Reason != revoked.ReasonDenied || x.Revoked == nil || x.Revoked.Reason != "why" {
		t.Errorf("got %+v, %v, want it denied with its grant", x, err)
	}
}
