package revoked

// A Grant is one authorization of one client by one subject. It is the unit of revocation: all of
// its tokens are revoked together.
type Grant struct {
	ID           string
	ClientID     string
	Subject      string
	Session      string
	Issuer       string
	RegisteredBy string // client id of the issuer that registered it first
	CreatedAt    Time
	CreatedIndex uint64
	LatestExpiry Time // latest of all tokens ever registered in it; MaxTime if one never expires
	TokenCount   int  // number of tokens, including inactive ones
	LiveRefresh  Digest
	RefreshIat   Time // IssuedAt of LiveRefresh
	Revoked      *Revocation
}

// MaxGrantTokens is the maximum number of tokens in a grant, including inactive tokens.
const MaxGrantTokens = 10_000

// A Revocation records that a grant was revoked.
type Revocation struct {
	At     Time
	By     string // client id of the actor
	Reason string
	Index  uint64
}

// A TokenRegistration is one token of a [Registration], which gives its scope, audience and
// username.
type TokenRegistration struct {
	Digest    Digest
	Kind      TokenKind
	IssuedAt  Time // 0: when the log entry is applied
	ExpiresAt Time // 0: never
	NotBefore Time // 0: valid immediately
	JTI       string
	CNF       []byte // see [Token]
}

// A Registration adds tokens to a grant and creates the grant if it does not exist.
type Registration struct {
	GrantID  string // never empty: the API generates one if the body has none
	ClientID string
	Subject  string
	Session  string
	Username string
	Issuer   string
	Scope    string
	Audience []string
	Tokens   []TokenRegistration // one or two
}

// A RevokeResult is the outcome of the revocation of one token.
type RevokeResult struct {
	Index uint64 // log index
	// Unknown reports that the leader had no record of the token, so no grant was revoked: a
	// tombstone records the revocation. It is also false if the leader's version does not report it.
	Unknown bool
}

// A RegisterResult is the outcome of one registration.
type RegisterResult struct {
	GrantID string
	Index   uint64 // log index
	Created bool   // false: every token was already registered for that client
	Revoked bool   // the grant was already revoked or cut off
	Err     error
}
