package jwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"

	"revoked"
	"revoked/node/jwt"
)

// Times in Unix seconds: the tokens are issued at iat and expire at exp. The time of the
// verification, now, is between the two.
const (
	iat = 1_790_000_000
	exp = iat + 3600
	now = revoked.Time(iat+60) * 1e6
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// A signer is a key of an issuer.
type signer struct {
	alg string
	key crypto.Signer
}

// keys returns one key for each algorithm. It creates the keys only once.
var keys = sync.OnceValue(func() map[string]signer {
	must := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return k
	}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	all := map[string]signer{}
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		all[alg] = signer{alg, rsaKey}
	}
	for alg, curve := range map[string]elliptic.Curve{
		"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521(),
	} {
		all[alg] = signer{alg, must(ecdsa.GenerateKey(curve, rand.Reader))}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	all["EdDSA"] = signer{"EdDSA", must(ed, err)}
	return all
})

// newKey returns a key for ES256 that is not among keys.
func newKey(t testing.TB) signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{"ES256", k}
}

func (s signer) signature(input string) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[s.alg[2:]]
	sum := []byte(input)
	if hash != 0 {
		h := hash.New()
		h.Write(sum)
		sum = h.Sum(nil)
	}
	var opts crypto.SignerOpts = hash
	if s.alg[0] == 'P' {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	if k, ok := s.key.(*ecdsa.PrivateKey); ok {
		r, ss, err := ecdsa.Sign(rand.Reader, k, sum)
		if err != nil {
			panic(err)
		}
		size := (k.Params().BitSize + 7) / 8
		sig := make([]byte, 2*size)
		r.FillBytes(sig[:size])
		ss.FillBytes(sig[size:])
		return sig
	}
	sig, err := s.key.Sign(rand.Reader, sum, opts)
	if err != nil {
		panic(err)
	}
	return sig
}

// sign returns a signed token with exactly the given header and payload.
func (s signer) sign(header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return input + "." + b64(s.signature(input))
}

// header returns the header of an RFC 9068 token with the given kid.
func (s signer) header(kid string) string {
	return fmt.Sprintf(`{"typ":"at+jwt","alg":%q,"kid":%q}`, s.alg, kid)
}

// jwk returns the public key as a JWK with additional members.
func (s signer) jwk(members string) string {
	if members != "" {
		members = "," + members
	}
	switch k := s.key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes()), members)
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, k.Params().Name,
			b64(point[1:1+half]), b64(point[1+half:]), members)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, b64(k), members)
	}
	panic("unknown key")
}

func keySet(jwks ...string) []byte { return []byte(`{"keys":[` + strings.Join(jwks, ",") + `]}`) }

// newIssuer returns an issuer with the given JWKs.
func newIssuer(t testing.TB, jwks ...string) *revoked.Issuer {
	t.Helper()
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer = "as", "https://as.example"
	var err error
	if i.Keys, err = jwt.ParseInline(keySet(jwks...)); err != nil {
		t.Fatal(err)
	}
	if err := revoked.ValidateIssuer(&i); err != nil {
		t.Fatal(err)
	}
	return &i
}

func verifier(t testing.TB, i *revoked.Issuer) *jwt.Verifier {
	t.Helper()
	v, err := jwt.New(i)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// verify parses and verifies a token. For a malformed token, the result has the reason
// revoked.RefusedFormat.
func verify(t testing.TB, i *revoked.Issuer, raw string) jwt.Result {
	t.Helper()
	tok, err := jwt.Parse(raw)
	if err != nil {
		return jwt.Result{Reason: revoked.RefusedFormat}
	}
	return verifier(t, i).Verify(tok, now)
}

// claims returns the claims of an RFC 9068 token, modified by changes. A change to nil removes a
// claim.
func claims(changes map[string]any) string {
	c := map[string]any{
		"iss": "https://as.example", "sub": "alice", "aud": "rs1", "client_id": "app", "jti": "j1",
		"iat": iat, "exp": exp, "scope": "read write", "sid": "s-1",
	}
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

// hmacToken signs a token with HS256.
func hmacToken(header, payload string, secret []byte) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(input))
	return input + "." + b64(h.Sum(nil))
}
