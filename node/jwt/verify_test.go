package jwt_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/node/jwt"
)

func TestVerify_EachAlgorithm_Verifies(t *testing.T) {
	for alg, k := range keys() {
		i := newIssuer(t, k.jwk(`"kid":"k1"`))
		r := verify(t, i, k.sign(k.header("k1"), claims(nil)))
		if !r.Verified || r.Reason != "" || r.KeyID != "k1" || r.JWT.Thumbprint != i.Keys[0].Thumbprint {
			t.Errorf("%s: got %+v, want it verified", alg, r)
		}
		i.Algorithms = []string{alg}
		if r := verify(t, i, k.sign(k.header("k1"), claims(nil))); r.Reason != "" {
			t.Errorf("%s named by the issuer: got reason %q", alg, r.Reason)
		}
	}
}

func TestVerify_ValidToken_CopiesClaims(t *testing.T) {
	k := keys()["ES256"]
	i := newIssuer(t, k.jwk(""))
	i.GrantClaim = "grant"
	raw := k.sign(k.header(""), `{"iss":"https://as.example","sub":"alice","aud":["rs1","rs2"],"client_id":"app",
		"azp":"other","jti":"j1","iat":1790000000.9,"exp":1.7900036005e9,"nbf":1790000001.1,"scope":"read write",
		"scp":["unused"],"sid":"s-1","grant":"g-1","preferred_username":"al","username":"unused",
		"cnf":{"x5t#S256":"abc", "n":[1]},"realm_access":{"roles":["a"]}}`)
	r := verify(t, i, raw)
	want := revoked.JWT{
		Issuer: "https://as.example", JTI: "j1", ClientID: "app", Subject: "alice", Session: "s-1", GrantID: "g-1",
		Digests:  []revoked.Digest{revoked.DigestToken(raw), revoked.DigestToken(twinOf(k, raw))},
		IssuedAt: iat * 1e6, ExpiresAt: exp * 1e6, NotBefore: (iat + 2) * 1e6, Scope: "read write", Username: "al",
		Audience: []string{"rs1", "rs2"}, CNF: []byte(`{"x5t#S256":"abc", "n":[1]}`), Thumbprint: i.Keys[0].Thumbprint,
	}
	if !reflect.DeepEqual(r.JWT, want) {
		t.Errorf("got %+v, want %+v", r.JWT, want)
	}
}

