package bearer_test

import (
	"context"
	"encoding/base64"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// twin returns the same token with the other valid ES256 signature, (r, n-s).
func twin(t testing.TB, token string) string {
	t.Helper()
	head, last := token[:strings.LastIndexByte(token, '.')+1], token[strings.LastIndexByte(token, '.')+1:]
	sig, err := base64.RawURLEncoding.DecodeString(last)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	n.Sub(n, new(big.Int).SetBytes(sig[32:])).FillBytes(sig[32:])
	return head + base64.RawURLEncoding.EncodeToString(sig)
}

func TestStatus_ActiveJWT_ReturnsItsClaims(t *testing.T) {
	m := newMachine(t, nil)
	for _, s := range signers() {
		st := m.status(s.sign(nil))
		tok, g := &st.Record.Token, &st.Record.Grant
		if st.Verdict != revoked.Active || !st.Foreign || tok.Scope != "read" || tok.JTI != "j1" || g.ClientID != "app" ||
			g.Subject != "alice" || g.Issuer != iss || g.Session != "s-1" || tok.ExpiresAt != start.Add(time.Hour) {
			t.Errorf("%s: got %+v, want the token active with its claims", s.alg, st)
		}
	}
	es := signers()[1]
	for name, token := range map[string]string{
		"JW-02: changed signature": es.sign(nil)[:len(es.sign(nil))-6] + "AAAAAA",
		"unknown issuer":           es.sign(map[string]any{"iss": "https://x.example"}),
		"no expiry":                es.sign(map[string]any{"exp": nil}),
		"unknown key":              signer{es.alg, "other", es.key}.sign(nil),
		"of another key":           signer{signers()[0].alg, "ec", signers()[0].key}.sign(nil),
		"three parts":              "a.b.c",
		"JW-10: with padding":      es.sign(nil) + "=",
		"JW-10: with a line break": es.sign(nil) + "\n",
	} {
		m.want(name, token, revoked.Unknown)
	}
	m.want("too long-lived", es.sign(map[string]any{"exp": start.Unix() + 100_000}), revoked.Suspended)
	m.want("expired", es.sign(map[string]any{"exp": start.Unix() - 1}), revoked.Dead)
}

// C34: a verdict is as new as the state, regardless of what the cache holds. Each change comes
// after the token was found active twice.
func TestStatus_Change_EndsCachedJWT(t *testing.T) {
	es := signers()[1]
	put := func(change func(*revoked.Issuer)) func(*machine, string) {
		return func(m *machine, _ string) { m.change(change) }
	}
	reg := func(m *machine, token string, end bool) {
		r := revoked.Registration{GrantID: "r-1", ClientID: "app", Subject: "alice",
			Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken(token), Kind: revoked.AccessToken,
				IssuedAt: start, ExpiresAt: start.Add(time.Hour)}}}
		m.must(command.RegisterOp(m.by("issuer"), r))
		if end {
			m.must(command.DeleteGrantOp(m.by("admin"), "r-1", ""))
		}
	}
	jti := func(m *machine, id string) {
		m.must(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: iss, JTI: id}, ""))
	}
	dead, suspended := revoked.Dead, revoked.Suspended
	for _, tt := range []struct {
		name   string
		change func(m *machine, token string)
		want   revoked.Verdict
	}{
		{"revoked by jti", func(m *machine, _ string) { jti(m, "j1") }, dead},
		{"another jti revoked", func(m *machine, _ string) { jti(m, "j2") }, revoked.Active},
		{"revoked", func(m *machine, token string) {
			m.must(command.RevokeJWTOp(m.by("admin"), m.verified(token), ""))
		}, dead},
		{"C26: revoked with its other signature", func(m *machine, token string) {
			m.change(func(i *revoked.Issuer) { i.JTI = false })
			m.awaitCached(token)
			m.must(command.RevokeJWTOp(m.by("admin"), m.verified(twin(m.t, token)), ""))
		}, dead},
		{"another token of its grant revoked", func(m *machine, _ string) {
			m.must(command.RevokeJWTOp(m.by("admin"), m.verified(es.sign(map[string]any{"jti": "j2"})), ""))
		}, dead},
		{"a registered grant that it claims ended", func(m *machine, _ string) {
			m.must(command.RegisterOp(m.by("issuer"), revoked.Registration{GrantID: "g-1", ClientID: "app", Issuer: iss,
				Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("r"), Kind: revoked.RefreshToken}}}))
			m.must(command.RevokeOp(m.by("app"), revoked.DigestToken("r"), ""))
		}, dead},
		{"tombstone of its digest", func(m *machine, token string) {
			m.must(command.RevokeOp(m.by("admin"), revoked.DigestToken(token), ""))
		}, dead},
		{"tombstone of its twin", func(m *machine, token string) {
			m.must(command.RevokeOp(m.by("admin"), revoked.DigestToken(twin(m.t, token)), ""))
		}, dead},
		{"registered, and revoked", func(m *machine, token string) { reg(m, token, true) }, dead},
		{"registered with its other signature, and revoked",
			func(m *machine, token string) { reg(m, twin(m.t, token), true) }, dead},
		{"registered", func(m *machine, token string) { reg(m, token, false) }, revoked.Active},
		{"cut off", func(m *machine, _ string) {
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
		}, dead},
		{"client disabled", func(m *machine, _ string) {
			c, _ := m.Client("app")
			next := *c
			next.Disabled = true
			m.must(command.PutClientOp(m.by("admin"), &next, c.Version))
		}, suspended},
		{"client deleted", func(m *machine, _ string) {
			m.must(command.DeleteClientOp(m.by("admin"), "app"))
		}, dead}, // because of the cut-off
		{"key banned", func(m *machine, _ string) {
			m.must(command.BanIssuerKeyOp(m.by("admin"), "as1", es.record().Thumbprint))
		}, dead},
		{"key missing from the inline set",
			put(func(i *revoked.Issuer) { i.Keys = []revoked.IssuerKey{signers()[0].record()} }), dead},
		{"issuer disabled", put(func(i *revoked.Issuer) { i.Disabled = true }), suspended},
		{"issuer deleted", func(m *machine, _ string) { m.must(command.DeleteIssuerOp(m.by("admin"), "as1")) }, dead},
		{"its grant by an earlier claim revoked", func(m *machine, token string) {
			sibling := es.sign(map[string]any{"jti": "j2"})
			m.change(func(i *revoked.Issuer) { i.GrantClaim, i.SessionClaim = "", "" })
			m.awaitCached(token)
			m.must(command.RevokeJWTOp(m.by("admin"), m.verified(sibling), ""))
		}, dead},
		{"a registered grant of an earlier claim ended", func(m *machine, token string) {
			m.change(func(i *revoked.Issuer) { i.GrantClaim = "" })
			m.must(command.RegisterOp(m.by("issuer"), revoked.Registration{GrantID: "g-1", ClientID: "app", Issuer: iss,
				Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("r"), Kind: revoked.RefreshToken}}}))
			m.awaitCached(token)
			m.must(command.RevokeOp(m.by("app"), revoked.DigestToken("r"), ""))
		}, dead},
		{"its client by an earlier claim disabled", func(m *machine, token string) {
			m.change(func(i *revoked.Issuer) { i.ClientClaim = "sub" })
			m.awaitCached(token)
			c, _ := m.Client("app")
			next := *c
			next.Disabled = true
			m.must(command.PutClientOp(m.by("admin"), &next, c.Version))
		}, suspended},
		{"shorter lifetime", put(func(i *revoked.Issuer) { i.MaxLifetime = time.Minute }), suspended},
		{"another type", put(func(i *revoked.Issuer) { i.TokenTypes = []string{"access"} }), revoked.Unknown},
		{"expired", func(m *machine, _ string) {
			m.now = start.Add(time.Hour)
			m.apply(&command.Tick{Stamp: int64(m.now)})
		}, dead},
		{"expired by the clock", func(m *machine, _ string) { m.now = start.Add(time.Hour) }, revoked.PastExpiry},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, func(i *revoked.Issuer) { i.GrantClaim = "gid" })
			token := es.sign(nil)
			other := twin(t, token)
			m.awaitCached(token)
			m.awaitCached(other)
			tt.change(m, token)
			for range 2 {
				m.want("after", token, tt.want)
				m.want("twin, after", other, tt.want)
			}
		})
	}
}

