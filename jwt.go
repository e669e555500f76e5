package revoked

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"
)

// A JWT holds the properties that determine whether a token of a trusted issuer is revoked. The
// claims are trustworthy only if a node has verified the signature.
type JWT struct {
	Issuer     string   // the iss claim
	Digests    []Digest // digest of the token and, if its signature has one, of the other form of that signature
	JTI        string
	ClientID   string
	Subject    string
	Session    string
	GrantID    string
	Earlier    []Membership // memberships by earlier mappings of the issuer, see [EarlierMapping]
	IssuedAt   Time
	ExpiresAt  Time
	NotBefore  Time // 0: valid immediately
	Scope      string
	Username   string
	Audience   []string
	CNF        []byte // see [Token]
	Thumbprint string // thumbprint of the key that verified the token
	// MappingVersion is the MappingVersion of the issuer's record with which the claims were read.
	MappingVersion uint64
}

// Record returns the record that [Decide] evaluates. Its grant is newer than every cut-off. So a
// cut-off of a restore or of a deleted client covers the token only if its iat is old enough.
func (j *JWT) Record() Record {
	r := Record{
		Found: true,
		Token: Token{
			Kind: AccessToken, State: Live, GrantID: j.GrantID, IssuedAt: j.IssuedAt, ExpiresAt: j.ExpiresAt,
			NotBefore: j.NotBefore, Scope: j.Scope, Username: j.Username, Audience: j.Audience, JTI: j.JTI, CNF: j.CNF,
		},
		Grant: Grant{
			ID: j.GrantID, ClientID: j.ClientID, Subject: j.Subject, Session: j.Session, Issuer: j.Issuer,
			CreatedAt: j.IssuedAt, CreatedIndex: math.MaxUint64, LatestExpiry: j.ExpiresAt, TokenCount: 1,
		},
	}
	if len(j.Digests) > 0 {
		r.Token.Digest = j.Digests[0]
	}
	for i := range j.Earlier {
		m, g := &j.Earlier[i], r.Grant
		g.ID, g.ClientID, g.Session = m.GrantID, m.ClientID, m.Session
		r.Earlier = append(r.Earlier, g)
	}
	return r
}

// A JTIRevocation revokes JWTs of a trusted issuer by their jti, without the tokens themselves.
type JTIRevocation struct {
	Issuer    string // the iss claim
	JTI       string
	ExpiresAt Time // expiry of the token; 0: unknown
	Reason    string
}

// DenialKind is the property by which a denial revokes JWTs.
type DenialKind uint8

// The kinds. The numbers are part of stored keys.
const (
	DenyJTI     DenialKind = 1
	DenyDigest  DenialKind = 2
	DenyGrant   DenialKind = 3
	DenySession DenialKind = 4
)

// A Denial revokes the JWTs of an issuer that have a certain property, whenever they were issued.
type Denial struct {
	Until  Time // the latest expiry of a token that it can revoke, according to every clock
	At     Time
	By     string // client id of the actor
	Reason string
	Index  uint64
}

// DenialKey returns the key of the denial of one value: a jti, a digest, a grant or a session. The
// issuer of a digest is "".
func DenialKey(kind DenialKind, issuer, value string) Digest {
	b := append(make([]byte, 0, 256), byte(kind))
	b = binary.AppendUvarint(b, uint64(len(issuer)))
	b = append(append(b, issuer...), value...)
	return sha256.Sum256(b)
}

// DenialKeys returns the keys of the denials that can revoke j.
func (j *JWT) DenialKeys() []Digest {
	keys := make([]Digest, 0, 5)
	for i := range j.Digests {
		keys = append(keys, DenialKey(DenyDigest, "", string(j.Digests[i][:])))
	}
	add := func(kind DenialKind, value string) {
		if value != "" {
			keys = append(keys, DenialKey(kind, j.Issuer, value))
		}
	}
	add(DenyJTI, j.JTI)
	add(DenyGrant, j.GrantID)
	add(DenySession, j.Session)
	for i := range j.Earlier {
		add(DenyGrant, j.Earlier[i].GrantID)
		add(DenySession, j.Earlier[i].Session)
	}
	return keys
}

// Bounds of an assertion with which a client authenticates (RFC 7523 section 2.2).
const (
	// MaxAssertionLifetime is how far in the future the expiry may be.
	MaxAssertionLifetime = 10 * time.Minute
	// MaxAssertionSkew is the largest max_clock_skew. The state keeps a used assertion for this long
	// after its expiry, because a node with a slow clock may still accept it.
	MaxAssertionSkew = 5 * time.Minute
	MaxAssertionID   = 512 // bytes of a jti
)

// A VerifiedAssertion is a valid assertion that one of the client's keys has signed.
type VerifiedAssertion struct {
	Key        Digest // see [AssertionKey]
	ExpiresAt  Time
	Thumbprint string // thumbprint of the key
}

// An AssertionUse records the only permitted use of an assertion.
type AssertionUse struct {
	Key       Digest // see [AssertionKey]
	ExpiresAt Time
	// Request is a random number that identifies the authenticated request. All operations with the
	// same number belong to one use, because a request may need several operations.
	Request [16]byte
}

// AssertionKey returns the key under which the use of an assertion is stored. The key reveals
// neither the client nor the jti.
func AssertionKey(clientID, jti string) Digest {
	b := binary.AppendUvarint([]byte("assertion\x00"), uint64(len(clientID)))
	return sha256.Sum256(append(append(b, clientID...), jti...))
}
