package jwt

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"revoked"
)

// A Result is the outcome of a verification.
type Result struct {
	// Verified means that the issuer signed the token as a well-formed access token, with a key in any
	// state. If it is true, the other fields can be trusted, and the token may be revoked.
	Verified bool
	// Reason is empty if the token may be active. The caller still decides about revocations.
	Reason revoked.IssuerReason
	// Claim is the name of the first wrong claim if the reason is [revoked.RefusedClaims].
	Claim string
	// UnknownKey means that the token names a key that the issuer's record does not have, so the
	// record may be out of date. If it is true, all other fields except Reason are unset.
	UnknownKey bool
	KeyID      string // kid of the token
	// JWT has the claims, the digests of the token and of its twin, and the thumbprint of the key.
	JWT revoked.JWT
}

// maxTries is the maximum number of keys that are tried for a token. It limits the signature checks
// that one request can cause. More than one key is tried only for a token without a kid, or if
// several keys have the same kid.
const maxTries = 4

// A Verifier verifies the tokens of one issuer. It is immutable.
type Verifier struct {
	issuer *revoked.Issuer
	keys   []verifyKey // active keys first
}

type verifyKey struct {
	*revoked.IssuerKey
	public crypto.PublicKey
}

// New returns a verifier for an issuer, whose record must not change any more. It returns an error
// for a key that does not parse. Parsing the keys is expensive, so keep the verifier as long as the
// issuer's record.
func New(issuer *revoked.Issuer) (*Verifier, error) {
	v := &Verifier{issuer: issuer}
	for i := range issuer.Keys {
		k := &issuer.Keys[i]
		public, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			return nil, fmt.Errorf("parse key %s of issuer %s: %w", k.Thumbprint, issuer.Name, err)
		}
		v.keys = append(v.keys, verifyKey{k, public})
	}
	slices.SortStableFunc(v.keys, func(a, b verifyKey) int { return int(a.State) - int(b.State) })
	return v, nil
}

// Verify verifies a token at the time now.
//
// The order of the checks is part of the contract. Verified requires a valid signature, an accepted
// type and well-formed claims. It does not require an active key, and does not depend on now. So a
// token whose key was retired, or that has expired, can still be revoked, with its session or
// grant.
func (v *Verifier) Verify(t *Token, now revoked.Time) Result {
	if t.issuer != v.issuer.Issuer {
		return Result{Reason: revoked.RefusedIssuer}
	}
	keys, refused := v.candidates(t)
	if refused.Reason != "" {
		return refused
	}
	key := t.signedBy(keys)
	if key == nil {
		return Result{Reason: revoked.RefusedSignature}
	}
	if !v.issuer.AcceptsType(t.typ) {
		return Result{Reason: revoked.RefusedType}
	}
	r := readClaims(v.issuer, t)
	if !r.Verified {
		return r
	}
	r.KeyID, r.JWT.Thumbprint = t.keyID, key.Thumbprint
	r.Reason = v.inactive(&r.JWT, key.State, now)
	return r
}

// candidates returns the keys to try, or a result with the reason why no key can be tried. A key
// that has the token's kid but another algorithm counts as known, because a fetch would not help.
func (v *Verifier) candidates(t *Token) ([]verifyKey, Result) {
	allowed := v.issuer.Algorithms
	if len(allowed) == 0 {
		allowed = revoked.SignatureAlgorithms()
	}
	if !slices.Contains(allowed, t.algorithm) {
		return nil, Result{Reason: revoked.RefusedAlgorithm}
	}
	var keys []verifyKey
	known := false
	for _, k := range v.keys {
		if t.hasKeyID && k.KeyID != t.keyID {
			continue
		}
		known = true
		if fits(t.algorithm, k.public) && (k.Algorithm == "" || k.Algorithm == t.algorithm) && len(keys) < maxTries {
			keys = append(keys, k)
		}
	}
	switch {
	case t.hasKeyID && !known:
		return nil, Result{Reason: revoked.RefusedKey, UnknownKey: true}
	case len(keys) == 0:
		return nil, Result{Reason: revoked.RefusedAlgorithm}
	}
	return keys, Result{}
}

// signedBy returns the key that made the signature, or nil. The caller has checked that the issuer
// and each of the keys allow the token's algorithm.
func (t *Token) signedBy(keys []verifyKey) *verifyKey {
	jws, err := jose.ParseSignedCompact(t.raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(t.algorithm)})
	if err != nil {
		return nil
	}
	for i := range keys {
		if _, err := jws.Verify(keys[i].public); err == nil {
			return &keys[i]
		}
	}
	return nil
}

// inactive returns the reason why a verified token cannot be active. It uses only the issuer's
// record and the time now: the caller checks denials and cut-offs.
func (v *Verifier) inactive(t *revoked.JWT, state revoked.KeyState, now revoked.Time) revoked.IssuerReason {
	switch {
	case state != revoked.KeyActive:
		return revoked.RefusedKey
	case t.ExpiresAt > t.IssuedAt.Add(v.issuer.LifetimeOf(t.IssuedAt)):
		return revoked.RefusedLifetime
	case v.issuer.RequireAudience && len(t.Audience) == 0:
		return revoked.RefusedAudience
	case v.issuer.Disabled:
		return revoked.RefusedDisabled
	case t.ExpiresAt <= now:
		return revoked.RefusedExpired
	case max(t.IssuedAt, t.NotBefore) > now.Add(v.issuer.ClockSkew):
		return revoked.RefusedNotYetValid
	}
	return ""
}

// Check verifies a token for an administrator, who may learn why it cannot be active. An error
// comes from [New]. Check ignores denials and cut-offs.
func Check(issuer *revoked.Issuer, token string, now revoked.Time) (revoked.TokenCheck, error) {
	t, err := Parse(token)
	if err != nil {
		return revoked.TokenCheck{Reason: revoked.RefusedFormat}, nil
	}
	v, err := New(issuer)
	if err != nil {
		return revoked.TokenCheck{}, err
	}
	r := v.Verify(t, now)
	return revoked.TokenCheck{Reason: r.Reason, Claim: r.Claim, KeyID: r.KeyID, JWT: r.JWT}, nil
}
