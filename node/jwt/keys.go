package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"revoked"
)

// Limits of a key set.
const (
	MaxSetBytes = 256 << 10
	minRSABits  = 2048
	maxRSABits  = 8192
)

// errUnusable is returned for a key that cannot verify signatures of JWTs: a key for encryption, or
// one of an unknown type. A set may contain such keys (RFC 7517 section 5).
var errUnusable = errors.New("key is not for signatures of JWTs")

// ParseInline reads a JWK set from an operator. It rejects a set with a private, symmetric or
// malformed key, because the operator can correct it. The returned keys are active and sorted by
// thumbprint. The error wraps [revoked.ErrInvalid] and names the key by its position, starting at
// 1.
func ParseInline(set []byte) ([]revoked.IssuerKey, error) { return parseSet(set, true) }

// ParseFetched reads a JWK set that an issuer publishes. It ignores symmetric and malformed keys,
// because they may be meant for other readers. It rejects a set with a private key, because every
// reader of the set can sign with that key. Otherwise it is like [ParseInline].
func ParseFetched(set []byte) ([]revoked.IssuerKey, error) { return parseSet(set, false) }

// parseSet implements ParseInline and ParseFetched. Its errors never quote the set, which may
// contain a private key.
func parseSet(set []byte, inline bool) ([]revoked.IssuerKey, error) {
	fail := func(format string, args ...any) ([]revoked.IssuerKey, error) {
		return nil, fmt.Errorf("%w: jwks: "+format, append([]any{revoked.ErrInvalid}, args...)...)
	}
	if len(set) > MaxSetBytes {
		return fail("too long (got %d bytes, want at most %d)", len(set), MaxSetBytes)
	}
	parsed, err := parseObject(string(set))
	if err != nil {
		return fail("%w", err)
	}
	list := parsed.get("keys")
	if list == nil || list.kind != array {
		return fail("want an object with an array named keys")
	}
	if n := len(list.list); n > revoked.MaxKeySet {
		return fail("too many keys (got %d, want at most %d)", n, revoked.MaxKeySet)
	}
	var keys []revoked.IssuerKey
	for i := range list.list {
		jwk := &list.list[i]
		if isPrivate(jwk) {
			return fail("key %d: has private members: every reader of the set has the private key, so replace it", i+1)
		}
		key, err := parseKey(jwk)
		switch {
		case err == nil:
			keys = addKey(keys, key)
		case inline && isSymmetric(jwk):
			return fail("key %d: symmetric key: want public keys only", i+1)
		case inline && !errors.Is(err, errUnusable):
			return fail("key %d: %w", i+1, err)
		}
	}
	if len(keys) == 0 {
		return fail("no usable key: want a public key for signatures, RSA of %d to %d bits, EC or Ed25519",
			minRSABits, maxRSABits)
	}
	slices.SortFunc(keys, func(a, b revoked.IssuerKey) int { return strings.Compare(a.Thumbprint, b.Thumbprint) })
	return keys, nil
}

// addKey adds a key. If two entries of a set contain the same key, addKey keeps the first. If these
// entries also have the same key id but different algorithms, every algorithm that fits the key is
// allowed.
func addKey(keys []revoked.IssuerKey, k revoked.IssuerKey) []revoked.IssuerKey {
	for i := range keys {
		if first := &keys[i]; first.Thumbprint == k.Thumbprint {
			if first.KeyID == k.KeyID && first.Algorithm != k.Algorithm {
				first.Algorithm = ""
			}
			return keys
		}
	}
	return append(keys, k)
}

// isSymmetric reports whether jwk is a symmetric key, which is secret by its nature (RFC 7518
// section 6.4).
func isSymmetric(jwk *value) bool {
	kty := jwk.get("kty")
	return kty != nil && kty.text == "oct"
}

// isPrivate reports whether a key that is not symmetric has a private member (RFC 7518 sections
// 6.2.2, 6.3.2 and 6.4.1, RFC 8037 section 2).
func isPrivate(jwk *value) bool {
	if isSymmetric(jwk) {
		return false
	}
	return slices.ContainsFunc([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}, func(name string) bool {
		return jwk.get(name) != nil
	})
}

// parseKey returns the key of a JWK, or errUnusable, or an error for a malformed key.
func parseKey(jwk *value) (revoked.IssuerKey, error) {
	k := revoked.IssuerKey{State: revoked.KeyActive}
	if jwk.kind != object {
		return k, errors.New("want an object")
	}
	var kty, use string
	for _, f := range [...]struct {
		name string
		to   *string
	}{{"kty", &kty}, {"use", &use}, {"alg", &k.Algorithm}, {"kid", &k.KeyID}} {
		v := jwk.get(f.name)
		if v == nil {
			continue
		}
		if v.kind != text || len(v.text) > revoked.MaxClaimValue {
			return k, fmt.Errorf("%s: want a string of at most %d bytes", f.name, revoked.MaxClaimValue)
		}
		*f.to = strings.Clone(v.text)
	}
	if err := checkUse(use, jwk.get("use") != nil, jwk.get("key_ops")); err != nil {
		return k, err
	}
	public, err := publicKey(kty, jwk)
	if err != nil {
		return k, err
	}
	if jwk.get("alg") != nil && !fits(k.Algorithm, public) {
		return k, errUnusable
	}
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return k, fmt.Errorf("thumbprint: %w", err)
	}
	k.Thumbprint = base64.RawURLEncoding.EncodeToString(sum)
	k.Public, err = x509.MarshalPKIXPublicKey(public)
	return k, err
}

