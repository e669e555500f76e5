package jwt_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/node/jwt"
)

const (
	audience = "https://revoked.example"
	skew     = 5 * time.Second
)

// newRobot returns the client robot with the given JWKs as its keys.
func newRobot(t testing.TB, jwks ...string) *revoked.Client {
	t.Helper()
	keys, err := jwt.ParseInline(keySet(jwks...))
	if err != nil {
		t.Fatal(err)
	}
	return &revoked.Client{ID: "robot", Type: revoked.Confidential, Keys: keys,
		AuthMethods: []string{revoked.AuthPrivateKey}}
}

// assertionClaims returns the claims of a valid assertion, modified by changes. A change to nil
// removes a claim.
func assertionClaims(changes map[string]any) string {
	c := map[string]any{"iss": "robot", "sub": "robot", "aud": audience, "jti": "j-1", "exp": iat + 120}
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func verifies(c *revoked.Client, raw string) bool {
	a, err := jwt.ParseAssertion(raw)
	if err != nil {
		return false
	}
	v, problem, ok := a.Verify(c, audience, now, skew)
	return ok && problem == "" &&
		a.ClientID() == c.ID && v.Key == revoked.AssertionKey(c.ID, "j-1") && c.Key(v.Thumbprint) != nil
}

// Each algorithm verifies with a key that fits (RFC 7518, RFC 8037), and with no other.
func TestAssertion_EachAlgorithm_NeedsItsKey(t *testing.T) {
	for alg, k := range keys() {
		c := newRobot(t, k.jwk(`"kid":"k"`))
		if !verifies(c, k.sign(fmt.Sprintf(`{"alg":%q,"kid":"k"}`, alg), assertionClaims(nil))) {
			t.Errorf("%s: got rejected, want verified", alg)
		}
		for other := range keys() {
			if other != alg && verifies(c, k.sign(fmt.Sprintf(`{"alg":%q}`, other), assertionClaims(nil))) {
				t.Errorf("%s under the name of %s: got verified, want rejected", alg, other)
			}
		}
		bound := newRobot(t, k.jwk(`"alg":"`+alg+`"`))
		if !verifies(bound, k.sign(fmt.Sprintf(`{"alg":%q}`, alg), assertionClaims(nil))) {
			t.Errorf("%s, with alg in the JWK: got rejected, want verified", alg)
		}
	}
}

// RFC 7523 section 3 and RFC 10070: checks of the claims of an assertion.
func TestAssertion_Claims_AreChecked(t *testing.T) {
	k := keys()["ES256"]
	c := newRobot(t, k.jwk(""))
	at := func(seconds int64) int64 { return int64(now)/1e6 + seconds }
	for _, tt := range []struct {
		name    string
		changes map[string]any
		want    bool
	}{
		{"good", nil, true}, {"audience in a list", map[string]any{"aud": []string{audience}}, true},
		{"additional claims", map[string]any{"iat": at(0), "nbf": at(0), "x": 1}, true},
		{"longest lifetime", map[string]any{"exp": at(600)}, true},
		{"expired within the skew", map[string]any{"exp": at(-4)}, true},
		{"ahead within the skew", map[string]any{"iat": at(5), "nbf": at(5)}, true},

		{"no audience", map[string]any{"aud": nil}, false},
		{"the revocation endpoint", map[string]any{"aud": audience + "/oauth2/revoke"}, false},
		{"a trailing slash", map[string]any{"aud": audience + "/"}, false},
		{"another case", map[string]any{"aud": strings.ToUpper(audience)}, false},
		{"two audiences", map[string]any{"aud": []string{audience, "https://other.example"}}, false},
		{"the audience twice", map[string]any{"aud": []string{audience, audience}}, false},
		{"an empty list", map[string]any{"aud": []string{}}, false}, {"a number", map[string]any{"aud": 1}, false},
		{"no exp", map[string]any{"exp": nil}, false}, {"expired", map[string]any{"exp": at(-5)}, false},
		{"exp as a text", map[string]any{"exp": "1790000120"}, false},
		{"too long a lifetime", map[string]any{"exp": at(606)}, false},
		{"a year ahead", map[string]any{"exp": at(365 * 86400)}, false},
		{"exp beyond int64", map[string]any{"exp": 1e300}, false}, {"exp 0", map[string]any{"exp": 0}, false},
		{"not valid yet", map[string]any{"nbf": at(6)}, false}, {"issued later", map[string]any{"iat": at(6)}, false},
		{"no jti", map[string]any{"jti": nil}, false}, {"empty jti", map[string]any{"jti": ""}, false},
		{"jti that is a number", map[string]any{"jti": 1}, false},
		{"long jti", map[string]any{"jti": strings.Repeat("j", 513)}, false},
		{"no iss", map[string]any{"iss": nil}, false}, {"no sub", map[string]any{"sub": nil}, false},
		{"another sub", map[string]any{"sub": "admin"}, false}, {"another iss", map[string]any{"iss": "admin"}, false},
		{"another client", map[string]any{"iss": "admin", "sub": "admin"}, false},
		{"the issuer as iss", map[string]any{"iss": audience}, false},
	} {
		if got := verifies(c, k.sign(`{"alg":"ES256"}`, assertionClaims(tt.changes))); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Only a client whose key has signed a refused assertion learns why.
func TestAssertion_Refused_OnlyItsSignerLearnsWhy(t *testing.T) {
	k, stranger := keys()["ES256"], newKey(t)
	c := newRobot(t, k.jwk(""))
	at := func(seconds int64) int64 { return int64(now)/1e6 + seconds }
	for want, changes := range map[string]map[string]any{
		"aud must be " + audience + " alone":   {"aud": audience + "/oauth2/revoke"},
		"exp is missing or malformed":          {"exp": nil},
		"exp must be at most 10 minutes ahead": {"exp": at(3600)}, // Authlib's default lifetime
		"exp has passed":                       {"exp": at(-60)},
		"jti is missing or malformed":          {"jti": nil},
		"nbf is missing or malformed":          {"nbf": "x"},
		"iat or nbf is in the future":          {"iat": at(60)},
	} {
		payload := assertionClaims(changes)
		for key, want := range map[*signer]string{&k: want, &stranger: ""} {
			a, err := jwt.ParseAssertion(key.sign(`{"alg":"ES256"}`, payload))
			if err != nil {
				t.Fatal(err)
			}
			if _, got, ok := a.Verify(c, audience, now, skew); ok || got != want {
				t.Errorf("%s: got %v and %q, want %q", payload, ok, got, want)
			}
		}
	}
	a, err := jwt.ParseAssertion(k.sign(`{"alg":"ES256","typ":"at+jwt"}`, assertionClaims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, got, ok := a.Verify(c, audience, now, skew); ok || !strings.HasPrefix(got, "typ must be") {
		t.Errorf("typ: got %v and %q", ok, got)
	}
	other := newRobot(t, k.jwk(""))
	other.ID = "other" // with the same key
	if _, got, ok := a.Verify(other, audience, now, skew); ok || got != "" {
		t.Errorf("another client: got %v and %q, want nothing", ok, got)
	}
}

// CA-26, CA-27: typ must be a type of an assertion, or absent.
func TestAssertion_Types_OnlyJWTTypesAccepted(t *testing.T) {
	k := keys()["ES256"]
	c := newRobot(t, k.jwk(""))
	for typ, want := range map[string]bool{
		"JWT": true, "jwt": true, "client-authentication+jwt": true, "application/client-authentication+jwt": true, "": true,
		"at+jwt": false, "secevent+jwt": false, "statuslist+jwt": false, "token-introspection+jwt": false,
		"dpop+jwt": false, "application/at+jwt": false, "JOSE": false, "JWT ": false,
	} {
		if got := verifies(c, k.sign(fmt.Sprintf(`{"alg":"ES256","typ":%q}`, typ), assertionClaims(nil))); got != want {
			t.Errorf("%q: got %v, want %v", typ, got, want)
		}
	}
	if verifies(c, k.sign(`{"alg":"ES256","typ":1}`, assertionClaims(nil))) {
		t.Error("typ of a number: got verified, want rejected")
	}
}

// CA-34 and CA-35: the attacks of RFC 8725 sections 2 and 3, on assertions.
func TestAssertion_Forged_IsRejected(t *testing.T) {
	rs, es, attacker := keys()["RS256"], keys()["ES256"], newKey(t)
	c := newRobot(t, rs.jwk(`"kid":"rs"`), es.jwk(`"kid":"es"`))
	payload := assertionClaims(nil)
	good := es.sign(`{"alg":"ES256","kid":"es"}`, payload)
	ignored := es.sign(`{"alg":"ES256","jku":"https://x","x5u":"https://x","kid":"es"}`, payload)
	if !verifies(c, good) || !verifies(c, ignored) {
		t.Fatal("got the valid assertions refused, want them verified")
	}
	parts := strings.Split(good, ".")
	jwk := attacker.jwk("")
	for name, raw := range map[string]string{
		"empty": "", "alg none": b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg none, signed": es.sign(`{"alg":"none","kid":"es"}`, payload), "no alg": es.sign(`{"kid":"es"}`, payload),
		"HMAC with the JWK":      hmacToken(`{"alg":"HS256","kid":"rs"}`, payload, []byte(rs.jwk(""))),
		"HMAC, as RS256":         hmacToken(`{"alg":"RS256","kid":"rs"}`, payload, []byte(rs.jwk(""))),
		"ES256 for the RSA key":  attacker.sign(`{"alg":"ES256","kid":"rs"}`, payload),
		"RS256 for the EC key":   rs.sign(`{"alg":"RS256","kid":"es"}`, payload),
		"unknown kid":            es.sign(`{"alg":"ES256","kid":"x"}`, payload),
		"embedded jwk":           attacker.sign(`{"alg":"ES256","jwk":`+jwk+`}`, payload),
		"embedded jwk and kid":   attacker.sign(`{"alg":"ES256","kid":"es","jwk":`+jwk+`}`, payload),
		"jku":                    attacker.sign(`{"alg":"ES256","jku":"https://evil.example/jwks"}`, payload),
		"x5u":                    attacker.sign(`{"alg":"ES256","x5u":"https://evil.example/c"}`, payload),
		"x5c":                    attacker.sign(`{"alg":"ES256","x5c":["AAAA"]}`, payload),
		"crit":                   es.sign(`{"alg":"ES256","kid":"es","crit":["x"],"x":1}`, payload),
		"b64":                    es.sign(`{"alg":"ES256","kid":"es","b64":false}`, payload),
		"nested":                 es.sign(`{"alg":"ES256","kid":"es","cty":"JWT"}`, good),
		"encrypted":              b64([]byte(`{"alg":"dir","enc":"A128GCM"}`)) + "..AAAA.AAAA.AAAA",
		"two issuers":            es.sign(`{"alg":"ES256"}`, strings.Replace(payload, `{`, `{"iss":"admin",`, 1)),
		"two algorithms":         es.sign(`{"alg":"ES256","alg":"none"}`, payload),
		"another payload":        parts[0] + "." + b64([]byte(strings.Replace(payload, "j-1", "j-2", 1))) + "." + parts[2],
		"no signature":           parts[0] + "." + parts[1] + ".",
		"zero signature":         parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)),
		"one bit":                flip(good),
		"padding":                good + "=",
		"unregistered key":       attacker.sign(`{"alg":"ES256","kid":"es"}`, payload),
		"too long":               es.sign(`{"alg":"ES256"}`, payload+strings.Repeat(" ", jwt.MaxLength)),
		"client id with a break": es.sign(`{"alg":"ES256"}`, strings.ReplaceAll(payload, "robot", "robo\n")),
	} {
		if verifies(c, raw) {
			t.Errorf("%s: got verified, want rejected", name)
		}
	}
	if verifies(newRobot(t, attacker.jwk("")), good) {
		t.Error("keys of another client: got verified, want rejected")
	}
}

// RFC 8725 sections 2.1 and 3.1, on assertions: every spelling of the algorithm "none" is refused.
// So is every HMAC whose secret is an encoding of the public key.
func TestAssertion_AlgorithmConfusion_IsNotVerified(t *testing.T) {
	rs, es := keys()["RS256"], keys()["ES256"]
	c := newRobot(t, rs.jwk(`"kid":"rs"`), es.jwk(`"kid":"es"`))
	payload := assertionClaims(nil)
	for _, alg := range []string{`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `""`, `" none"`, `null`, `0`, `["none"]`,
		`"es256"`, `"ES256 "`, `"HS256"`, `"dir"`, `"RSA1_5"`} {
		for _, kid := range []string{"", `,"kid":"es"`, `,"kid":"rs"`} {
			header := `{"alg":` + alg + kid + `}`
			unsigned := b64([]byte(header)) + "." + b64([]byte(payload)) + "."
			for form, raw := range map[string]string{"unsigned": unsigned, "signed": es.sign(header, payload)} {
				if verifies(c, raw) {
					t.Errorf("%s, %s: got verified, want rejected", header, form)
				}
			}
		}
	}
	for kid, k := range map[string]signer{"rs": rs, "es": es} {
		der, err := x509.MarshalPKIXPublicKey(k.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		secrets := map[string][]byte{"DER": der, "nothing": nil, "the kid": []byte(kid), "the client id": []byte(c.ID),
			"PEM":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			"the JWK": []byte(k.jwk(`"kid":"` + kid + `"`)),
			"base64":  []byte(base64.StdEncoding.EncodeToString(der)), "the thumbprint": []byte(c.Keys[0].Thumbprint)}
		if public, ok := k.key.Public().(*rsa.PublicKey); ok {
			secrets["the modulus"] = public.N.Bytes()
			secrets["PKCS 1"] = x509.MarshalPKCS1PublicKey(public)
		}
		for form, secret := range secrets {
			for _, alg := range []string{"HS256", "HS384", "HS512", "RS256", "ES256"} {
				for _, header := range []string{fmt.Sprintf(`{"alg":%q}`, alg), fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, kid)} {
					if verifies(c, hmacToken(header, payload, secret)) {
						t.Errorf("%s, HMAC with %s: got verified, want rejected", header, form)
					}
				}
			}
		}
	}
}

// RFC 8725 section 3.10, on assertions: a kid only chooses among the keys of the client's record.
func TestAssertion_KeyIDConfusion_IsNotVerified(t *testing.T) {
	mine, second, others := newKey(t), newKey(t), newKey(t)
	c := newRobot(t, mine.jwk(`"kid":"k"`), second.jwk(`"kid":"k"`)) // two keys with one kid, as in a rotation
	other := newRobot(t, others.jwk(`"kid":"k"`))
	other.ID = "other"
	payload := assertionClaims(nil)
	ofOther := assertionClaims(map[string]any{"iss": "other", "sub": "other"})
	for _, k := range []signer{mine, second} {
		if !verifies(c, k.sign(`{"alg":"ES256","kid":"k"}`, payload)) || !verifies(c, k.sign(`{"alg":"ES256"}`, payload)) {
			t.Error("a key of the client: got rejected, want verified")
		}
	}
	for name, raw := range map[string]string{
		"the kid of another client's key": others.sign(`{"alg":"ES256","kid":"k"}`, payload),
		"another client's key, no kid":    others.sign(`{"alg":"ES256"}`, payload),
		"its own key, for another client": mine.sign(`{"alg":"ES256","kid":"k"}`, ofOther),
		"an empty kid":                    mine.sign(`{"alg":"ES256","kid":""}`, payload),
		"a kid that is a number":          mine.sign(`{"alg":"ES256","kid":1}`, payload),
		"a kid that is null":              mine.sign(`{"alg":"ES256","kid":null}`, payload),
		"a kid in another case":           mine.sign(`{"alg":"ES256","kid":"K"}`, payload),
		"a path":                          mine.sign(`{"alg":"ES256","kid":"../../dev/null"}`, payload),
		"a statement":                     mine.sign(`{"alg":"ES256","kid":"k' UNION SELECT 'x"}`, payload),
		"two kids":                        others.sign(`{"alg":"ES256","kid":"x","kid":"k"}`, payload),
		"two kids, both right":            mine.sign(`{"alg":"ES256","kid":"k","kid":"k"}`, payload),
		"two kids, one with an escape":    mine.sign(`{"alg":"ES256","kid":"k","\u006bid":"k"}`, payload),
		"a long kid":                      mine.sign(`{"alg":"ES256","kid":"`+strings.Repeat("k", 5000)+`"}`, payload),
	} {
		if verifies(c, raw) || verifies(other, raw) {
			t.Errorf("%s: got verified, want rejected", name)
		}
	}
}

// RFC 8725 section 2.4 and RFC 7519 section 4, on assertions: no claim or header parameter may
// occur twice, in any encoding. Otherwise two readers could use different values.
func TestAssertion_RepeatedMembers_AreNotVerified(t *testing.T) {
	k := keys()["ES256"]
	c := newRobot(t, k.jwk(`"kid":"k"`))
	payload := assertionClaims(map[string]any{"iat": iat, "nbf": iat, "x": map[string]any{"y": 1}})
	if !verifies(c, k.sign(`{"alg":"ES256","kid":"k"}`, payload)) {
		t.Fatal("the claims once: got rejected, want verified")
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	for name, value := range claims {
		escaped := fmt.Sprintf(`\u%04x%s`, name[0], name[1:])
		for _, twice := range []string{
			fmt.Sprintf(`{%q:%s,%s`, name, value, payload[1:]), fmt.Sprintf(`{"%s":%s,%s`, escaped, value, payload[1:]),
			fmt.Sprintf(`%s,%q:null}`, payload[:len(payload)-1], name),
		} {
			if verifies(c, k.sign(`{"alg":"ES256","kid":"k"}`, twice)) {
				t.Errorf("%s: got verified, want rejected", twice)
			}
		}
	}
	nested := strings.Replace(payload, `{"y":1}`, `{"y":1,"y":2}`, 1)
	if nested == payload || verifies(c, k.sign(`{"alg":"ES256","kid":"k"}`, nested)) {
		t.Errorf("%s: got verified, want rejected", nested)
	}
	for _, header := range []string{`{"alg":"ES256","alg":"ES256"}`, `{"alg":"ES256","\u0061lg":"none"}`,
		`{"alg":"ES256","typ":"JWT","typ":"at+jwt"}`, `{"alg":"ES256","typ":"at+jwt","typ":"JWT"}`} {
		if verifies(c, k.sign(header, payload)) {
			t.Errorf("%s: got verified, want rejected", header)
		}
	}
}

// Contract 6: an assertion above the length limit is refused. A shorter one with deep nesting or a
// huge number is refused too. The limit applies to the whole assertion.
func TestAssertion_HugeTexts_AreRefused(t *testing.T) {
	k := keys()["ES256"]
	c := newRobot(t, k.jwk(""))
	payload := assertionClaims(nil)
	with := func(member string) string { return payload[:len(payload)-1] + "," + member + "}" }
	good := k.sign(`{"alg":"ES256"}`, payload)
	fill := jwt.MaxLength - len(good) - 100
	if !verifies(c, k.sign(`{"alg":"ES256"}`, with(`"x":"`+strings.Repeat("x", fill*3/4)+`"`))) {
		t.Error("an assertion just below the limit: got rejected, want verified")
	}
	deep := strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500)
	number := func(digits string) string {
		return k.sign(`{"alg":"ES256"}`, assertionClaims(map[string]any{"exp": json.Number(digits)}))
	}
	for name, raw := range map[string]string{
		"a long claim":       k.sign(`{"alg":"ES256"}`, with(`"x":"`+strings.Repeat("x", jwt.MaxLength)+`"`)),
		"a long header":      k.sign(`{"alg":"ES256","x":"`+strings.Repeat("x", jwt.MaxLength)+`"}`, payload),
		"many dots":          strings.Repeat(".", jwt.MaxLength-1),
		"a megabyte":         strings.Repeat("A", 1<<20),
		"nested lists":       k.sign(`{"alg":"ES256"}`, with(`"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000))),
		"nested objects":     k.sign(`{"alg":"ES256"}`, with(`"x":`+deep)),
		"a huge number":      number("1e999999999"),
		"a number of digits": number("1" + strings.Repeat("0", 3000)),
	} {
		if verifies(c, raw) {
			t.Errorf("%s: got verified, want rejected", name)
		}
	}
}

func FuzzParseAssertion(f *testing.F) {
	k := newKey(f)
	c := newRobot(f, k.jwk(""))
	good := k.sign(`{"alg":"ES256"}`, assertionClaims(nil))
	for _, s := range []string{good, k.sign(`{"alg":"none"}`, `{}`), "..", "a.b.c", good + "."} {
		f.Add(s)
	}
	signed := good[:strings.LastIndexByte(good, '.')]
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := jwt.ParseAssertion(raw)
		if err != nil {
			return
		}
		if err := revoked.ValidateClientID(a.ClientID()); err != nil {
			t.Errorf("%q: got the client %q, %v", raw, a.ClientID(), err)
		}
		if _, problem, ok := a.Verify(c, audience, now, skew); (ok || problem != "") && !strings.HasPrefix(raw, signed+".") {
			t.Errorf("%q: got it verified or its problem, want neither without a signature of the key", raw)
		}
	})
}
