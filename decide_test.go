package revoked_test

import (
	"testing"
	"time"

	"revoked"
)

func TestDecide_JWT_ChecksRecordKeyAndClient(t *testing.T) {
	const now = revoked.Time(1_790_000_000 * 1e6)
	type in = revoked.DecideInput
	type jwt = revoked.JWT
	type issuer = revoked.Issuer
	cutoff := func(before revoked.Time) func(*in) {
		c := revoked.Cutoff{Selector: revoked.Selector{Issuer: "https://as.example"}, IssuedBefore: before, At: now}
		return func(i *in) { i.Cutoff = c.Covers }
	}
	both := func(list ...func(*in)) func(*in) {
		return func(i *in) {
			for _, f := range list {
				f(i)
			}
		}
	}
	record := func(change func(*issuer)) func(*in) {
		return func(i *in) { change(i.Issuer) }
	}
	app := &revoked.Client{ID: "app"}
	off := &revoked.Client{ID: "app", Disabled: true}
	for _, tt := range []struct {
		name   string
		token  func(*jwt)
		change func(*in)
		want   revoked.Verdict
		reason revoked.Reason
		issuer revoked.IssuerReason
	}{
		{"of an unknown client", nil, nil, revoked.Active, revoked.ReasonActive, ""},
		{"of a known client", nil, func(i *in) { i.Client = app }, revoked.Active, revoked.ReasonActive, ""},
		{"C39: of a disabled client", nil, func(i *in) { i.Client = off },
			revoked.Suspended, revoked.ReasonClientDisabled, ""},
		{"C39: of a disabled client of this cluster", nil,
			both(func(i *in) { i.Client = off }, record(func(i *issuer) { i.OwnClients = true })),
			revoked.Suspended, revoked.ReasonClientDisabled, ""},
		{"C39: of a deleted client", nil, func(i *in) { i.ClientGone = true },
			revoked.Suspended, revoked.ReasonClientUnknown, ""},
		{"unknown client refused", nil, record(func(i *issuer) { i.RefuseUnknownClients = true }),
			revoked.Suspended, revoked.ReasonClientUnknown, ""},
		{"known client, unknown ones refused", nil,
			both(func(i *in) { i.Client = app }, record(func(i *issuer) { i.RefuseUnknownClients = true })),
			revoked.Active, revoked.ReasonActive, ""},
		{"denied", nil, func(i *in) { i.Denied = true }, revoked.Dead, revoked.ReasonDenied, ""},
		{"denied, issuer disabled", nil,
			both(func(i *in) { i.Denied = true }, record(func(i *issuer) { i.Disabled = true })),
			revoked.Dead, revoked.ReasonDenied, ""},
		{"issuer disabled", nil, record(func(i *issuer) { i.Disabled = true }),
			revoked.Suspended, revoked.ReasonIssuer, revoked.RefusedDisabled},
		{"issuer deleted", nil, record(func(i *issuer) { i.DeletedAt = now }),
			revoked.Dead, revoked.ReasonIssuer, revoked.RefusedIssuer},
		{"key retired", nil, func(i *in) { i.Key = revoked.KeyRetired },
			revoked.Dead, revoked.ReasonIssuer, revoked.RefusedKey},
		{"key banned", nil, func(i *in) { i.Key = revoked.KeyBanned },
			revoked.Dead, revoked.ReasonIssuer, revoked.RefusedKey},
		{"key forgotten", nil, func(i *in) { i.Key = 0 }, revoked.Dead, revoked.ReasonIssuer, revoked.RefusedKey},
		{"expired by the log", func(j *jwt) { j.ExpiresAt = now }, nil, revoked.Dead, revoked.ReasonExpired, ""},
		{"expired by the clock", func(j *jwt) { j.ExpiresAt = now + 1 }, func(i *in) { i.Now = now + 1 },
			revoked.PastExpiry, revoked.ReasonExpired, ""},
		{"no expiry", func(j *jwt) { j.ExpiresAt = 0 }, nil, revoked.Suspended, revoked.ReasonIssuer, revoked.RefusedClaims},
		{"no audience", func(j *jwt) { j.Audience = nil }, nil,
			revoked.Suspended, revoked.ReasonIssuer, revoked.RefusedAudience},
		{"no audience, none required", func(j *jwt) { j.Audience = nil },
			record(func(i *issuer) { i.RequireAudience = false }), revoked.Active, revoked.ReasonActive, ""},
		{"longest lifetime", func(j *jwt) { j.ExpiresAt = j.IssuedAt.Add(time.Hour) }, nil,
			revoked.Active, revoked.ReasonActive, ""},
		{"longer lifetime", func(j *jwt) { j.ExpiresAt = j.IssuedAt.Add(time.Hour) + 1 }, nil,
			revoked.Suspended, revoked.ReasonIssuer, revoked.RefusedLifetime},
		{"C25: issued before an increase, longer than allowed then", nil, record(func(i *issuer) {
			i.EarlierLifetime, i.LifetimeSince = 29*time.Minute, now
		}), revoked.Suspended, revoked.ReasonIssuer, revoked.RefusedLifetime},
		{"C25: issued after an increase", nil, record(func(i *issuer) {
			i.EarlierLifetime, i.LifetimeSince = 29*time.Minute, now.Add(-time.Hour)
		}), revoked.Active, revoked.ReasonActive, ""},
		{"iat in the future, within the skew", func(j *jwt) { j.IssuedAt = now.Add(5 * time.Second) }, nil,
			revoked.Active, revoked.ReasonActive, ""},
		{"iat beyond the skew", func(j *jwt) { j.IssuedAt = now.Add(6 * time.Second) }, nil,
			revoked.NotYet, revoked.ReasonNotYetValid, ""},
		{"iat beyond the skew by the log", func(j *jwt) { j.IssuedAt = now.Add(6 * time.Second) },
			func(i *in) { i.Now = now.Add(time.Minute) }, revoked.NotYet, revoked.ReasonNotYetValid, ""},
		{"nbf in the future, within the skew", func(j *jwt) { j.NotBefore = now.Add(5 * time.Second) }, nil,
			revoked.Active, revoked.ReasonActive, ""},
		{"nbf beyond the skew", func(j *jwt) { j.NotBefore = now.Add(5*time.Second) + 1 }, nil,
			revoked.NotYet, revoked.ReasonNotYetValid, ""},
		{"C30: cut off, issued with a fast clock", func(j *jwt) { j.IssuedAt = now.Add(4 * time.Second) },
			cutoff(now), revoked.Dead, revoked.ReasonCutOff, ""},
		{"C30: cut off at the end of the skew", func(j *jwt) { j.IssuedAt = now.Add(5 * time.Second) },
			cutoff(now), revoked.Dead, revoked.ReasonCutOff, ""},
		{"C30: issued after the cut-off and the skew", func(j *jwt) { j.IssuedAt = now.Add(-time.Second) },
			cutoff(now.Add(-10 * time.Second)), revoked.Active, revoked.ReasonActive, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iss := revoked.DefaultIssuer()
			iss.Issuer, iss.MaxLifetime = "https://as.example", time.Hour
			j := jwt{Issuer: iss.Issuer, ClientID: "app", Audience: []string{"rs"},
				IssuedAt: now.Add(-10 * time.Minute), ExpiresAt: now.Add(20 * time.Minute)}
			if tt.token != nil {
				tt.token(&j)
			}
			i := in{Now: now, Stamp: now, Issuer: &iss, Key: revoked.KeyActive}
			if tt.change != nil {
				tt.change(&i)
			}
			r := j.Record()
			want := revoked.Decision{Verdict: tt.want, Reason: tt.reason, IssuerReason: tt.issuer}
			if got := revoked.Decide(&r, i); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestDecide_Registered_NamesTheRule(t *testing.T) {
	const now = revoked.Time(1_790_000_000 * 1e6)
	type record = revoked.Record
	type in = revoked.DecideInput
	ended := func(r *record) { r.Grant.Revoked = &revoked.Revocation{By: "admin"} }
	state := func(s revoked.TokenState) func(*record) { return func(r *record) { r.Token.State = s } }
	covered := func(*revoked.Grant, *revoked.Token, time.Duration) bool { return true }
	for _, tt := range []struct {
		name   string
		token  func(*record)
		change func(*in)
		want   revoked.Verdict
		reason revoked.Reason
	}{
		{"active", nil, nil, revoked.Active, revoked.ReasonActive},
		{"not found", func(r *record) { *r = record{} }, nil, revoked.Unknown, revoked.ReasonUnknown},
		{"of a revoked grant", ended, nil, revoked.Dead, revoked.ReasonRevoked},
		{"rotated", state(revoked.Rotated), nil, revoked.Dead, revoked.ReasonRotated},
		{"rotated, of a revoked grant", func(r *record) { ended(r); r.Token.State = revoked.Rotated }, nil,
			revoked.Dead, revoked.ReasonRevoked},
		{"expired stub", state(revoked.Expired), nil, revoked.Dead, revoked.ReasonExpired},
		{"stub of a cut-off", state(revoked.Revoked), nil, revoked.Dead, revoked.ReasonCutOff},
		{"stub that outlived its grant",
			func(r *record) { r.Grant, r.Token.State = revoked.Grant{}, revoked.Revoked }, nil,
			revoked.Dead, revoked.ReasonRevoked},
		{"denied", nil, func(i *in) { i.Denied = true }, revoked.Dead, revoked.ReasonDenied},
		{"denied and expired", state(revoked.Expired), func(i *in) { i.Denied = true },
			revoked.Dead, revoked.ReasonExpired},
		{"cut off", nil, func(i *in) { i.Cutoff = covered }, revoked.Dead, revoked.ReasonCutOff},
		{"expired by the log", func(r *record) { r.Token.ExpiresAt = now }, nil, revoked.Dead, revoked.ReasonExpired},
		{"expired by the clock", func(r *record) { r.Token.ExpiresAt = now + 1 }, func(i *in) { i.Now = now + 1 },
			revoked.PastExpiry, revoked.ReasonExpired},
		{"not yet valid", func(r *record) { r.Token.NotBefore = now + 1 }, nil, revoked.NotYet, revoked.ReasonNotYetValid},
		{"of a disabled client", nil, func(i *in) { i.Client = &revoked.Client{Disabled: true} },
			revoked.Suspended, revoked.ReasonClientDisabled},
		{"of no client", nil, func(i *in) { i.Client = nil }, revoked.Suspended, revoked.ReasonClientUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := record{Found: true, Token: revoked.Token{Kind: revoked.AccessToken, State: revoked.Live, GrantID: "g"},
				Grant: revoked.Grant{ID: "g", ClientID: "app"}}
			if tt.token != nil {
				tt.token(&r)
			}
			i := in{Now: now, Stamp: now, Client: &revoked.Client{ID: "app"}}
			if tt.change != nil {
				tt.change(&i)
			}
			if got, want := revoked.Decide(&r, i), (revoked.Decision{Verdict: tt.want, Reason: tt.reason}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A key must encode its parts unambiguously.
func TestDenialKeys_DifferentTokens_Differ(t *testing.T) {
	d := []revoked.Digest{revoked.DigestToken("a"), revoked.DigestToken("b")}
	seen := map[revoked.Digest]int{}
	for i, j := range []revoked.JWT{
		{Issuer: "ab", JTI: "c"}, {Issuer: "a", JTI: "bc"}, {Issuer: "", JTI: "abc"}, {Issuer: "ab", GrantID: "c"},
		{Issuer: "ab", Session: "c"}, {Issuer: "ab", Digests: d}, {Issuer: "b"},
	} {
		want := len(j.Digests) + len(j.JTI+j.GrantID+j.Session)
		keys := j.DenialKeys()
		if want > 0 && len(keys) != max(1, len(j.Digests)) || want == 0 && len(keys) != 0 {
			t.Errorf("%+v: got %d keys", j, len(keys))
		}
		for _, k := range keys {
			if other, twice := seen[k]; twice {
				t.Errorf("token %d and token %d: got the same key", i, other)
			}
			seen[k] = i
		}
	}
}

func TestHasThreeParts_TwoDots(t *testing.T) {
	for token, want := range map[string]bool{
		"aZ0-.b_9.c": true, "a..": true, "a.b.c=": true, "": false, "a": false, "a.b": false, "a.b.c.d": false,
	} {
		if got := revoked.HasThreeParts([]byte(token)); got != want {
			t.Errorf("%q: got %t, want %t", token, got, want)
		}
	}
}