// checkUse checks use and key_ops (RFC 7517 sections 4.2 and 4.3). An absent member allows every
// use.
func checkUse(use string, hasUse bool, ops *value) error {
	if hasUse && use != "sig" {
		return errUnusable
	}
	if ops == nil {
		return nil
	}
	if ops.kind != array {
		return errors.New("key_ops: want an array")
	}
	var names []string
	for _, op := range ops.list {
		if op.kind != text || slices.Contains(names, op.text) {
			return errors.New("key_ops: want distinct strings")
		}
		names = append(names, op.text)
	}
	if !slices.Contains(names, "verify") {
		return errUnusable
	}
	return nil
}

// publicKey returns the public key of a JWK. It returns errUnusable for a key type or a curve that
// no supported algorithm uses.
func publicKey(kty string, jwk *value) (crypto.PublicKey, error) {
	switch kty {
	case "RSA":
		return rsaKey(jwk)
	case "EC":
		return ecKey(jwk)
	case "OKP":
		crv := jwk.get("crv")
		if crv == nil || crv.text != "Ed25519" {
			return nil, errUnusable
		}
		x, err := octets(jwk, "x")
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("x: want %d bytes in base64url", ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, errUnusable
}

// rsaKey reads an RSA key (RFC 7518 section 6.3.1). RFC 7518 section 3.3 requires at least 2048
// bits. The upper bound limits the time of one verification, which any caller can cause.
func rsaKey(jwk *value) (*rsa.PublicKey, error) {
	modulus, err := octets(jwk, "n")
	if err != nil {
		return nil, err
	}
	n := new(big.Int).SetBytes(modulus)
	if bits := n.BitLen(); bits < minRSABits || bits > maxRSABits || n.Bit(0) == 0 {
		return nil, fmt.Errorf("n: wrong modulus (got %d bits, want an odd number of %d to %d bits)",
			bits, minRSABits, maxRSABits)
	}
	exponent, err := octets(jwk, "e")
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(exponent)
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > math.MaxInt32 || e.Bit(0) == 0 {
		return nil, fmt.Errorf("e: want an odd number from 3 to %d", math.MaxInt32)
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// ecKey reads an EC key (RFC 7518 section 6.2.1), and refuses a point that is not on its curve.
func ecKey(jwk *value) (*ecdsa.PublicKey, error) {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	crv := jwk.get("crv")
	if crv == nil || curves[crv.text] == nil {
		return nil, errUnusable
	}
	curve := curves[crv.text]
	size := (curve.Params().BitSize + 7) / 8
	x, err1 := octets(jwk, "x")
	y, err2 := octets(jwk, "y")
	if err1 != nil || err2 != nil || len(x) != size || len(y) != size {
		return nil, fmt.Errorf("x and y: want %d bytes each in base64url", size)
	}
	const uncompressed = 4 // SEC 1 section 2.3.3
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{uncompressed}, x, y))
	if err != nil {
		return nil, fmt.Errorf("x and y: want a point on %s", crv.text)
	}
	return key, nil
}

// octets decodes the named member from base64url. It accepts leading zeros in a number, because
// some issuers publish them although RFC 7518 section 2 forbids them.
func octets(jwk *value, name string) ([]byte, error) {
	v := jwk.get(name)
	if v == nil || v.kind != text {
		return nil, fmt.Errorf("%s: missing, or not a string", name)
	}
	b, err := decodePart(v.text)
	if err != nil {
		return nil, fmt.Errorf("%s: want base64url without padding", name)
	}
	return b, nil
}

// fits reports whether an algorithm that an issuer may use works with a key. The algorithm must
// match the key's type, so that no token can use a public key as a symmetric key (RFC 8725 section
// 2.1).
func fits(algorithm string, public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, algorithm)
	case *ecdsa.PublicKey:
		curve := curveOf(algorithm)
		return curve != nil && curve == k.Curve
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// FormatKeys returns the JWK set of keys as JSON. It has no private members, because the state
// holds public keys only.
func FormatKeys(keys []revoked.IssuerKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for i := range keys {
		k := &keys[i]
		public, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			return nil, fmt.Errorf("parse key %s: %w", k.Thumbprint, err)
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: public, KeyID: k.KeyID, Algorithm: k.Algorithm, Use: "sig"})
	}
	return json.Marshal(set)
}