// C38 and RFC 8725 section 3.10: a claim of a wrong type or over its limit is refused.
func TestVerify_Claims_AreStrict(t *testing.T) {
	k := keys()["ES256"]
	long := func(n int) string { return strings.Repeat("x", n) }
	list := func(n int, s string) (l []string) {
		for range n {
			l = append(l, s)
		}
		return l
	}
	type m = map[string]any
	for _, tt := range []struct {
		name   string
		claims m
		want   revoked.IssuerReason
	}{
		{"all claims", nil, ""},
		{"no sub, jti, client_id, sid and scope", m{"sub": nil, "jti": nil, "client_id": nil, "sid": nil, "scope": nil}, ""},
		{"empty jti", m{"jti": ""}, ""},
		{"longest texts", m{"sub": long(512), "jti": long(512), "client_id": long(512), "sid": long(512)}, ""},
		{"one audience in a list", m{"aud": []string{"rs1"}}, ""},
		{"64 audiences", m{"aud": list(64, "a")}, ""},
		{"unknown claims of any type", m{"x": 1, "y": []any{nil}, "z": m{"a": true}}, ""},
		{"azp", m{"client_id": nil, "azp": "app"}, ""},
		{"nbf before iat", m{"nbf": iat - 5}, ""},

		{"no exp", m{"exp": nil}, revoked.RefusedClaims},
		{"no iat", m{"iat": nil}, revoked.RefusedClaims},
		{"exp 0", m{"exp": 0}, revoked.RefusedClaims},
		{"exp that is a string", m{"exp": "1790003600"}, revoked.RefusedClaims},
		{"exp in milliseconds", m{"exp": exp * 1000}, revoked.RefusedClaims},
		{"negative iat", m{"iat": -1}, revoked.RefusedClaims},
		{"iat true", m{"iat": true}, revoked.RefusedClaims},
		{"nbf null", m{"nbf": json.RawMessage("null")}, revoked.RefusedClaims},
		{"nbf that is a list", m{"nbf": []int{1}}, revoked.RefusedClaims},
		{"exp at iat", m{"exp": iat}, revoked.RefusedClaims},
		{"exp before nbf", m{"nbf": exp + 1}, revoked.RefusedClaims},
		{"sub that is a number", m{"sub": 7}, revoked.RefusedClaims},
		{"sub null", m{"sub": json.RawMessage("null")}, revoked.RefusedClaims},
		{"long sub", m{"sub": long(513)}, revoked.RefusedClaims},
		{"jti that is a number", m{"jti": 1}, revoked.RefusedClaims},
		{"long jti", m{"jti": long(513)}, revoked.RefusedClaims},
		{"client_id that is a list, with azp", m{"client_id": []string{"app"}, "azp": "app"}, revoked.RefusedClaims},
		{"client_id null, with azp", m{"client_id": json.RawMessage("null"), "azp": "app"}, revoked.RefusedClaims},
		{"empty client_id, with azp", m{"client_id": "", "azp": "app"}, revoked.RefusedClaims},
		{"azp that is a number", m{"client_id": nil, "azp": 1}, revoked.RefusedClaims},
		{"sid that is a number", m{"sid": 1}, revoked.RefusedClaims},
		{"aud that is an object", m{"aud": m{"rs1": true}}, revoked.RefusedClaims},
		{"aud with a number", m{"aud": []any{"rs1", 1}}, revoked.RefusedClaims},
		{"aud with an empty string", m{"aud": []string{"rs1", ""}}, revoked.RefusedClaims},
		{"empty aud", m{"aud": ""}, revoked.RefusedClaims},
		{"65 audiences", m{"aud": list(65, "a")}, revoked.RefusedClaims},
		{"long audience", m{"aud": long(513)}, revoked.RefusedClaims},
		{"scope that is a number", m{"scope": 1}, revoked.RefusedClaims},
		{"scope with a number", m{"scope": []any{"a", 1}}, revoked.RefusedClaims},
		{"scope with two scopes in one", m{"scope": []string{"a b"}}, revoked.RefusedClaims},
		{"scope with an empty one", m{"scope": []string{"a", ""}}, revoked.RefusedClaims},
		{"scp that is a number", m{"scp": 1}, revoked.RefusedClaims},
		{"scp with a number", m{"scp": []any{"a", 1}}, revoked.RefusedClaims},
		{"scp with two scopes in one", m{"scp": []string{"a b"}}, revoked.RefusedClaims},
		{"username that is a number", m{"username": 1}, revoked.RefusedClaims},
		{"preferred_username that is a list", m{"preferred_username": []string{"a"}}, revoked.RefusedClaims},
		{"cnf that is a string", m{"cnf": "abc"}, revoked.RefusedClaims},
		{"long cnf", m{"cnf": m{"a": long(4096)}}, revoked.RefusedClaims},

		{"no aud", m{"aud": nil}, revoked.RefusedAudience},
		{"aud that is an empty list", m{"aud": []string{}}, revoked.RefusedAudience},
		{"longest lifetime", m{"exp": iat + 86400}, ""},
		{"lifetime too long", m{"exp": iat + 86401}, revoked.RefusedLifetime},
		{"last second", m{"exp": 253402300799}, revoked.RefusedLifetime},
		{"expired now", m{"exp": iat + 60}, revoked.RefusedExpired},
		{"expires in a second", m{"exp": iat + 61}, ""},
		{"iat ahead by the skew", m{"iat": iat + 65}, ""},
		{"iat further ahead", m{"iat": iat + 66}, revoked.RefusedNotYetValid},
		{"nbf ahead by the skew", m{"nbf": iat + 65}, ""},
		{"nbf further ahead", m{"nbf": iat + 66}, revoked.RefusedNotYetValid},
		{"nbf a fraction further ahead", m{"nbf": iat + 65.1}, revoked.RefusedNotYetValid},

		{"other iss", m{"iss": "https://as.example/"}, revoked.RefusedIssuer},
		{"iss in a list", m{"iss": []string{"https://as.example"}}, revoked.RefusedIssuer},
		{"no iss", m{"iss": nil}, revoked.RefusedIssuer},
	} {
		r := verify(t, newIssuer(t, k.jwk("")), k.sign(k.header(""), claims(tt.claims)))
		if r.Reason != tt.want {
			t.Errorf("%s: got reason %q, want %q", tt.name, r.Reason, tt.want)
		}
		unbelieved := tt.want == revoked.RefusedClaims || tt.want == revoked.RefusedIssuer
		if r.Verified == unbelieved || r.Verified != (r.JWT.Issuer != "") {
			t.Errorf("%s: got verified %v, claims %+v", tt.name, r.Verified, r.JWT)
		}
	}
}

