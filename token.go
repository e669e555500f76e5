package revoked

import "slices"

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
// Kind, GrantID, State and ExpiresAt.
type Token struct {
	Digest   Digest
	Kind     TokenKind
	State    TokenState
	GrantID  string
	IssuedAt Time
	// RegisteredAt is set only if IssuedAt was later than the registration. Because of it, a later
	// cut-off ends the token even if the clock of the issuer was ahead.
	RegisteredAt Time
	ExpiresAt    Time // 0: never
	NotBefore    Time // 0: valid immediately
	Scope        string
	Username     string
	Audience     []string
	JTI          string
	CNF          []byte // a JSON object, or empty (RFC 7800, RFC 8705 section 3.2)
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