// A call that begins after a revocation was applied never returns a revoked token as active.
func TestStatus_WhileRevoking_NeverActiveAfterwards(t *testing.T) {
	const tokens = 30
	m := newMachine(t, nil)
	ed := signers()[2]
	var list []string
	for i := range tokens {
		list = append(list, ed.sign(map[string]any{"jti": "j" + string(rune('A'+i))}))
	}
	var revokedUpTo atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				before := revokedUpTo.Load()
				st, err := m.Status(context.Background(), present(list[i%tokens]))
				if err != nil {
					t.Error(err)
					return
				}
				if dead := int64(i%tokens) < before; dead && st.Verdict != revoked.Dead {
					t.Errorf("token %d of %d revoked: got verdict %v, want dead", i%tokens, before, st.Verdict)
					return
				}
			}
		})
	}
	for i := range tokens {
		m.must(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: iss, JTI: "j" + string(rune('A'+i))}, ""))
		revokedUpTo.Store(int64(i + 1))
	}
	close(stop)
	readers.Wait()
}

func TestVerify_ForRevocation_AcceptsInactive(t *testing.T) {
	es := signers()[1]
	for name, change := range map[string]func(m *machine){
		"active": func(*machine) {},
		"issuer disabled": func(m *machine) {
			m.change(func(i *revoked.Issuer) { i.Disabled = true })
		},
		"issuer deleted": func(m *machine) { m.must(command.DeleteIssuerOp(m.by("admin"), "as1")) },
		"key retired": func(m *machine) {
			m.change(func(i *revoked.Issuer) { i.Keys = []revoked.IssuerKey{signers()[0].record()} })
		},
		"key banned": func(m *machine) {
			m.must(command.BanIssuerKeyOp(m.by("admin"), "as1", es.record().Thumbprint))
		},
		"expired": func(m *machine) { m.now = start.Add(2 * time.Hour) },
	} {
		m := newMachine(t, nil)
		token := es.sign(nil)
		change(m)
		if j := m.verified(token); len(j.Digests) != 2 || j.Digests[0] != revoked.DigestToken(token) ||
			j.Digests[1] != revoked.DigestToken(twin(t, token)) || j.Thumbprint != es.record().Thumbprint {
			t.Errorf("%s: got %+v, want the JWT with both digests and its key", name, j)
		}
	}
	m := newMachine(t, nil)
	for name, token := range map[string]string{
		"forged": es.sign(nil)[:len(es.sign(nil))-8] + "AAAAAAAA", "not a JWT": "a.b.c",
		"of another issuer": es.sign(map[string]any{"iss": "x"}),
	} {
		if j, err := m.Verify(t.Context(), present(token)); err != nil || j != nil {
			t.Errorf("%s: got %+v, %v, want none", name, j, err)
		}
	}
}

// A lookup of a cached opaque token or JWT neither parses the token nor allocates. That holds even
// if the caller presents another copy of the token.
func TestStatus_CachedToken_AllocatesNothing(t *testing.T) {
	m := newMachine(t, nil)
	m.must(command.RegisterOp(m.by("issuer"), revoked.Registration{GrantID: "g", ClientID: "app",
		Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("opaque"), Kind: revoked.AccessToken}}}))
	for name, token := range map[string]string{"opaque": "opaque", "JWT": signers()[1].sign(nil)} {
		presented := *present(token)
		if isJWT := presented.JWT != nil; isJWT != (name == "JWT") {
			t.Errorf("%s: got the form of a JWT %t", name, isJWT)
		}
		free := false
		for began := time.Now(); !free && time.Since(began) < time.Minute; { // the cache may drop the first entries
			free = testing.AllocsPerRun(10, func() {
				p := presented
				if st, err := m.Status(context.Background(), &p); err != nil || st.Verdict != revoked.Active {
					t.Errorf("%s: got %+v, %v, want it active", name, st, err)
				}
			}) == 0
		}
		if !free {
			t.Errorf("%s: got allocations in every run, want none", name)
		}
	}
}
