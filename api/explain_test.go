package api_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// explain sends a body to POST /v1/explain.
func (b *bench) explain(t testing.TB, who, body string) (status int, doc map[string]any, raw string) {
	t.Helper()
	w := b.do(call{path: "/v1/explain", auth: as(who), body: body, contentType: "application/json"})
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, doc, w.Body.String()
}

func explainBody(member, value, as string) string {
	if as == "" {
		return fmt.Sprintf(`{%q:%q}`, member, value)
	}
	return fmt.Sprintf(`{%q:%q,"as":%q}`, member, value, as)
}

// cutOff revokes the tokens of the subject alice that were issued until now.
func (b *bench) cutOff(t testing.TB, reason string) {
	t.Helper()
	if _, err := b.node.RevokeMatching(t.Context(), actorOf(b, "admin"), revoked.CutoffRequest{
		Selector: revoked.Selector{Subject: "alice"}, Reason: reason}); err != nil {
		t.Fatal(err)
	}
}

func actorOf(b *bench, id string) revoked.Actor {
	c, _ := b.node.Client(id)
	return revoked.ActorOf(c)
}

func (b *bench) revokeRaw(t testing.TB, who, token string) {
	t.Helper()
	if w := b.do(call{path: pathRevoke, auth: as(who), body: "token=" + url.QueryEscape(token)}); w.Code != 200 {
		t.Fatalf("revoke: got %d %s, want 200", w.Code, w.Body)
	}
}