// The result contains the name of a wrong claim, but never its value.
func TestVerify_WrongClaim_IsNamed(t *testing.T) {
	k := keys()["ES256"]
	i := newIssuer(t, k.jwk(""))
	i.RequiredClaims, i.ForbiddenClaims = map[string]string{"use": "access"}, []string{"nonce"}
	type m = map[string]any
	for _, tt := range []struct {
		want   string
		claims m
	}{
		{"", nil},
		{"exp", m{"exp": nil}},
		{"iat", m{"iat": "soon"}},
		{"exp", m{"nbf": iat + 86400*365}},
		{"nbf", m{"nbf": []int{1}}},
		{"sub", m{"sub": 7}},
		{"aud", m{"aud": ""}},
		{"azp", m{"client_id": nil, "azp": 1}},
		{"scope", m{"scope": 1}},
		{"cnf", m{"cnf": "abc"}},
		{"use", m{"use": "id"}},
		{"nonce", m{"nonce": "1"}},
	} {
		all := m{"use": "access"}
		maps.Copy(all, tt.claims)
		r := verify(t, i, k.sign(k.header(""), claims(all)))
		if r.Claim != tt.want || (r.Reason == revoked.RefusedClaims) != (tt.want != "") {
			t.Errorf("%v: got reason %q, claim %q, want claim %q", tt.claims, r.Reason, r.Claim, tt.want)
		}
	}
}

