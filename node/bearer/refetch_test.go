package bearer_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"revoked"
	"revoked/fsm/command"
)

// A token that names an unknown key causes one fetch. If the keys cannot be fetched, the lookup
// returns an error and does not report the token as unknown (C29).
func TestStatus_UnknownKey_IsFetchedOnce(t *testing.T) {
	m := newMachine(t, func(i *revoked.Issuer) { i.JWKSURI = "https://as.example/jwks" })
	es := signers()[1]
	broken, calls := errors.New("no answer"), 0
	result := broken
	m.Refetch = func(_ context.Context, i *revoked.Issuer) error {
		calls++
		if result == nil && len(i.Keys) == 0 {
			m.must(command.PutIssuerKeysOp("as1", i.KeysVersion, issuerKeys()))
		}
		return result
	}
	token := es.sign(nil)
	present := &revoked.PresentedToken{Digest: revoked.DigestToken(token), JWT: []byte(token), Caller: "rs"}
	if st, err := m.Decider.Status(t.Context(), present); !errors.Is(err, broken) {
		t.Errorf("status: got %+v, %v, want %v", st, err, broken)
	}
	if j, err := m.Verify(t.Context(), present); !errors.Is(err, broken) {
		t.Errorf("revocation: got %+v, %v, want %v", j, err, broken)
	}
	result, calls = nil, 0
	m.want("after the fetch", token, revoked.Active)
	m.want("again", token, revoked.Active)
	if calls != 1 {
		t.Errorf("got %d fetches, want 1", calls)
	}
	m.want("key that the newest set lacks", signer{es.alg, "other", es.key}.sign(nil), revoked.Unknown)
	m.want("signature of another key", signer{signers()[0].alg, "ec", signers()[0].key}.sign(nil), revoked.Unknown)
	if calls != 2 {
		t.Errorf("unknown keys: got %d fetches, want 2: one more for the unknown key", calls)
	}
}

// A node looks up an unknown token twice: before and after a read barrier. The second lookup
// fetches and verifies again only if the issuer's record has changed.
func TestLookup_Refused_VerifiedOnceForEachIssuer(t *testing.T) {
	m := newMachine(t, func(i *revoked.Issuer) { i.JWKSURI = "https://as.example/jwks" })
	calls := 0
	m.Refetch = func(context.Context, *revoked.Issuer) error { calls++; return nil }
	token := signers()[1].sign(nil)
	look := m.Look(present(token))
	want := func(verdict revoked.Verdict, fetches int) {
		t.Helper()
		st, err := look.Status(t.Context())
		if err != nil || st.Verdict != verdict || calls != fetches {
			t.Errorf("got verdict %v, %v after %d fetches, want %v after %d", st.Verdict, err, calls, verdict, fetches)
		}
	}
	want(revoked.Unknown, 1)
	want(revoked.Unknown, 1)
	m.must(command.PutIssuerKeysOp("as1", m.Issuer(iss).KeysVersion, issuerKeys()))
	want(revoked.Active, 1)
	m.must(command.RevokeOp(m.by("admin"), revoked.DigestToken(token), ""))
	want(revoked.Dead, 1)
	refused := signers()[1].sign(map[string]any{"exp": nil})
	look = m.Look(present(refused))
	want(revoked.Unknown, 1)
	m.must(command.RegisterOp(m.by("issuer"), revoked.Registration{GrantID: "r-1", ClientID: "app",
		Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken(refused), Kind: revoked.AccessToken}}}))
	want(revoked.Active, 1)
}

// Each lookup of a JWT counts once, by its outcome.
func TestStatus_JWT_ResultIsCounted(t *testing.T) {
	m := newMachine(t, func(i *revoked.Issuer) { i.Algorithms = []string{"ES256", "EdDSA"} })
	es, ed := signers()[1], signers()[2]
	good := es.sign(nil)
	for _, tt := range []struct{ result, token string }{
		{"verified", good}, {"cached", good}, {"format", "a.b.c"},
		{"issuer", es.sign(map[string]any{"iss": "https://x.example"})},
		{"alg", signers()[0].sign(nil)}, {"kid", signer{es.alg, "other", es.key}.sign(nil)},
		{"signature", good[:len(good)-6] + "AAAAAA"}, {"claims", es.sign(map[string]any{"exp": nil})},
		{"verified", ed.sign(map[string]any{"exp": start.Unix() - 1})},
	} {
		if tt.result == "cached" {
			m.awaitCached(tt.token)
		}
		before := m.counted()
		look := m.Look(present(tt.token))
		for range 2 {
			if _, err := look.Status(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		after := m.counted()
		for result, n := range after {
			if grown := n - before[result]; (grown == 1) != (result == tt.result) || grown > 1 {
				t.Errorf("%s: got %v more of %s, want one of %s", tt.token[:5], grown, result, tt.result)
			}
		}
	}
	m.must(command.RegisterOp(m.by("issuer"), revoked.Registration{GrantID: "r-2", ClientID: "app",
		Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("opaque"), Kind: revoked.AccessToken}}}))
	before := m.counted()
	m.want("opaque", "opaque", revoked.Active)
	m.want("unknown opaque", "unknown", revoked.Unknown)
	if diff := m.counted(); !maps.Equal(before, diff) {
		t.Errorf("opaque tokens: got %v, want %v", diff, before)
	}
}

// counted returns the values of revoked_jwt_lookups_total by result.
func (m *machine) counted() map[string]float64 {
	m.t.Helper()
	families, err := m.reg.Gather()
	if err != nil {
		m.t.Fatal(err)
	}
	n := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			n[s.GetLabel()[0].GetValue()] = s.GetCounter().GetValue()
		}
	}
	if len(n) != 11 {
		m.t.Fatalf("got %v, want 11 results", n)
	}
	return n
}