func TestExplain_EachReason_HasItsMembers(t *testing.T) {
	const exp = `"issued_at":1790000000,"expires_at":1790003600,"audience":["rs1"],"scope":"read write",`
	const grant = `"grant_id":"g1","client_id":"c1","subject":"alice","session":"s1","issuer":"https://as.example",`
	const access = grant + `"jti":"j1",` + exp
	const ofJWT = `"grant_id":"g","client_id":"c1","subject":"alice","issuer":"https://jwt.example","jti":"j1",` + exp
	head := func(active bool, reason, kind string) string {
		return fmt.Sprintf(`{"active":%t,"reason":%q,"kind":%q,`, active, reason, kind)
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, b *bench, i jwtIssuer) (token string) // "": AT1
		as     string
		want   string // the answer without node, applied_index and lease_left_ms
	}{
		{"active", nil, "", head(true, "active", "registered") + access},
		{"for its audience", nil, "rs1", head(true, "active", "registered") + access},
		{"for its client", nil, "c1", head(true, "active", "registered") + access},
		{"for another audience", nil, "rs2", head(false, "audience", "registered") + access},
		{"for another client", nil, "c2", head(false, "audience", "registered") + access},
		{"refresh token for a resource server", func(*testing.T, *bench, jwtIssuer) string { return "RT1" }, "rs1",
			head(false, "refresh_token", "registered") + grant +
				`"issued_at":1790000000,"expires_at":1792592000,"audience":["rs1"],"scope":"read write",`},
		{"unknown", func(*testing.T, *bench, jwtIssuer) string { return "no such token" }, "",
			head(false, "unknown", "unknown")},
		{"unknown with a tombstone", func(t *testing.T, b *bench, _ jwtIssuer) string {
			b.revokeRaw(t, "c1", "lost")
			return "lost"
		}, "", head(false, "denied", "unknown") + `"revoked":{"at":1790000100,"by":"c1","reason":"","index":#},`},
		{"revoked", func(t *testing.T, b *bench, _ jwtIssuer) string {
			if _, err := b.node.DeleteGrant(t.Context(), actorOf(b, "admin"), "g1", "stolen"); err != nil {
				t.Fatal(err)
			}
			return ""
		}, "rs2", head(false, "revoked", "registered") + grant + `"expires_at":1790003600,` +
			`"revoked":{"at":1790000100,"by":"admin","reason":"stolen","index":#},`},
		{"rotated", func(t *testing.T, b *bench, _ jwtIssuer) string {
			b.registerMore(t, "g1", revoked.TokenRegistration{Digest: revoked.DigestToken("RT1b"),
				Kind: revoked.RefreshToken, IssuedAt: 1_790_000_050_000_000})
			return "RT1"
		}, "", head(false, "rotated", "registered") + grant + `"expires_at":1792592000,`},
		{"expired", func(_ *testing.T, b *bench, _ jwtIssuer) string {
			b.now = b.now.Add(time.Hour)
			return ""
		}, "", head(false, "expired", "registered") + access},
		{"not yet valid", func(t *testing.T, b *bench, _ jwtIssuer) string {
			b.registerMore(t, "g1", revoked.TokenRegistration{Digest: revoked.DigestToken("later"), Kind: revoked.AccessToken,
				IssuedAt: 1_790_000_000_000_000, NotBefore: 1_790_001_000_000_000})
			return "later"
		}, "", head(false, "not_yet_valid", "registered") + grant +
			`"issued_at":1790000000,"audience":["rs1"],"scope":"read write",`},
		{"cut off", func(t *testing.T, b *bench, _ jwtIssuer) string {
			b.cutOff(t, "account closed")
			return ""
		}, "rs1", head(false, "cut_off", "registered") + access + `"cutoff":{"selector":{"subject":"alice"},` +
			`"issued_before":1790000100,"index":#,"by":"admin","at":1790000100,"reason":"account closed"},`},
		{"of a disabled client", func(_ *testing.T, b *bench, _ jwtIssuer) string {
			b.node.change("c1", func(c *revoked.Client) { c.Disabled = true })
			return ""
		}, "rs1", head(false, "client_disabled", "registered") + access},
		{"JWT", jwtToken(nil), "rs1", head(true, "active", "jwt") + ofJWT},
		{"JWT of the issuer's client c1, for our c1", jwtToken(nil), "c1", head(false, "audience", "jwt") + ofJWT},
		{"JWT of a deleted client", func(t *testing.T, b *bench, i jwtIssuer) string {
			if _, err := b.node.DeleteClient(t.Context(), actorOf(b, "admin"), "c1"); err != nil {
				t.Fatal(err)
			}
			b.now = b.now.Add(2 * time.Minute)
			b.node.change("rs2", func(*revoked.Client) {}) // moves the time of the log forward, too
			return i.sign(map[string]any{"iat": 1_790_000_200})
		}, "rs1", head(false, "client_unknown", "jwt") + strings.Replace(ofJWT, "1790000000", "1790000200", 1)},
		{"JWT denied by its jti", func(t *testing.T, b *bench, i jwtIssuer) string {
			if _, err := b.node.RevokeJTI(t.Context(), actorOf(b, "admin"),
				revoked.JTIRevocation{Issuer: "https://jwt.example", JTI: "j1", Reason: "leaked"}); err != nil {
				t.Fatal(err)
			}
			return i.sign(nil)
		}, "rs1", head(false, "denied", "jwt") + ofJWT + `"revoked":{"at":1790000100,"by":"admin","reason":"leaked","index":#},`},
		{"JWT of a disabled issuer", func(t *testing.T, b *bench, i jwtIssuer) string {
			b.changeIssuer(t, func(i *revoked.Issuer) { i.Disabled = true })
			return i.sign(nil)
		}, "rs1", head(false, "issuer", "jwt") + ofJWT + `"issuer_reason":"disabled",`},
		{"JWT without an audience", jwtToken(map[string]any{"aud": nil}), "rs1", head(false, "issuer", "jwt") +
			strings.Replace(ofJWT, `"audience":["rs1"],`, "", 1) + `"issuer_reason":"audience",`},
		{"JWT of a banned key", func(t *testing.T, b *bench, i jwtIssuer) string {
			thumbprint := b.node.Issuers()[0].Keys[0].Thumbprint
			if _, err := b.node.BanIssuerKey(t.Context(), actorOf(b, "admin"), "jwt", thumbprint); err != nil {
				t.Fatal(err)
			}
			return i.sign(nil)
		}, "", head(false, "issuer", "jwt") + ofJWT + `"issuer_reason":"kid",`},
		{"JWT with a wrong signature", func(_ *testing.T, _ *bench, i jwtIssuer) string {
			return forge(i.sign(nil), `{"iss":"https://jwt.example","sub":"mallory"}`)
		}, "rs1", head(false, "issuer", "jwt") + `"issuer_reason":"signature",`},
		{"JWT of another issuer", jwtToken(map[string]any{"iss": "https://x.example"}), "",
			head(false, "issuer", "jwt") + `"issuer_reason":"issuer",`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			i, token := b.node.trust(t, func(i *revoked.Issuer) { i.GrantClaim = "gid" }), ""
			if tt.change != nil {
				token = tt.change(t, b, i)
			}
			if token == "" {
				token = "AT1"
			}
			status, doc, raw := b.explain(t, "admin", explainBody("token", token, tt.as))
			tail := fmt.Sprintf(`"node":"memory","applied_index":%d,"lease_left_ms":1500}`, b.node.fsm.Applied())
			want := tt.want + tail
			for _, of := range []string{"revoked", "cutoff"} {
				if m, ok := doc[of].(map[string]any); ok {
					want = strings.Replace(want, `"index":#`, fmt.Sprintf(`"index":%v`, m["index"]), 1)
				}
			}
			if status != 200 || strings.TrimSpace(raw) != want {
				t.Fatalf("got %d %s, want %s", status, raw, want)
			}
			if doc["kind"] == "jwt" {
				return // a digest is not enough to verify a JWT
			}
			digest := revoked.DigestToken(token).String()
			if _, _, byDigest := b.explain(t, "admin", explainBody("digest", digest, tt.as)); byDigest != raw {
				t.Errorf("by the digest: got %s, want %s", byDigest, raw)
			}
		})
	}
}

