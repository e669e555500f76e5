package revoked

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// An Issuer is a trusted issuer of JWTs, which need no registration. Every node verifies them with
// the issuer's keys. Apply sets the fields from CreatedAt on, except Keys, and the fields about
// earlier values. The operator chooses the others.
type Issuer struct {
	Name                 string // the operator's choice, see [CheckIssuerName]
	Issuer               string // the iss claim, compared exactly; it is unique and never changes
	JWKSURI              string // the leader fetches the keys there; empty: the operator gave them
	Algorithms           []string
	TokenTypes           []string // accepted typ headers, see [Issuer.AcceptsType]
	RequiredClaims       map[string]string
	ForbiddenClaims      []string
	ClientClaim          string // empty: client_id, else azp
	SessionClaim         string // empty: tokens have no session
	GrantClaim           string // empty: tokens have no grant
	RevokeSession        bool   // revoking a token revokes its session, if GrantClaim is empty
	OwnClients           bool   // its client ids are the client ids of this cluster
	RefuseUnknownClients bool
	RequireAudience      bool
	JTI                  bool // false: the issuer reuses jti across tokens
	MaxLifetime          time.Duration
	// EarlierLifetime bounds tokens issued until LifetimeSince: an increase of MaxLifetime affects
	// only tokens that are issued after it. LifetimeSince is 0 if no increase is to be remembered.
	EarlierLifetime time.Duration
	LifetimeSince   Time
	ClockSkew       time.Duration
	// EarlierSkew is an earlier, larger ClockSkew. Cut-offs still apply it to tokens that were issued
	// until SkewSince, so a token that a cut-off has revoked stays inactive. SkewSince is 0 if no
	// decrease is to be remembered.
	EarlierSkew time.Duration
	SkewSince   Time
	// Earlier lists the mappings that changes of the record replaced, oldest first. A mapping is kept
	// until all tokens that may have been seen under it have expired.
	Earlier []EarlierMapping
	// MappingVersion is the log index of the last change of the mapping, 0 if it never changed.
	MappingVersion uint64
	Disabled       bool
	CreatedAt      Time
	DeletedAt      Time        // 0: not deleted; else no token is active, and the keys only verify tokens to be revoked
	Version        uint64      // log index of the last change, of the record or its keys
	KeysVersion    uint64      // log index of the last change of Keys
	Keys           []IssuerKey // sorted by thumbprint, which is unique
}

// KeyState is the state of an issuer's key.
type KeyState uint8

// The states. The numbers are part of stored records. A key that left KeyActive never returns to
// it. Tokens that such a key verifies are inactive, but can still be revoked.
const (
	KeyActive  KeyState = 1
	KeyRetired KeyState = 2 // missing from two fetches, or from the set that the operator gave
	KeyBanned  KeyState = 3 // banned by an administrator
)

// String returns the name that the API uses for the state.
func (s KeyState) String() string {
	switch s {
	case KeyActive:
		return "active"
	case KeyRetired:
		return "retired"
	case KeyBanned:
		return "banned"
	}
	return "unknown"
}

// An IssuerKey is a public key of an issuer.
type IssuerKey struct {
	KeyID        string
	Thumbprint   string // RFC 7638, SHA-256, base64url
	Algorithm    string // alg of the JWK; empty: any that fits the key
	Public       []byte // DER of a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7)
	State        KeyState
	MissingSince Time // first fetch without the key; 0: the newest fetch had it
	EndedAt      Time // when it was retired or banned
}

// DefaultIssuer returns the defaults of a new issuer. The caller must set Name, Issuer, and JWKSURI
// or Keys.
func DefaultIssuer() Issuer {
	return Issuer{
		TokenTypes: []string{"at+jwt"}, SessionClaim: "sid", RequireAudience: true, JTI: true,
		MaxLifetime: day, ClockSkew: 5 * time.Second,
	}
}

