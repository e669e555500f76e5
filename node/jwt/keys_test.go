package jwt_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"

	"revoked"
	"revoked/node/jwt"
)

// rsaJWK returns an RSA key of the given length whose private key is unknown.
func rsaJWK(bits int, e int64, members string) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.SetBit(n, 0, 1)
	return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b64(n.Bytes()), b64(big.NewInt(e).Bytes()), members)
}

// ecJWK returns an EC key with changed octets of x.
func ecJWK(change func(x []byte) []byte) string {
	k := keys()["ES256"]
	whole := k.jwk("")
	i := strings.Index(whole, `"x":"`) + len(`"x":"`)
	x := whole[i : i+43]
	raw := new(big.Int).SetBytes(unb64(x)).FillBytes(make([]byte, 32))
	return strings.Replace(whole, x, b64(change(raw)), 1)
}

func unb64(s string) []byte {
	var out []byte
	for _, c := range []byte(s) { // each character encodes six bits
		out = append(out, byte(strings.IndexByte(
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", c)))
	}
	n := new(big.Int)
	for _, six := range out {
		n.Lsh(n, 6).Or(n, big.NewInt(int64(six)))
	}
	return n.Rsh(n, uint(len(s)*6%8)).FillBytes(make([]byte, len(s)*6/8))
}

// C40, RFC 8725 sections 2.2, 3.4 and 3.5: the table of keys. The error for an inline set names the
// operator's mistake. Unusable keys of a fetched set are ignored.
func TestParseKeys_EachKey_IsUsedIgnoredOrRefused(t *testing.T) {
	good := keys()["EdDSA"].jwk(`"kid":"good"`)
	const used, ignored, refused = "used", "ignored", "refused"
	for _, tt := range []struct {
		name            string
		jwk             string
		inline, fetched string
	}{
		{"RSA of 2048 bits", rsaJWK(2048, 65537, ""), used, used},
		{"RSA of 8192 bits", rsaJWK(8192, 3, ""), used, used},
		{"RSA with the largest exponent", rsaJWK(2048, 1<<31-1, ""), used, used},
		{"RSA with a leading zero", fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AAEAAQ"}`,
			b64(append([]byte{0}, bytes.Repeat([]byte{0xff}, 256)...))), used, used},
		{"EC P-256", keys()["ES256"].jwk(""), used, used},
		{"EC P-384", keys()["ES384"].jwk(`"alg":"ES384"`), used, used},
		{"EC P-521", keys()["ES512"].jwk(`"use":"sig"`), used, used},
		{"key_ops verify", keys()["ES256"].jwk(`"key_ops":["sign","verify"]`), used, used},
		{"unknown members", keys()["ES256"].jwk(`"x5t":"AA","x5u":"https://evil.example/","exp":1,"x":{}`), refused, refused},
		{"certificate chain that is not read", keys()["ES256"].jwk(`"x5c":["AA"]`), used, used},

		{"use enc", keys()["RS256"].jwk(`"use":"enc"`), ignored, ignored},
		{"key_ops without verify", keys()["RS256"].jwk(`"key_ops":["encrypt"]`), ignored, ignored},
		{"empty key_ops", keys()["RS256"].jwk(`"key_ops":[]`), ignored, ignored},
		{"alg of encryption", keys()["RS256"].jwk(`"alg":"RSA-OAEP"`), ignored, ignored},
		{"alg of another type", keys()["RS256"].jwk(`"alg":"ES256"`), ignored, ignored},
		{"alg of another curve", keys()["ES256"].jwk(`"alg":"ES384"`), ignored, ignored},
		{"alg of HMAC", keys()["RS256"].jwk(`"alg":"HS256"`), ignored, ignored},
		{"alg none", keys()["RS256"].jwk(`"alg":"none"`), ignored, ignored},
		{"empty alg", keys()["RS256"].jwk(`"alg":""`), ignored, ignored},
		{"unknown kty", `{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`, ignored, ignored},
		{"no kty", `{"n":"AQAB"}`, ignored, ignored},
		{"unknown curve", `{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`, ignored, ignored},
		{"X25519", `{"kty":"OKP","crv":"X25519","x":"AA"}`, ignored, ignored},

		{"symmetric key", `{"kty":"oct","k":"c2VjcmV0"}`, refused, ignored},
		{"RSA of 2047 bits", rsaJWK(2047, 65537, ""), refused, ignored},
		{"RSA of 1024 bits", rsaJWK(1024, 65537, ""), refused, ignored},
		{"RSA of 8193 bits", rsaJWK(8193, 65537, ""), refused, ignored},
		{"even modulus", fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(append(bytes.Repeat([]byte{0xff}, 255), 0xfe))),
			refused, ignored},
		{"exponent 1", rsaJWK(2048, 1, ""), refused, ignored},
		{"even exponent", rsaJWK(2048, 65536, ""), refused, ignored},
		{"exponent of 32 bits", rsaJWK(2048, 1<<31+1, ""), refused, ignored},
		{"exponent of 100 bits", fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`,
			b64(bytes.Repeat([]byte{0xff}, 256)), b64(bytes.Repeat([]byte{0xff}, 13))), refused, ignored},
		{"no exponent", `{"kty":"RSA","n":"AQAB"}`, refused, ignored},
		{"modulus that is a number", `{"kty":"RSA","n":5,"e":"AQAB"}`, refused, ignored},
		{"padded modulus", strings.Replace(rsaJWK(2048, 3, ""), `","e"`, `==","e"`, 1), refused, ignored},
		{"point off the curve", ecJWK(func(x []byte) []byte { x[31] ^= 1; return x }), refused, ignored},
		{"x too short", ecJWK(func(x []byte) []byte { return x[1:] }), refused, ignored},
		{"x too long", ecJWK(func(x []byte) []byte { return append([]byte{0}, x...) }), refused, ignored},
		{"point at infinity", fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, b64(make([]byte, 32)),
			b64(make([]byte, 32))), refused, ignored},
		{"Ed25519 too short", `{"kty":"OKP","crv":"Ed25519","x":"AA"}`, refused, ignored},
		{"kid that is a number", keys()["ES256"].jwk(`"kid":1`), refused, ignored},
		{"long kid", keys()["ES256"].jwk(`"kid":"` + strings.Repeat("k", 513) + `"`), refused, ignored},
		{"use that is a list", keys()["ES256"].jwk(`"use":["sig"]`), refused, ignored},
		{"key_ops that is a string", keys()["ES256"].jwk(`"key_ops":"verify"`), refused, ignored},
		{"repeated key_ops", keys()["ES256"].jwk(`"key_ops":["verify","verify"]`), refused, ignored},
		{"key that is a string", `"key"`, refused, ignored},

		{"private RSA key", keys()["RS256"].jwk(`"d":"AQ"`), refused, refused},
		{"one prime", keys()["RS256"].jwk(`"p":"AQ"`), refused, refused},
		{"private EC key", keys()["ES256"].jwk(`"d":"AQ"`), refused, refused},
		{"private member that is null", keys()["ES256"].jwk(`"d":null`), refused, refused},
		{"private key for encryption", keys()["RS256"].jwk(`"use":"enc","d":"AQ"`), refused, refused},
		{"private key of an unknown kind", `{"kty":"AKP","priv":"AA"}`, refused, refused},
		{"secret in a public key", keys()["RS256"].jwk(`"k":"AQ"`), refused, refused},
		{"repeated member", keys()["ES256"].jwk(`"kty":"RSA"`), refused, refused},
	} {
		for which, parse := range map[string]func([]byte) ([]revoked.IssuerKey, error){
			tt.inline + " inline": jwt.ParseInline, tt.fetched + " fetched": jwt.ParseFetched,
		} {
			got, err := parse(keySet(tt.jwk, good))
			result := refused
			switch {
			case err == nil && len(got) == 2:
				result = used
			case err == nil && len(got) == 1 && got[0].KeyID == "good":
				result = ignored
			}
			if want, _, _ := strings.Cut(which, " "); result != want {
				t.Errorf("%s, %s: got %s (%v)", tt.name, which, result, err)
			}
			if err != nil && !errors.Is(err, revoked.ErrInvalid) {
				t.Errorf("%s: got %v, want %v", tt.name, err, revoked.ErrInvalid)
			}
		}
	}
}

// C31: a set without a usable key is an error, inline or fetched.
func TestParseKeys_Sets_AreBounded(t *testing.T) {
	good := keys()["ES256"].jwk("")
	for _, tt := range []struct {
		name string
		set  []byte
		ok   bool
	}{
		{"one key", keySet(good), true},
		{"other members", []byte(`{"keys":[` + good + `],"issuer":"x"}`), true},
		{"64 keys", keySet(append(slices.Repeat([]string{`{"kty":"x"}`}, 63), good)...), true},
		{"65 keys", keySet(append(slices.Repeat([]string{`{"kty":"x"}`}, 64), good)...), false},
		{"largest set", slices.Concat(keySet(good), bytes.Repeat([]byte{' '}, jwt.MaxSetBytes-len(keySet(good)))), true},
		{"set too large", slices.Concat(keySet(good), bytes.Repeat([]byte{' '}, jwt.MaxSetBytes-len(keySet(good))+1)), false},
		{"no keys", keySet(), false},
		{"only unusable keys", keySet(`{"kty":"x"}`, keys()["RS256"].jwk(`"use":"enc"`)), false},
		{"only symmetric keys", keySet(`{"kty":"oct","k":"AA"}`), false},
		{"a key alone", []byte(good), false},
		{"keys that are an object", []byte(`{"keys":{}}`), false},
		{"empty object", []byte(`{}`), false},
		{"repeated keys", []byte(`{"keys":[` + good + `],"keys":[` + good + `]}`), false},
		{"HTML", []byte(`<html></html>`), false},
		{"nothing", nil, false},
	} {
		for name, parse := range map[string]func([]byte) ([]revoked.IssuerKey, error){
			"inline": jwt.ParseInline, "fetched": jwt.ParseFetched,
		} {
			got, err := parse(tt.set)
			if (err == nil) != tt.ok || tt.ok && len(got) != 1 {
				t.Errorf("%s, %s: got %d keys, %v, want %v", tt.name, name, len(got), err, tt.ok)
			}
		}
	}
}

// The keys and thumbprints are the examples of RFC 7638 section 3.1 and RFC 8037 appendix A.3.
func TestParseKeys_RFCExample_HasItsThumbprint(t *testing.T) {
	const rsa7638 = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`
	const ed8037 = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	got, err := jwt.ParseFetched(keySet(rsa7638, ed8037))
	if err != nil {
		t.Fatal(err)
	}
	// The keys are in the order of their thumbprints.
	want := []struct{ thumbprint, kid, alg string }{
		{"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "2011-04-29", "RS256"},
		{"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "", ""},
	}
	for i, w := range want {
		k := got[i]
		if k.Thumbprint != w.thumbprint || k.KeyID != w.kid || k.Algorithm != w.alg || k.State != revoked.KeyActive {
			t.Errorf("key %d: got %+v, want %+v", i, k, w)
		}
		if _, err := x509.ParsePKIXPublicKey(k.Public); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
}

func TestParseKeys_SameKeyTwice_IsOneKey(t *testing.T) {
	k := keys()["RS256"]
	for _, tt := range []struct {
		name, first, second string
		kid, alg            string
	}{
		{"two algorithms", `"kid":"a","alg":"RS256"`, `"kid":"a","alg":"PS256"`, "a", ""},
		{"one algorithm", `"kid":"a","alg":"RS256"`, `"kid":"a","alg":"RS256"`, "a", "RS256"},
		{"two kids", `"kid":"a","alg":"RS256"`, `"kid":"b","alg":"PS256"`, "a", "RS256"},
	} {
		got, err := jwt.ParseFetched(keySet(k.jwk(tt.first), k.jwk(tt.second)))
		if err != nil || len(got) != 1 || got[0].KeyID != tt.kid || got[0].Algorithm != tt.alg {
			t.Errorf("%s: got %+v, %v, want kid %q and alg %q", tt.name, got, err, tt.kid, tt.alg)
		}
	}
}

func FuzzParseFetched(f *testing.F) {
	f.Add(keySet(keys()["ES256"].jwk(`"kid":"a"`), keys()["RS256"].jwk(`"use":"sig"`), keys()["EdDSA"].jwk("")))
	f.Add(keySet(rsaJWK(2048, 3, ""), `{"kty":"oct","k":"AA"}`))
	f.Fuzz(func(t *testing.T, set []byte) {
		got, err := jwt.ParseFetched(set)
		if err != nil {
			if !errors.Is(err, revoked.ErrInvalid) || got != nil {
				t.Fatalf("got %v, %v, want %v", got, err, revoked.ErrInvalid)
			}
			return
		}
		i := revoked.DefaultIssuer()
		i.Name, i.Issuer, i.Keys = "as", "https://as.example", got
		if err := revoked.ValidateIssuer(&i); err != nil {
			t.Fatalf("record with the keys: %v", err)
		}
		if _, err := jwt.New(&i); err != nil {
			t.Fatal(err)
		}
	})
}

// ParseInline accepts a set that FormatKeys returned.
func TestFormatKeys_Set_IsReadBack(t *testing.T) {
	want, err := jwt.ParseInline(keySet(keys()["RS256"].jwk(`"kid":"a","alg":"PS256"`), keys()["ES512"].jwk(""),
		keys()["EdDSA"].jwk(`"kid":"c"`)))
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwt.FormatKeys(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := jwt.ParseInline(set); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if set, err := jwt.FormatKeys(nil); err != nil || string(set) != `{"keys":[]}` {
		t.Errorf("no keys: got %s, %v", set, err)
	}
	want[0].Public = nil
	if _, err := jwt.FormatKeys(want); err == nil {
		t.Error("malformed key: got success, want an error")
	}
}