func jwtToken(changes map[string]any) func(*testing.T, *bench, jwtIssuer) string {
	return func(_ *testing.T, _ *bench, i jwtIssuer) string { return i.sign(changes) }
}

// registerMore adds a token to the grant g1.
func (b *bench) registerMore(t testing.TB, grant string, token revoked.TokenRegistration) {
	t.Helper()
	res, err := b.node.Register(t.Context(), actorOf(b, "iss"), []revoked.Registration{{GrantID: grant, ClientID: "c1",
		Scope: "read write", Audience: []string{"rs1"}, Tokens: []revoked.TokenRegistration{token}}})
	if err != nil || res[0].Err != nil {
		t.Fatal(err, res)
	}
}

func (b *bench) changeIssuer(t testing.TB, change func(*revoked.Issuer)) {
	t.Helper()
	i := *b.node.Issuers()[0]
	change(&i)
	if _, err := b.node.commit("", command.PutIssuerOp(b.node.setupActor(), &i, i.Version)); err != nil {
		t.Fatal(err)
	}
}

func TestExplain_BadRequests_AreRefused(t *testing.T) {
	b := newBench(t)
	digest := revoked.DigestToken("AT1").String()
	for body, want := range map[string]int{
		`{}`:                              400,
		`{"token":""}`:                    400,
		`{"digest":""}`:                   400,
		`{"digest":"` + digest[1:] + `"}`: 400,
		`{"token":"AT1","digest":"` + digest + `"}`:         400,
		`{"token":"AT1","as":""}`:                           400,
		`{"token":"AT1","color":1}`:                         400,
		`{"token":"` + strings.Repeat("x", 16<<10+1) + `"}`: 400,
		`{"token":"` + strings.Repeat("x", 64<<10) + `"}`:   413,
		`{"token":"AT1","as":"nobody"}`:                     422,
		`{"token":"AT1","as":"cd"}`:                         422, // disabled
		`{"token":"AT1","as":"pub1"}`:                       422, // public
		`{"token":"no such token","as":"x"}`:                422,
	} {
		if status, _, raw := b.explain(t, "admin", body); status != want {
			t.Errorf("%.80s: got %d %s, want %d", body, status, raw, want)
		}
	}
	for _, who := range []string{"c1", "rs1", "iss", "ops", "aud"} {
		if status, _, raw := b.explain(t, who, `{"token":"AT1"}`); status != 403 {
			t.Errorf("%s: got %d %s, want 403", who, status, raw)
		}
	}
	if w := b.do(call{method: "GET", path: "/v1/explain", auth: as("admin"), contentType: "-"}); w.Code != 405 {
		t.Errorf("GET: got %d, want 405", w.Code)
	}
}

// Without a current copy the answer is 503, as for introspection. Only a caller that may not see
// the token gets an answer.
func TestExplain_NotCurrent_EqualsIntrospection(t *testing.T) {
	b := newBench(t)
	b.node.fail = func(method string) error {
		if method == "Explain" || method == "Status" {
			return revoked.ErrNotCurrent
		}
		return nil
	}
	for who, want := range map[string]int{"": 503, "rs1": 503, "c1": 503, "rs2": 200, "c2": 200} {
		status, doc, raw := b.explain(t, "admin", explainBody("token", "AT1", who))
		if status != want || want == 200 && (doc["active"] != false || doc["reason"] != "audience") {
			t.Errorf("as %q: got %d %s, want %d", who, status, raw, want)
		}
		if who == "" {
			continue
		}
		if w := b.do(call{path: pathIntrospect, auth: as(who), body: "token=AT1"}); w.Code != want {
			t.Errorf("introspection by %s: got %d %s, want %d", who, w.Code, w.Body, want)
		}
	}
}

