package jwt_test

import (
	"bytes"
	"crypto/ecdsa"
	"math/big"
	"strings"
	"testing"

	"revoked"
	"revoked/node/jwt"
)

const plain = `{"alg":"ES256"}`

// RFC 8725 section 2.6: one token has one encoding.
func TestParse_OtherForms_AreRefused(t *testing.T) {
	k := keys()["ES256"]
	good := k.sign(k.header("k"), claims(nil))
	parts := strings.Split(good, ".")
	headers := func(h string) string { return k.sign(h, claims(nil)) }
	longest := k.sign(plain, `{"a":"`+strings.Repeat("x", 6000)+`"}`)
	for _, tt := range []struct {
		name, token string
		ok          bool
	}{
		{"valid token", good, true},
		{"no kid and no typ", headers(plain), true},
		{"empty signature", parts[0] + "." + parts[1] + ".", true},
		{"long token", longest, true},
		{"jwk, jku and x5u", headers(`{"alg":"ES256","jku":"https://evil.example/","x5u":"https://evil.example/","jwk":1}`), true},
		{"too long", k.sign(plain, `{"a":"`+strings.Repeat("x", 6200)+`"}`), false},
		{"nothing", "", false},
		{"opaque token", "2YotnFZFEjr1zCsicMWpAA", false},
		{"two dots", "..", false},
		{"two parts", parts[0] + "." + parts[1], false},
		{"four parts", good + ".", false},
		{"JWE", good + "." + parts[0] + "." + parts[1], false},
		{"JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, false},
		{"padding", parts[0] + "." + parts[1] + "." + parts[2] + "==", false},
		{"standard alphabet", strings.Join([]string{parts[0], parts[1], "ab+/"}, "."), false},
		{"newline at the end", good + "\n", false},
		{"newline inside", good[:9] + "\n" + good[9:], false},
		{"carriage return inside the signature", good[:len(good)-4] + "\r" + good[len(good)-4:], false},
		{"space in front", " " + good, false},
		{"trailing bits", parts[0] + "." + parts[1] + ".AB", false},
		{"impossible length", parts[0] + "." + parts[1] + ".A", false},
		{"no alg", headers(`{"typ":"at+jwt"}`), false},
		{"alg that is a list", headers(`{"alg":["ES256"]}`), false},
		{"kid that is a number", headers(`{"alg":"ES256","kid":1}`), false},
		{"kid that is null", headers(`{"alg":"ES256","kid":null}`), false},
		{"typ that is an object", headers(`{"alg":"ES256","typ":{}}`), false},
		{"repeated alg", headers(`{"alg":"ES256","alg":"none"}`), false},
		{"repeated kid, escaped", headers(`{"alg":"ES256","kid":"a","\u006bid":"b"}`), false},
		{"empty crit", headers(`{"alg":"ES256","crit":[]}`), false},
		{"crit", headers(`{"alg":"ES256","crit":["exp"],"exp":1}`), false},
		{"b64 false", headers(`{"alg":"ES256","b64":false}`), false},
		{"b64 true", headers(`{"alg":"ES256","b64":true}`), false},
		{"header that is a list", headers(`["ES256"]`), false},
		{"empty header", headers(``), false},
		{"payload that is a string", k.sign(plain, `"claims"`), false},
		{"payload that is a token", k.sign(`{"alg":"ES256","cty":"JWT"}`, good), false},
		{"empty payload", k.sign(plain, ``), false},
		{"repeated claim", k.sign(plain, `{"iss":"a","iss":"b"}`), false},
		{"repeated claim inside", k.sign(plain, `{"iss":"a","cnf":{"jkt":"a","jkt":"b"}}`), false},
		{"lone surrogate", k.sign(plain, `{"sub":"\ud800"}`), false},
		{"control character", k.sign(plain, `{"sub":"a\u0000"}`), false},
		{"compressed payload", k.sign(`{"alg":"ES256","zip":"DEF"}`, "\xabV\x4a\xac\xad\x05\x00"), false},
	} {
		_, err := jwt.Parse(tt.token)
		if (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.ok)
		}
	}
}