func TestVerify_OptionsOfTheIssuer_Decide(t *testing.T) {
	k := keys()["ES256"]
	type m = map[string]any
	for _, tt := range []struct {
		name   string
		change func(*revoked.Issuer)
		header string
		claims m
		want   revoked.IssuerReason
		client string
	}{
		{"client claim", func(i *revoked.Issuer) { i.ClientClaim = "cid" }, "", m{"cid": "other"}, "", "other"},
		{"absent client claim", func(i *revoked.Issuer) { i.ClientClaim = "cid" }, "", m{"azp": "a"}, "", ""},
		{"no audience needed", func(i *revoked.Issuer) { i.RequireAudience = false }, "", m{"aud": nil}, "", "app"},
		{"disabled", func(i *revoked.Issuer) { i.Disabled = true }, "", nil, revoked.RefusedDisabled, "app"},
		{"no skew", func(i *revoked.Issuer) { i.ClockSkew = 0 }, "", m{"iat": iat + 61}, revoked.RefusedNotYetValid, "app"},
		{"C25: issued before an increase of the lifetime", func(i *revoked.Issuer) {
			i.EarlierLifetime, i.LifetimeSince = time.Minute, iat*1e6
		}, "", nil, revoked.RefusedLifetime, "app"},
		{"issued after an increase of the lifetime", func(i *revoked.Issuer) {
			i.EarlierLifetime, i.LifetimeSince = time.Minute, (iat-1)*1e6
		}, "", nil, "", "app"},
		{"algorithm not named by the issuer", func(i *revoked.Issuer) { i.Algorithms = []string{"ES384", "RS256"} },
			"", nil, revoked.RefusedAlgorithm, ""},
		{"typ with application/", nil, `{"alg":"ES256","typ":"application/at+JWT"}`, nil, "", "app"},
		{"typ JWT", nil, `{"alg":"ES256","typ":"JWT"}`, nil, revoked.RefusedType, ""},
		{"typ of a logout token", nil, `{"alg":"ES256","typ":"logout+jwt"}`, nil, revoked.RefusedType, ""},
		{"typ of a security event", nil, `{"alg":"ES256","typ":"secevent+jwt"}`, nil, revoked.RefusedType, ""},
		{"no typ", nil, `{"alg":"ES256"}`, nil, revoked.RefusedType, ""},
		{"no typ accepted", func(i *revoked.Issuer) { i.TokenTypes, i.ForbiddenClaims = []string{""}, []string{"nonce"} },
			`{"alg":"ES256"}`, nil, "", "app"},
		{"C37: ID token with a forbidden claim", func(i *revoked.Issuer) {
			i.TokenTypes, i.ForbiddenClaims = []string{"JWT"}, []string{"nonce"}
		}, `{"alg":"ES256","typ":"JWT"}`, m{"nonce": "n"}, revoked.RefusedClaims, ""},
		{"C37: ID token without a required claim", func(i *revoked.Issuer) {
			i.TokenTypes, i.RequiredClaims = []string{"JWT"}, map[string]string{"typ": "Bearer"}
		}, `{"alg":"ES256","typ":"JWT"}`, nil, revoked.RefusedClaims, ""},
		{"C37: ID token with another value", func(i *revoked.Issuer) {
			i.TokenTypes, i.RequiredClaims = []string{"JWT"}, map[string]string{"typ": "Bearer"}
		}, `{"alg":"ES256","typ":"JWT"}`, m{"typ": "ID"}, revoked.RefusedClaims, ""},
		{"required claim in a list", func(i *revoked.Issuer) { i.RequiredClaims = map[string]string{"use": "access"} },
			"", m{"use": []string{"access"}}, revoked.RefusedClaims, ""},
		{"required claim", func(i *revoked.Issuer) { i.RequiredClaims = map[string]string{"use": "access"} },
			"", m{"use": "access"}, "", "app"},
	} {
		i := newIssuer(t, k.jwk(""))
		if tt.change != nil {
			tt.change(i)
		}
		header := tt.header
		if header == "" {
			header = k.header("")
		}
		r := verify(t, i, k.sign(header, claims(tt.claims)))
		if r.Reason != tt.want || r.JWT.ClientID != tt.client {
			t.Errorf("%s: got reason %q and client %q, want %q and %q", tt.name, r.Reason, r.JWT.ClientID,
				tt.want, tt.client)
		}
	}
}

func TestVerify_ScopeAndUsername_HaveFallbacks(t *testing.T) {
	k := keys()["ES256"]
	type m = map[string]any
	for _, tt := range []struct {
		name            string
		claims          m
		scope, username string
	}{
		{"neither", m{"scope": nil}, "", ""},
		{"scp as a string", m{"scope": nil, "scp": "a b", "username": "u"}, "a b", "u"},
		{"scp as a list", m{"scope": nil, "scp": []string{"a", "b"}}, "a b", ""},
		{"scp as an empty list", m{"scope": nil, "scp": []string{}}, "", ""},
		{"scope as a list", m{"scope": []string{"a", "b"}}, "a b", ""},
		{"scope as an empty list", m{"scope": []string{}, "scp": "a"}, "", ""},
		{"empty scope", m{"scope": "", "scp": "a"}, "", ""},
		{"both", m{"scope": "s", "scp": "a", "preferred_username": "p", "username": "u"}, "s", "p"},
	} {
		tok := verify(t, newIssuer(t, k.jwk("")), k.sign(k.header(""), claims(tt.claims))).JWT
		if tok.Scope != tt.scope || tok.Username != tt.username {
			t.Errorf("%s: got %q and %q, want %q and %q", tt.name, tok.Scope, tok.Username, tt.scope, tt.username)
		}
	}
}