// The response and the log must not contain the token, wherever the caller puts it.
func TestExplain_Token_IsNeverRepeated(t *testing.T) {
	const canary = "c4n4ry-t0ken"
	b := newBench(t)
	i := b.node.trust(t, nil)
	b.registerMore(t, "g1", revoked.TokenRegistration{Digest: revoked.DigestToken(canary), Kind: revoked.AccessToken})
	jwt := i.sign(map[string]any{"jti": "other"})
	signature := jwt[strings.LastIndexByte(jwt, '.')+1:]
	for _, body := range []string{
		explainBody("token", canary, ""), explainBody("token", canary, "rs2"), explainBody("token", canary+"x", ""),
		explainBody("digest", canary, ""), explainBody("token", "AT1", canary), explainBody(canary, "x", ""),
		`{"token":"` + canary, canary, `{"token":"` + canary + `\x"}`, explainBody("token", jwt, ""),
		explainBody("token", forge(jwt, `{"iss":"https://jwt.example"}`), ""), explainBody("as", jwt, ""),
	} {
		_, _, raw := b.explain(t, "admin", body)
		if strings.Contains(raw, canary) || strings.Contains(raw, signature) {
			t.Errorf("%s: got the token in the answer %s, want none", body, raw)
		}
	}
	metrics := b.do(call{method: http.MethodGet, path: "/metrics", contentType: "-"}).Body.String()
	for what, text := range map[string]string{"log": b.log.String(), "metrics": metrics} {
		if !strings.Contains(text, "/v1/explain") {
			t.Errorf("%s: got nothing about /v1/explain, want the call", what)
		}
		if strings.Contains(text, canary) || strings.Contains(text, signature) {
			t.Errorf("%s: got the token, want none", what)
		}
	}
}

// An administrator is throttled after too many unknown tokens, as for introspection.
func TestExplain_UnknownTokens_AreThrottled(t *testing.T) {
	b := newBench(t)
	last := 0
	for k := 0; last != 429 && k < 5000; k++ {
		last, _, _ = b.explain(t, "admin", explainBody("token", fmt.Sprint("unknown ", k), ""))
	}
	if last != 429 {
		t.Errorf("got %d, want 429 in the end", last)
	}
}

// In any state, the explanation for a client reports active exactly if introspection by this client
// does.
func TestExplain_RandomStates_EqualIntrospection(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	seen := map[string]int{}
	for range 60 {
		b := newBench(t)
		i := b.node.trust(t, func(i *revoked.Issuer) {
			i.GrantClaim, i.OwnClients, i.RefuseUnknownClients = "gid", random.IntN(2) == 0, random.IntN(3) == 0
		})
		tokens := []string{"AT1", "RT1", "AT2", "RT2", "nobody's", i.sign(nil),
			i.sign(map[string]any{"jti": "j2", "gid": "g1", "client_id": "x"}), i.sign(map[string]any{"aud": nil}),
			i.sign(map[string]any{"exp": 1_790_000_130}), forge(i.sign(nil), `{"iss":"https://jwt.example"}`)}
		pick := func() string { return tokens[random.IntN(len(tokens))] }
		for range random.IntN(4) {
			b.randomChange(t, random, pick)
		}
		for _, token := range tokens {
			for _, who := range []string{"c1", "c2", "rs1", "rs2", "iss", "admin"} {
				c, _ := b.node.Client(who)
				if c == nil || c.Disabled {
					continue // this client cannot introspect
				}
				active := strings.HasPrefix(b.introspectAs(t, who, token), `{"active":true`)
				status, doc, raw := b.explain(t, "admin", explainBody("token", token, who))
				seen[fmt.Sprint(doc["reason"])]++
				if status != 200 || doc["active"] != active || (doc["reason"] == "active") != active {
					t.Fatalf("seed %d, %.20s as %s: got %d %s, want active %t", seed, token, who, status, raw, active)
				}
			}
		}
	}
	for _, reason := range []string{"active", "audience", "refresh_token", "unknown", "issuer"} {
		if seen[reason] == 0 {
			t.Errorf("seed %d: got no answer with the reason %s, want one: %v", seed, reason, seen)
		}
	}
}

