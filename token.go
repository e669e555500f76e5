package revoked

import "slices"

// TokenKind tells an access token from a refresh token.
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

// TokenState is what a token's record says of it, whatever its grant, its client or the time say.
type TokenState uint8

// The states. The numbers are part of stored records. A token leaves Live for good.
const (
	Live    TokenState = 1
	Rotated TokenState = 2 // a refresh token of the same grant with a later issued_at replaced it
	Revoked TokenState = 3
	Expired TokenState = 4
)

// String returns the word used in answers.
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

// A Token is one access or refresh token. Of a token that is no longer Live only a stub remains:
// Digest, Kind, GrantID, State and ExpiresAt.
type Token struct {
	Digest   Digest
	Kind     TokenKind
	State    TokenState
	GrantID  string
	IssuedAt Time
	// RegisteredAt is set only for a token whose IssuedAt was ahead of the moment of its registration:
	// a clock of the issuer that is fast must not save it from a cut-off that came later.
	RegisteredAt Time
	ExpiresAt    Time // 0: never
	NotBefore    Time // 0: at once
	Scope        string
	Username     string
	Audience     []string
	JTI          string
	CNF          []byte // a JSON object, or empty (RFC 7800, RFC 8705 section 3.2)
}

// A Grant is one authorization of one client by one subject; the unit of revocation.
type Grant struct {
	ID           string
	ClientID     string
	Subject      string
	Session      string
	Issuer       string
	RegisteredBy string // the client id of the issuer that registered it first
	CreatedAt    Time
	CreatedIndex uint64
	LatestExpiry Time // of every token ever registered in it; MaxTime if one never expires
	TokenCount   int  // dead ones included
	LiveRefresh  Digest
	RefreshIat   Time // issued_at of LiveRefresh
	Revoked      *Revocation
}

// A Revocation says when, by whom and why a grant ended, and at which log index.
type Revocation struct {
	At     Time
	By     string // client id of the actor
	Reason string
	Index  uint64
}

// A Record is all that a node knows of one token digest.
// Token and Grant are meaningless when Found is false.
type Record struct {
	Found bool
	Token Token
	Grant Grant
}

// A Verdict is the answer to "may this token still be used?".
type Verdict uint8

// The verdicts. Everything but Active is answered as {"active":false} (RFC 7662 section 2.2).
const (
	Unknown    Verdict = iota // no record of the digest: only the leader's word makes it final
	Active                    // may be said by a node that proved itself current, and by no other
	Dead                      // revoked, rotated, expired or cut off: final, any copy may say it
	NotYet                    // not_before is ahead
	Suspended                 // its client is disabled or unknown
	PastExpiry                // expired by this node's own clock only: final for this answer, not for other nodes
)

// Circumstances are what Decide needs beside the record, all read from one node.
type Circumstances struct {
	Now    Time    // the node's clock
	Stamp  Time    // the newest stamp that the state machine has applied
	Client *Client // the grant's client as the state machine has it; nil if there is none
	// CutOff reports whether a cut-off covers a token of the grant.
	CutOff func(g *Grant, t *Token) bool
}

// Decide is the one function that says whether a token is active. It is pure.
//
// A token is expired when either clock says so, not yet valid when either says so.
func Decide(r *Record, c Circumstances) Verdict {
	if !r.Found {
		return Unknown
	}
	if r.Token.State != Live || r.Grant.Revoked != nil {
		return Dead
	}
	if c.CutOff != nil && c.CutOff(&r.Grant, &r.Token) {
		return Dead
	}
	if exp := r.Token.ExpiresAt; exp != 0 {
		if exp <= c.Stamp {
			return Dead
		}
		if exp <= c.Now {
			return PastExpiry
		}
	}
	if nbf := r.Token.NotBefore; nbf != 0 && (nbf > c.Now || nbf > c.Stamp) {
		return NotYet
	}
	if c.Client == nil || c.Client.Disabled {
		return Suspended
	}
	return Active
}

// HasAudience reports whether a resource server with the given audiences is meant by the token: one
// that names no audience means all of them.
func (t *Token) HasAudience(audiences []string) bool {
	if len(t.Audience) == 0 {
		return true
	}
	return slices.ContainsFunc(t.Audience, func(a string) bool { return slices.Contains(audiences, a) })
}

// A Status is the proven answer of a node for one digest.
type Status struct {
	Verdict Verdict
	Record  Record // as read; Found is false for Unknown
}
