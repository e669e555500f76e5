package revoked

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
)

// A Digest is the SHA-256 of a token's bytes, the only form of a token below the HTTP handlers.
type Digest [sha256.Size]byte

// DigestToken returns the digest of a raw token. It neither retains nor copies the token.
func DigestToken[T string | []byte](token T) Digest { return sha256.Sum256([]byte(token)) }

// String returns the base64url form without padding.
func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// Prefix returns the first eight characters of String. They distinguish the tokens of a list, but
// are too short to look up a token.
func (d Digest) Prefix() string { return d.String()[:8] }

// IsZero reports whether d is the zero digest, which is not the digest of any token.
func (d Digest) IsZero() bool { return d == Digest{} }

// TokenKind distinguishes access tokens from refresh tokens.
type TokenKind uint8

// The kinds. The numbers are part of stored records.
const (
	AccessToken  TokenKind = 1
	RefreshToken TokenKind = 2
)

// String returns "access_token" or "refresh_token", the names of RFC 7009 section 2.1.
func (k TokenKind) String() string {
	switch k {
	case AccessToken:
		return "access_token"
	case RefreshToken:
		return "refresh_token"
	}
	return "unknown"
}

// TokenState is the stored state of a token. It does not account for the token's grant, its client
// or the current time; [Decide] does.
type TokenState uint8

// The states. The numbers are part of stored records. A token that left Live never returns to it.
const (
	Live    TokenState = 1
	Rotated TokenState = 2 // a refresh token of the same grant with a later issued_at replaced it
	Revoked TokenState = 3
	Expired TokenState = 4
)

// String returns the name that the API uses for the state.
func (s TokenState) String() string {
	switch s {
	case Live:
		return "active"
	case Rotated:
		return "rotated"
	case Revoked:
		return "revoked"
	case Expired:
		return "expired"
	}
	return "unknown"
}

// A Token is one access or refresh token. A token that is not Live is reduced to a stub: Digest,
// Kind, GrantID, State and ExpiresAt. Once the state keeps its history (see [History]), a stub also
// has the other times, the indexes and the JTI.
type Token struct {
	Digest   Digest
	Kind     TokenKind
	State    TokenState
	GrantID  string
	IssuedAt Time
	// RegisteredAt is set only if IssuedAt was later than the registration, or if the state keeps
	// its history. A later cut-off compares with RegisteredAt, so it revokes the token even if the
	// issuer's clock was fast.
	RegisteredAt    Time
	RegisteredIndex uint64 // set only if the state keeps its history
	ExpiresAt       Time   // 0: never
	NotBefore       Time   // 0: valid immediately
	Scope           string
	Username        string
	Audience        []string
	JTI             string
	CNF             []byte // a JSON object, or empty (RFC 7800, RFC 8705 section 3.2)
	// EndedAt and EndedIndex are the stamp and the index of the entry that turned the token into a
	// stub. They are set only if the state keeps its history.
	EndedAt    Time
	EndedIndex uint64
	// DeniedAt and DeniedIndex are the stamp and the index of the entry whose denial of the JTI
	// revoked this token. Only a stub has them, because the denial may be dropped before the stub.
	DeniedAt    Time
	DeniedIndex uint64
	// UndeniedAt is the earliest time for which the state can show whether the JTI was denied. An
	// earlier denial may have been dropped. Only a stub has this time.
	UndeniedAt Time
}

// IntendedFor reports whether a resource server with the given audiences may accept the token. A
// token without an audience is intended for all of them.
func (t *Token) IntendedFor(audiences []string) bool {
	if len(t.Audience) == 0 {
		return true
	}
	return slices.ContainsFunc(t.Audience, func(a string) bool {
		return slices.Contains(audiences, a)
	})
}