// Key returns the key with that thumbprint, or nil.
func (i *Issuer) Key(thumbprint string) *IssuerKey {
	for n := range i.Keys {
		if i.Keys[n].Thumbprint == thumbprint {
			return &i.Keys[n]
		}
	}
	return nil
}

// AlgorithmOf returns the algorithm of a key of i. It is the alg of its JWK, else the only one that
// the type of the key and Algorithms allow. It is "" if there are several.
func (i *Issuer) AlgorithmOf(k *IssuerKey) string {
	if k.Algorithm != "" {
		return k.Algorithm
	}
	public, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return ""
	}
	switch public := public.(type) {
	case ed25519.PublicKey:
		return "EdDSA"
	case *ecdsa.PublicKey:
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Curve.Params().BitSize]
	case *rsa.PublicKey:
		isOther := func(a string) bool { return !strings.HasPrefix(a, "RS") && !strings.HasPrefix(a, "PS") }
		if left := slices.DeleteFunc(slices.Clone(i.Algorithms), isOther); len(left) == 1 {
			return left[0]
		}
	}
	return ""
}

// LifetimeOf returns the maximum lifetime of a token that was issued at iat. A token issued in the
// same whole second as an increase is treated as issued before it.
func (i *Issuer) LifetimeOf(iat Time) time.Duration {
	if i.LifetimeSince != 0 && iat.Unix() <= i.LifetimeSince.Unix() {
		return min(i.EarlierLifetime, i.MaxLifetime)
	}
	return i.MaxLifetime
}

// CutoffSkew returns the clock skew that a cut-off adds to its IssuedBefore for a token issued at
// iat.
func (i *Issuer) CutoffSkew(iat Time) time.Duration {
	if iat <= i.SkewSince {
		return max(i.EarlierSkew, i.ClockSkew)
	}
	return i.ClockSkew
}

// AcceptsType reports whether a token may have the given typ header; "" means that it has none.
// It ignores case and a leading "application/" (RFC 7515 section 4.1.9).
func (i *Issuer) AcceptsType(typ string) bool {
	return slices.ContainsFunc(i.TokenTypes, func(t string) bool { return plainType(t) == plainType(typ) })
}

// plainType returns typ in lower case, without a leading "application/". It keeps the prefix if
// nothing or another slash follows.
func plainType(typ string) string {
	typ = strings.ToLower(typ)
	if rest, ok := strings.CutPrefix(typ, "application/"); ok && rest != "" && !strings.Contains(rest, "/") {
		return rest
	}
	return typ
}

// A KeyFetch describes the fetches of an issuer's key set by the leader.
type KeyFetch struct {
	At     Time   // end of the last fetch; 0: none yet
	Error  string // why the last fetch failed; empty: it succeeded
	NextAt Time   // when the next fetch is due
}

// An IssuerReason is the reason for which the record or the keys of an issuer keep a token
// inactive. The API shows it to administrators.
type IssuerReason string

// The reasons, in the order in which they are checked.
const (
	RefusedFormat      IssuerReason = "format" // not a JWT of the right form
	RefusedIssuer      IssuerReason = "issuer"
	RefusedAlgorithm   IssuerReason = "alg"
	RefusedKey         IssuerReason = "kid" // unknown, or the key is retired or banned
	RefusedSignature   IssuerReason = "signature"
	RefusedType        IssuerReason = "typ"
	RefusedClaims      IssuerReason = "claims"
	RefusedLifetime    IssuerReason = "lifetime"
	RefusedAudience    IssuerReason = "audience"
	RefusedDisabled    IssuerReason = "disabled"
	RefusedExpired     IssuerReason = "expired"
	RefusedNotYetValid IssuerReason = "not_yet_valid"
)

// A TokenCheck reports whether a token may be active according to the record and the keys of its
// issuer. It does not account for revocations.
type TokenCheck struct {
	Reason IssuerReason // empty: it may be active
	Claim  string       // name of the first wrong claim, if the reason is RefusedClaims
	KeyID  string       // kid of the token; empty unless the issuer signed it
	JWT    JWT          // its claims; zero unless the issuer signed the token
}
