package jwt

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"

	"revoked"
)

// MaxLength is the maximum length of a token in bytes. It bounds the work that an unauthenticated
// sender can cause before the signature is checked.
const MaxLength = 8192

// ErrFormat is returned for a token that is not a JWT in the compact form of RFC 7515 section 7.1.
var ErrFormat = errors.New("not a JWT")

// A Token is a well-formed JWT. Its signature is not verified, so its getters return unverified
// claims of the sender.
type Token struct {
	raw       string
	header    value
	claims    value
	signature []byte
	algorithm string
	keyID     string
	hasKeyID  bool
	typ       string
	issuer    string
}

// Parse checks the form of a token and decodes it. It returns [ErrFormat] unless the token is the
// only valid encoding of its three parts, and the header and the claims are strict JSON objects.
// The token may not use extensions: crit (RFC 7515 section 4.1.11) and b64 (RFC 7797) must be
// absent.
func Parse(raw string) (*Token, error) {
	if len(raw) > MaxLength || strings.Count(raw, ".") != 2 {
		return nil, ErrFormat
	}
	parts := strings.Split(raw, ".")
	header, err1 := decodePart(parts[0])
	claims, err2 := decodePart(parts[1])
	signature, err3 := decodePart(parts[2])
	if err1 != nil || err2 != nil || err3 != nil {
		return nil, ErrFormat
	}
	t := &Token{raw: raw, signature: signature}
	if t.header, err1 = parseObject(string(header)); err1 != nil {
		return nil, ErrFormat
	}
	if t.claims, err2 = parseObject(string(claims)); err2 != nil {
		return nil, ErrFormat
	}
	if t.header.get("crit") != nil || t.header.get("b64") != nil {
		return nil, ErrFormat
	}
	for _, f := range [...]struct {
		name string
		to   *string
	}{{"alg", &t.algorithm}, {"kid", &t.keyID}, {"typ", &t.typ}} {
		v := t.header.get(f.name)
		if v == nil {
			continue
		}
		if v.kind != text {
			return nil, ErrFormat
		}
		*f.to = v.text
	}
	t.hasKeyID = t.header.get("kid") != nil
	if t.header.get("alg") == nil {
		return nil, ErrFormat
	}
	if iss := t.claims.get("iss"); iss != nil && iss.kind == text {
		t.issuer = iss.text
	}
	return t, nil
}

// HasHeader reports whether the first part of a token decodes to text that starts like a JSON
// object. Such a token was meant to be a JWT, even if [Parse] rejects it. An opaque token with two
// dots has no such part, so it is not treated as a malformed JWT.
func HasHeader(raw string) bool {
	part, _, _ := strings.Cut(raw, ".")
	header, err := decodePart(part)
	return err == nil && bytes.HasPrefix(header, []byte("{"))
}

// decodePart decodes base64url (RFC 7515 section 2). The loop rejects CR and LF, which Go's decoder
// would skip. Strict rejects nonzero bits after the last byte. Either would be a second encoding of
// the part.
func decodePart(s string) ([]byte, error) {
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return nil, ErrFormat
		}
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// Issuer returns the claim iss, or "" if it is not a string. Use it only to find the issuer's
// record: it is not verified.
func (t *Token) Issuer() string { return t.issuer }

// KeyID returns the header kid. It returns false if the token has none.
func (t *Token) KeyID() (string, bool) { return t.keyID, t.hasKeyID }

// Digest returns the digest of the token. It covers the raw token, so two tokens with equal claims
// have two digests.
func (t *Token) Digest() revoked.Digest { return revoked.DigestToken(t.raw) }

// Twin returns the digest of the same token with the other form of its ECDSA signature. Anyone can
// compute the valid signature (r, n-s) from (r, s). It returns false for a token that has no twin.
// Twin needs no key: the twin verifies if and only if the token does.
func (t *Token) Twin() (revoked.Digest, bool) {
	curve := curveOf(t.algorithm)
	if curve == nil {
		return revoked.Digest{}, false
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(t.signature) != 2*size {
		return revoked.Digest{}, false
	}
	s, n := new(big.Int).SetBytes(t.signature[size:]), curve.Params().N
	if s.Sign() == 0 || s.Cmp(n) >= 0 {
		return revoked.Digest{}, false
	}
	twin := make([]byte, 2*size)
	copy(twin, t.signature[:size])
	s.Sub(n, s).FillBytes(twin[size:])
	signed := t.raw[:strings.LastIndexByte(t.raw, '.')+1]
	return revoked.DigestToken(signed + base64.RawURLEncoding.EncodeToString(twin)), true
}

// curveOf returns the curve of an ECDSA algorithm (RFC 7518 section 3.4), or nil.
func curveOf(algorithm string) elliptic.Curve {
	switch algorithm {
	case "ES256":
		return elliptic.P256()
	case "ES384":
		return elliptic.P384()
	case "ES512":
		return elliptic.P521()
	}
	return nil
}
