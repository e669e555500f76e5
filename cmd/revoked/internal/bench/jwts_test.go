package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
)

// The tokens verify with the keys that the issuer's record gets.
func TestJWTSigners_Tokens_Verify(t *testing.T) {
	signers, err := newJWTSigners()
	if err != nil {
		t.Fatal(err)
	}
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	number := func(s string) *big.Int { return new(big.Int).SetBytes(decode(s)) }
	for _, s := range signers {
		token, err := s.token("https://x.example", "j1", 1_790_000_000)
		if err != nil {
			t.Fatal(err)
		}
		end := strings.LastIndexByte(token, '.')
		input, sig := []byte(token[:end]), decode(token[end+1:])
		digest, ok := sha256.Sum256(input), false
		switch s.alg {
		case "RS256":
			key := &rsa.PublicKey{N: number(s.jwk["n"]), E: int(number(s.jwk["e"]).Int64())}
			ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sig) == nil
		case "ES256":
			point := append(append([]byte{4}, decode(s.jwk["x"])...), decode(s.jwk["y"])...)
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
			if err != nil {
				t.Fatal(err)
			}
			ok = len(sig) == 64 && ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
		case "EdDSA":
			ok = ed25519.Verify(decode(s.jwk["x"]), input, sig)
		}
		if !ok || s.jwk["kid"] != s.alg {
			t.Errorf("%s: got %s, want a token that key %v verifies", s.alg, token, s.jwk)
		}
	}
}

func TestTextLoads_Bodies_ContainTheTokens(t *testing.T) {
	list := []string{"a", "b", "c"}
	seen := map[string]int{}
	once := eachOf(list)
	for connection := range 2 {
		next := once(connection)
		for range 2 {
			if body, ok := next(); ok {
				seen[string(body)]++
			}
		}
	}
	if len(seen) != 3 || seen["token=a"] != 1 {
		t.Errorf("each once: got %v, want every token once", seen)
	}
	next := anyText(list)(0)
	for range 50 {
		body, ok := next()
		if !ok || !strings.HasPrefix(string(body), "token=") || len(body) != 7 {
			t.Fatalf("endless: got %q, %t, want a token", body, ok)
		}
	}
}