// randomChange makes one random change of the state that may make tokens inactive.
func (b *bench) randomChange(t *testing.T, random *rand.Rand, token func() string) {
	t.Helper()
	admin := actorOf(b, "admin")
	client := []string{"c1", "c2", "rs1"}[random.IntN(3)]
	var err error
	switch random.IntN(9) {
	case 0:
		b.revokeRaw(t, "admin", token())
	case 1:
		b.cutOff(t, "")
	case 2:
		if _, ok := b.node.Client(client); ok {
			b.node.change(client, func(c *revoked.Client) { c.Disabled = !c.Disabled })
		}
	case 3:
		_, err = b.node.DeleteClient(t.Context(), admin, client)
	case 4:
		_, err = b.node.RevokeJTI(t.Context(), admin, revoked.JTIRevocation{Issuer: "https://jwt.example", JTI: "j1"})
	case 5:
		_, err = b.node.DeleteGrant(t.Context(), admin, "g1", "")
	case 6:
		b.changeIssuer(t, func(i *revoked.Issuer) { i.Disabled = !i.Disabled })
	case 7:
		b.now = b.now.Add(time.Minute)
	case 8:
		b.node.change("rs2", func(c *revoked.Client) { c.Audiences = []string{"rs1"} })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Contract 6: a viewer gets the reason, but no subject and no session at any depth of the answer.
// All other members equal those that an administrator gets, for every value of as.
func TestExplain_Viewer_SeesNoUser(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, b *bench, i jwtIssuer) (token string){
		"active":  nil,
		"unknown": func(*testing.T, *bench, jwtIssuer) string { return "no such token" },
		"JWT":     jwtToken(nil),
		"cut off by subject": func(t *testing.T, b *bench, _ jwtIssuer) string {
			b.cutOff(t, "closed")
			return ""
		},
		"cut off by client and session": func(t *testing.T, b *bench, _ jwtIssuer) string {
			if _, err := b.node.RevokeMatching(t.Context(), actorOf(b, "admin"), revoked.CutoffRequest{
				Selector: revoked.Selector{ClientID: "c1", Session: "s1"}}); err != nil {
				t.Fatal(err)
			}
			return ""
		},
		"cut off by client": func(t *testing.T, b *bench, _ jwtIssuer) string {
			if _, err := b.node.RevokeMatching(t.Context(), actorOf(b, "admin"), revoked.CutoffRequest{
				Selector: revoked.Selector{ClientID: "c1"}}); err != nil {
				t.Fatal(err)
			}
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			token := "AT1"
			i := b.node.trust(t, func(i *revoked.Issuer) { i.GrantClaim = "gid" })
			if change != nil {
				token = cmp.Or(change(t, b, i), token)
			}
			for _, as := range []string{"", "rs1", "c1", "eye"} {
				_, all, _ := b.explain(t, "admin", explainBody("token", token, as))
				status, got, raw := b.explain(t, "eye", explainBody("token", token, as))
				if status != 200 || strings.Contains(raw, "alice") || strings.Contains(raw, `"s1"`) {
					t.Errorf("as %q: got %d %s, want no subject and no session", as, status, raw)
				}
				delete(all, "subject")
				delete(all, "session")
				if c, ok := all["cutoff"].(map[string]any); ok {
					sel := c["selector"].(map[string]any)
					if sel["subject"] != nil || sel["session"] != nil {
						c["withheld"] = true
					}
					delete(sel, "subject")
					delete(sel, "session")
				}
				if !reflect.DeepEqual(got, all) {
					t.Errorf("as %q: got %v, want %v", as, got, all)
				}
			}
		})
	}
}

// If the keys of an issuer cannot be fetched, only an administrator sees their address.
func TestExplain_KeysNotFetched_ViewerSeesNoAddress(t *testing.T) {
	b := newBench(t)
	b.node.fail = func(method string) error {
		if method == "Explain" {
			return fmt.Errorf("%w: https://internal.example/jwks: refused", revoked.ErrKeysNotFetched)
		}
		return nil
	}
	for who, shown := range map[string]bool{"admin": true, "eye": false} {
		status, _, raw := b.explain(t, who, `{"token":"AT1"}`)
		if status != 503 || strings.Contains(raw, "internal.example") != shown {
			t.Errorf("%s: got %d %s, want 503 and the address %v", who, status, raw, shown)
		}
	}
}