func TestParse_Getters_ReturnTheClaims(t *testing.T) {
	k := keys()["ES256"]
	raw := k.sign(k.header("k1"), claims(nil))
	tok, err := jwt.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	kid, ok := tok.KeyID()
	if tok.Issuer() != "https://as.example" || kid != "k1" || !ok || tok.Digest() != revoked.DigestToken(raw) {
		t.Errorf("got %q %q %v, want the issuer and the kid", tok.Issuer(), kid, ok)
	}
	other, err := jwt.Parse(k.sign(plain, `{"iss":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if kid, ok := other.KeyID(); other.Issuer() != "" || kid != "" || ok {
		t.Errorf("got %q %q %v, want neither issuer nor kid", other.Issuer(), kid, ok)
	}
}

// twinOf returns the token with the signature (r, n-s).
func twinOf(s signer, raw string) string {
	n := s.key.(*ecdsa.PrivateKey).Params().N
	i := strings.LastIndexByte(raw, '.') + 1
	sig := unb64(raw[i:])
	half := sig[len(sig)/2:]
	new(big.Int).Sub(n, new(big.Int).SetBytes(half)).FillBytes(half)
	return raw[:i] + b64(sig)
}

// C26: anyone can derive a second valid token, the twin, from an ECDSA token. For each of the two,
// Twin returns the digest of the other.
func TestToken_Twin_IsTheOtherValidToken(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		k := keys()[alg]
		i := newIssuer(t, k.jwk(""))
		raw := k.sign(k.header(""), claims(nil))
		twin := twinOf(k, raw)
		for name, pair := range map[string][2]string{"token": {raw, twin}, "twin": {twin, raw}} {
			tok, err := jwt.Parse(pair[0])
			if err != nil {
				t.Fatal(err)
			}
			if r := verifier(t, i).Verify(tok, now); !r.Verified || r.Reason != "" {
				t.Errorf("%s %s: got %+v, want it verified", alg, name, r)
			}
			if d, ok := tok.Twin(); !ok || d != revoked.DigestToken(pair[1]) {
				t.Errorf("%s %s: got %v %v, want the digest of the other", alg, name, d, ok)
			}
		}
	}
}

func TestToken_Twin_OnlyOfECDSA(t *testing.T) {
	for alg, k := range keys() {
		if alg[0] == 'E' && alg[1] == 'S' {
			continue
		}
		tok, err := jwt.Parse(k.sign(k.header(""), claims(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := tok.Twin(); ok {
			t.Errorf("%s: got a twin", alg)
		}
	}
	k := keys()["ES256"]
	n := k.key.(*ecdsa.PrivateKey).Params().N
	signed := b64([]byte(plain)) + "." + b64([]byte(claims(nil))) + "."
	for name, s := range map[string][]byte{
		"zero": make([]byte, 32), "order": n.Bytes(), "beyond the order": bytes.Repeat([]byte{0xff}, 32),
		"short": make([]byte, 31),
	} {
		tok, err := jwt.Parse(signed + b64(append(bytes.Repeat([]byte{1}, 32), s...)))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := tok.Twin(); ok {
			t.Errorf("s is %s: got a twin", name)
		}
	}
}

// FuzzVerify checks that Verify verifies only tokens that the issuer signed.
func FuzzVerify(f *testing.F) {
	es, rs, ed := keys()["ES256"], keys()["RS256"], keys()["EdDSA"]
	signed := map[string]bool{}
	for _, k := range []signer{es, rs, ed} {
		raw := k.sign(k.header(k.alg), claims(nil))
		signed[raw] = true
		f.Add(raw)
		f.Add(k.sign(`{"alg":"none"}`, claims(nil)))
	}
	raw := es.sign(es.header("ES256"), claims(nil))
	signed[raw], signed[twinOf(es, raw)] = true, true
	f.Add(twinOf(es, raw))
	f.Add(hmacToken(`{"alg":"HS256"}`, claims(nil), []byte("secret")))
	i := newIssuer(f, es.jwk(`"kid":"ES256"`), rs.jwk(`"kid":"RS256"`), ed.jwk(`"kid":"EdDSA"`))
	v := verifier(f, i)
	f.Fuzz(func(t *testing.T, raw string) {
		tok, err := jwt.Parse(raw)
		if err != nil {
			return
		}
		r := v.Verify(tok, now)
		if r.Verified && !signed[raw] {
			t.Fatalf("got %q verified, want only tokens that the issuer signed", raw)
		}
		if r.Reason == "" && !r.Verified {
			t.Fatalf("%q: got active, but not verified", raw)
		}
		if twin, ok := tok.Twin(); ok && twin == tok.Digest() {
			t.Fatalf("%q: got the token itself as its twin", raw)
		}
	})
}
