package jwt_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"revoked"
)

// The test forges tokens with the attacks of RFC 8725 section 2, and with known attacks on JWT
// libraries. No forged token may be verified: it could be active, or revoke the tokens of another
// user (JW-02, JW-06).
func TestVerify_ForgedTokens_AreRejected(t *testing.T) {
	rs, es, ed, attacker := keys()["RS256"], keys()["ES256"], keys()["EdDSA"], newKey(t)
	i := newIssuer(t, rs.jwk(`"kid":"rs"`), es.jwk(`"kid":"es"`), ed.jwk(`"kid":"ed"`))
	der, err := x509.MarshalPKIXPublicKey(rs.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	good := es.sign(es.header("es"), claims(nil))
	parts := strings.Split(good, ".")
	payload := claims(nil)
	unsigned := func(header string) string { return b64([]byte(header)) + "." + parts[1] + "." }
	hs := `{"typ":"at+jwt","alg":"HS256","kid":"rs"}`
	jwk := attacker.jwk("")
	for _, tt := range []struct {
		name, token string
		want        revoked.IssuerReason
	}{
		// Section 2.1: weak signatures and insufficient validation of the algorithm.
		{"alg none", unsigned(`{"typ":"at+jwt","alg":"none"}`), revoked.RefusedAlgorithm},
		{"alg none with a kid", unsigned(`{"typ":"at+jwt","alg":"none","kid":"es"}`), revoked.RefusedAlgorithm},
		{"alg None", unsigned(`{"typ":"at+jwt","alg":"None"}`), revoked.RefusedAlgorithm},
		{"alg nOnE", unsigned(`{"typ":"at+jwt","alg":"nOnE"}`), revoked.RefusedAlgorithm},
		{"empty alg", unsigned(`{"typ":"at+jwt","alg":""}`), revoked.RefusedAlgorithm},
		{"alg none with a valid signature", es.sign(`{"typ":"at+jwt","alg":"none","kid":"es"}`, payload),
			revoked.RefusedAlgorithm},
		{"good header without the signature", parts[0] + "." + parts[1] + ".", revoked.RefusedSignature},
		{"HMAC with the public key as PEM", hmacToken(hs, payload, block), revoked.RefusedAlgorithm},
		{"HMAC with the public key as DER", hmacToken(hs, payload, der), revoked.RefusedAlgorithm},
		{"HMAC with the JWK", hmacToken(hs, payload, []byte(rs.jwk(""))), revoked.RefusedAlgorithm},
		{"HMAC with an empty secret", hmacToken(hs, payload, nil), revoked.RefusedAlgorithm},
		{"HMAC under the name of RS256", hmacToken(rs.header("rs"), payload, block), revoked.RefusedSignature},
		{"ES256 for an RSA key", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"rs"}`, payload),
			revoked.RefusedAlgorithm},
		{"RS256 for an EC key", rs.sign(`{"typ":"at+jwt","alg":"RS256","kid":"es"}`, payload), revoked.RefusedAlgorithm},
		{"ES384 for a key on P-256", es.sign(`{"typ":"at+jwt","alg":"ES384","kid":"es"}`, payload), revoked.RefusedAlgorithm},
		{"ES256K", es.sign(`{"typ":"at+jwt","alg":"ES256K","kid":"es"}`, payload), revoked.RefusedAlgorithm},
		{"signature of RS384 under the name of RS256", keys()["RS384"].sign(rs.header("rs"), payload),
			revoked.RefusedSignature},
		{"signature of PS256 under the name of RS256", keys()["PS256"].sign(rs.header("rs"), payload),
			revoked.RefusedSignature},
		{"zero ECDSA signature", parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)), revoked.RefusedSignature},
		{"short ECDSA signature", parts[0] + "." + parts[1] + "." + b64(make([]byte, 63)), revoked.RefusedSignature},
		{"zero EdDSA signature", strings.Split(ed.sign(ed.header("ed"), payload), ".")[0] + "." + parts[1] + "." +
			b64(make([]byte, 64)), revoked.RefusedSignature},

		// Sections 2.9 and 3.10: keys that the token itself contains.
		{"embedded jwk", attacker.sign(`{"typ":"at+jwt","alg":"ES256","jwk":`+jwk+`}`, payload), revoked.RefusedSignature},
		{"embedded jwk with a known kid", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"es","jwk":`+jwk+`}`, payload),
			revoked.RefusedSignature},
		{"jku", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"x","jku":"https://evil.example/jwks"}`, payload),
			revoked.RefusedKey},
		{"jku of this machine", attacker.sign(`{"typ":"at+jwt","alg":"ES256","jku":"http://127.0.0.1/"}`, payload),
			revoked.RefusedSignature},
		{"x5u", attacker.sign(`{"typ":"at+jwt","alg":"ES256","x5u":"https://evil.example/c.pem"}`, payload),
			revoked.RefusedSignature},
		{"x5c", attacker.sign(`{"typ":"at+jwt","alg":"ES256","x5c":["AAAA"]}`, payload), revoked.RefusedSignature},
		{"kid with a path", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"/dev/null"}`, payload), revoked.RefusedKey},
		{"kid with a command", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"|id"}`, payload), revoked.RefusedKey},
		{"kid with an escape", attacker.sign(`{"typ":"at+jwt","alg":"ES256","kid":"e\u0073"}`, payload),
			revoked.RefusedSignature},

		// JW-02 and JW-06: forged claims.
		{"another payload", parts[0] + "." + b64([]byte(claims(map[string]any{"client_id": "evil"}))) + "." + parts[2],
			revoked.RefusedSignature},
		{"another header", b64([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"es" }`)) + "." + parts[1] + "." + parts[2],
			revoked.RefusedSignature},
		{"one bit of the signature", flip(good), revoked.RefusedSignature},
		{"signed with an unregistered key", attacker.sign(es.header("es"), payload), revoked.RefusedSignature},

		// JW-08, sections 2.8, 3.11 and 3.12: other kinds of tokens of the same issuer.
		{"ID token", es.sign(`{"typ":"JWT","alg":"ES256","kid":"es"}`, payload), revoked.RefusedType},
		{"security event token", es.sign(`{"typ":"secevent+jwt","alg":"ES256","kid":"es"}`, payload), revoked.RefusedType},
		{"DPoP proof", es.sign(`{"typ":"dpop+jwt","alg":"ES256","kid":"es"}`, payload), revoked.RefusedType},
		{"introspection response", es.sign(`{"typ":"token-introspection+jwt","alg":"ES256","kid":"es"}`, payload),
			revoked.RefusedType},

		// JW-09, sections 2.3 and 3.3: nested tokens, and JW-10: other encodings.
		{"nested token", es.sign(`{"typ":"at+jwt","alg":"ES256","kid":"es","cty":"JWT"}`, good), revoked.RefusedFormat},
		{"encrypted token", strings.Join([]string{b64([]byte(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`)), "", "AAAA",
			"AAAA", "AAAA"}, "."), revoked.RefusedFormat},
		{"padding", good + "=", revoked.RefusedFormat},
		{"whitespace", parts[0] + " ." + parts[1] + "." + parts[2], revoked.RefusedFormat},
		{"newline in the signature", good[:len(good)-10] + "\n" + good[len(good)-10:], revoked.RefusedFormat},
		{"crit that libraries ignore", es.sign(`{"typ":"at+jwt","alg":"ES256","kid":"es","crit":["x"],"x":1}`, payload),
			revoked.RefusedFormat},
		{"payload that is not encoded", es.sign(`{"typ":"at+jwt","alg":"ES256","kid":"es","b64":false,"crit":["b64"]}`, payload),
			revoked.RefusedFormat},
		{"two issuers", es.sign(es.header("es"), strings.Replace(payload, `{`, `{"iss":"https://evil.example",`, 1)),
			revoked.RefusedFormat},
	} {
		r := verify(t, i, tt.token)
		if r.Verified || r.Reason != tt.want || r.JWT.Issuer != "" {
			t.Errorf("%s: got %+v, want reason %q", tt.name, r, tt.want)
		}
	}
}

// flip changes one bit of the last whole octet of the signature.
func flip(token string) string {
	k := strings.LastIndexByte(token, '.') + 1
	sig, err := base64.RawURLEncoding.DecodeString(token[k:])
	if err != nil {
		panic(err)
	}
	sig[len(sig)-1] ^= 1
	return token[:k] + b64(sig)
}

// C26 and JW-10: a token with any character changed does not verify.
func TestVerify_AnyCharacterChanged_IsNotVerified(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		k := keys()[alg]
		i := newIssuer(t, k.jwk(`"kid":"k"`))
		good := k.sign(k.header("k"), claims(nil))
		if r := verify(t, i, good); !r.Verified {
			t.Fatalf("%s: got %+v, want it verified", alg, r)
		}
		for at := range len(good) {
			for _, c := range []byte{'A', 'Q', 'w', '-', '='} {
				if good[at] == c {
					continue
				}
				changed := good[:at] + string(c) + good[at+1:]
				if r := verify(t, i, changed); r.Verified {
					t.Fatalf("%s: character %d changed to %c: got verified, want rejected", alg, at, c)
				}
			}
		}
	}
}

// RFC 8725 sections 2.7 and 3.8: a token of one issuer is not valid for another issuer with the
// same key or kid.
func TestVerify_OtherIssuer_IsNotVerified(t *testing.T) {
	k, other := keys()["ES256"], newKey(t)
	i := newIssuer(t, k.jwk(`"kid":"k"`))
	for name, raw := range map[string]string{
		"same key":  k.sign(k.header("k"), claims(map[string]any{"iss": "https://other.example"})),
		"same kid":  other.sign(other.header("k"), claims(map[string]any{"iss": "https://other.example"})),
		"iss alone": other.sign(other.header("k"), claims(nil)),
	} {
		if r := verify(t, i, raw); r.Verified {
			t.Errorf("%s: got %+v, want it not verified", name, r)
		}
	}
}

// RFC 8725 section 3.8, C32: a claim with another name, case or nesting does not replace the right
// claim.
func TestVerify_ClaimNames_AreExact(t *testing.T) {
	k := keys()["ES256"]
	i := newIssuer(t, k.jwk(""))
	for _, name := range []string{"Iss", "ISS", " iss", "iss ", "https://as.example/iss"} {
		raw := k.sign(k.header(""), fmt.Sprintf(`{%q:"https://as.example","iat":%d,"exp":%d,"aud":"a"}`, name, iat, exp))
		if r := verify(t, i, raw); r.Verified || r.Reason != revoked.RefusedIssuer {
			t.Errorf("%q: got %+v, want reason %q", name, r, revoked.RefusedIssuer)
		}
	}
	raw := k.sign(k.header(""), claims(map[string]any{"Sub": "root", "SUB": "root", "sub": "alice"}))
	if r := verify(t, i, raw); r.JWT.Subject != "alice" {
		t.Errorf("got subject %q, want alice", r.JWT.Subject)
	}
}