// Verify still verifies a token, so that it can be revoked, if its key is retired, its issuer is
// disabled or it has expired.
func TestVerify_RetiredKey_VerifiesButIsNotActive(t *testing.T) {
	k := keys()["ES256"]
	for _, state := range []revoked.KeyState{revoked.KeyRetired, revoked.KeyBanned} {
		i := newIssuer(t, k.jwk(`"kid":"k1"`))
		i.Keys[0].State = state
		for name, raw := range map[string]string{
			"with kid":    k.sign(k.header("k1"), claims(nil)),
			"without kid": k.sign(`{"alg":"ES256","typ":"at+jwt"}`, claims(nil)),
			"expired":     k.sign(k.header("k1"), claims(map[string]any{"exp": iat + 1})),
		} {
			r := verify(t, i, raw)
			if !r.Verified || r.Reason != revoked.RefusedKey || r.UnknownKey || r.JWT.JTI != "j1" {
				t.Errorf("state %d, %s: got %+v, want verified and not active", state, name, r)
			}
		}
	}
}

func TestVerify_KeyID_SelectsKey(t *testing.T) {
	k, other := keys()["ES256"], newKey(t)
	i := newIssuer(t, k.jwk(`"kid":"k1"`), other.jwk(`"kid":"k2"`), keys()["RS256"].jwk(`"kid":"r"`),
		keys()["ES384"].jwk(""))
	for _, tt := range []struct {
		name, header string
		want         revoked.IssuerReason
		unknown      bool
	}{
		{"right kid", k.header("k1"), "", false},
		{"no kid", `{"alg":"ES256","typ":"at+jwt"}`, "", false},
		{"kid of another key", k.header("k2"), revoked.RefusedSignature, false},
		{"kid of a key of another type", k.header("r"), revoked.RefusedAlgorithm, false},
		{"unknown kid", k.header("k3"), revoked.RefusedKey, true},
		{"kid in another case", k.header("K1"), revoked.RefusedKey, true},
		{"kid that is a path", k.header("../../dev/null"), revoked.RefusedKey, true},
		{"kid that is SQL", k.header("' OR 1=1 --"), revoked.RefusedKey, true},
		{"empty kid", k.header(""), revoked.RefusedAlgorithm, false},
	} {
		r := verify(t, i, k.sign(tt.header, claims(nil)))
		if r.Reason != tt.want || r.UnknownKey != tt.unknown || r.Verified != (tt.want == "") {
			t.Errorf("%s: got %+v, want reason %q, unknown %v", tt.name, r, tt.want, tt.unknown)
		}
	}
}

// Without a kid, Verify tries at most four keys, active ones first.
func TestVerify_WithoutKeyID_TriesFourKeys(t *testing.T) {
	var jwks []string
	signers := map[string]signer{} // signers by thumbprint
	for n := range 6 {
		s := newKey(t)
		jwks = append(jwks, s.jwk(fmt.Sprintf(`"kid":"k%d"`, n)))
		signers[newIssuer(t, s.jwk("")).Keys[0].Thumbprint] = s
	}
	i := newIssuer(t, jwks...)
	i.Keys[0].State = revoked.KeyRetired
	for n, k := range i.Keys {
		want := revoked.RefusedSignature
		if 1 <= n && n <= 4 {
			want = ""
		}
		s := signers[k.Thumbprint]
		if r := verify(t, i, s.sign(`{"alg":"ES256","typ":"at+jwt"}`, claims(nil))); r.Reason != want {
			t.Errorf("key %d: got reason %q, want %q", n, r.Reason, want)
		}
	}
}

