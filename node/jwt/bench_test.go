package jwt_test

import (
	"testing"

	"revoked/node/jwt"
)

// BenchmarkVerify parses and verifies a token that is not cached, and makes its record.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		k := keys()[alg]
		v := verifier(b, newIssuer(b, k.jwk(`"kid":"k"`)))
		raw := k.sign(k.header("k"), claims(nil))
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tok, err := jwt.Parse(raw)
				if err != nil {
					b.Fatal(err)
				}
				if r := v.Verify(tok, now); r.Reason != "" {
					b.Fatal(r.Reason)
				}
			}
		})
	}
}

// BenchmarkParse parses tokens, as a lookup does for each unknown token.
func BenchmarkParse(b *testing.B) {
	k := keys()["ES256"]
	for name, raw := range map[string]string{
		"jwt": k.sign(k.header("k"), claims(nil)), "opaque": "2YotnFZFEjr1zCsicMWpAA.2YotnFZFEjr1zCsicMWpAA",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if tok, err := jwt.Parse(raw); err == nil {
					_ = tok.Digest()
				}
			}
		})
	}
}
