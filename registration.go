package revoked

// A TokenRegistration is one token of a registration. Its scope, audience and username are those of
// the registration it came in.
type TokenRegistration struct {
	Digest    Digest
	Kind      TokenKind
	IssuedAt  Time // 0: the moment of the entry
	ExpiresAt Time // 0: never
	NotBefore Time
	JTI       string
	CNF       []byte
}

// A Registration adds tokens to a grant, which it makes when there is none.
type Registration struct {
	GrantID  string // never empty here: the API draws one when the body has none
	ClientID string
	Subject  string
	Session  string
	Username string
	Issuer   string
	Scope    string
	Audience []string
	Tokens   []TokenRegistration // one or two; at least one
}

// A RegisterResult is the outcome of one registration.
type RegisterResult struct {
	GrantID string
	Index   uint64
	Created bool // false: all of it was known already for that client
	Revoked bool // dead from the start
	Err     error
}

// A GrantView is a grant with its tokens, for an administrator or its issuer.
type GrantView struct {
	Grant  Grant
	Tokens []TokenView
	State  TokenState // Live, Revoked or Expired
	// ByCutoff is set when a cut-off ended the grant as a whole.
	ByCutoff *Cutoff
}

// A TokenView is one token of a GrantView.
type TokenView struct {
	Token Token
	State TokenState
}