func TestNew_MalformedKey_IsAnError(t *testing.T) {
	i := newIssuer(t, keys()["ES256"].jwk(""))
	i.Keys[0].Public = []byte("not DER")
	if _, err := jwt.New(i); err == nil {
		t.Error("got success, want an error")
	}
}

func TestCheck_EachToken_ReturnsReason(t *testing.T) {
	k := keys()["ES256"]
	i := newIssuer(t, k.jwk(`"kid":"k1"`))
	for _, tt := range []struct {
		name, token string
		reason      revoked.IssuerReason
		jti         string
	}{
		{"valid token", k.sign(k.header("k1"), claims(nil)), "", "j1"},
		{"expired", k.sign(k.header("k1"), claims(map[string]any{"exp": iat + 1})), revoked.RefusedExpired, "j1"},
		{"unknown kid", k.sign(k.header("k2"), claims(nil)), revoked.RefusedKey, ""},
		{"opaque token", "2YotnFZFEjr1zCsicMWpAA", revoked.RefusedFormat, ""},
	} {
		got, err := jwt.Check(i, tt.token, now)
		if err != nil || got.Reason != tt.reason || got.JWT.JTI != tt.jti || (got.KeyID != "") != (tt.jti != "") {
			t.Errorf("%s: got %+v, %v, want reason %q and jti %q", tt.name, got, err, tt.reason, tt.jti)
		}
	}
	i.Keys[0].Public = nil
	if _, err := jwt.Check(i, k.sign(k.header("k1"), claims(nil)), now); err == nil {
		t.Error("malformed key: got success, want an error")
	}
}

// A token that was issued before a change of the mapping also has the client, session and grant of
// the earlier mapping. Under the earlier mapping, an invalid claim counts as absent.
func TestVerify_EarlierMapping_IsRead(t *testing.T) {
	k := keys()["ES256"]
	i := newIssuer(t, k.jwk(""))
	i.ClientClaim, i.SessionClaim, i.GrantClaim, i.MappingVersion = "client_id", "sid", "gid", 7
	earlier := func(until revoked.Time, client, session, grant string, own bool) revoked.EarlierMapping {
		return revoked.EarlierMapping{Until: until, ClaimMapping: revoked.ClaimMapping{
			ClientClaim: client, SessionClaim: session, GrantClaim: grant, OwnClients: own}}
	}
	const issued = revoked.Time(iat * 1e6)
	i.Earlier = []revoked.EarlierMapping{
		earlier(issued.Add(-time.Second), "c0", "sid", "gid", false), // replaced before the token was issued
		earlier(issued, "c1", "", "g1", true),
		earlier(issued.Add(time.Hour), "", "s1", "", false),
		earlier(issued.Add(time.Hour), "client_id", "sid", "gid", false), // same mapping as the current one
		earlier(issued.Add(time.Hour), "number", "number", "long", false),
	}
	r := verify(t, i, k.sign(k.header(""), claims(map[string]any{
		"client_id": "app", "sid": "s", "gid": "g", "c0": "no", "c1": "web", "g1": "g-1", "s1": "s-1", "number": 1,
		"long": strings.Repeat("x", 513),
	})))
	want := []revoked.Membership{
		{ClientID: "web", GrantID: "g-1", OwnClients: true, HasGrants: true}, {ClientID: "app", Session: "s-1"},
		{HasGrants: true},
	}
	if !r.Verified || !reflect.DeepEqual(r.JWT.Earlier, want) || r.JWT.MappingVersion != 7 {
		t.Errorf("got %+v, want the memberships %+v", r, want)
	}
	if r.JWT.ClientID != "app" || r.JWT.Session != "s" || r.JWT.GrantID != "g" {
		t.Errorf("got %+v, want the client, session and grant of the mapping in force", r.JWT)
	}
}
