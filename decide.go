package revoked

import (
	"bytes"
	"time"
)

// A Record is the stored state of one token digest. Token and Grant are unset if Found is false.
type Record struct {
	Found bool
	Token Token
	Grant Grant
	// Earlier is set only for a JWT. It lists the grants to which earlier mappings of its issuer
	// assign the token. A cut-off of one of them revokes the token.
	Earlier []Grant
}

// A Verdict states whether a token may still be used. A stale copy may return only some verdicts.
type Verdict uint8

// The verdicts. Introspection returns {"active":false} for all but Active (RFC 7662 section 2.2).
const (
	// Unknown means that this copy has no record of the digest. Only the leader's copy is
	// authoritative.
	Unknown Verdict = iota
	// Active may be returned only by a node whose copy a lease or a read barrier proves current.
	Active
	// Dead means revoked, rotated, expired or cut off. It is final, so even a stale copy may return
	// it.
	Dead
	// NotYet means that not_before is in the future.
	NotYet
	// Suspended means that the grant's client is disabled or does not exist, or that the record of
	// its issuer keeps the token inactive.
	Suspended
	// PastExpiry means expired by this node's clock only. Other nodes may still return Active.
	PastExpiry
)

// A Reason names the rule by which a token is active or inactive for a caller.
type Reason string

// The reasons. [Decide] returns all but ReasonAudience and ReasonRefreshToken, which depend on the
// caller.
const (
	ReasonActive         Reason = "active"
	ReasonUnknown        Reason = "unknown"
	ReasonRevoked        Reason = "revoked" // its grant was revoked
	ReasonRotated        Reason = "rotated"
	ReasonExpired        Reason = "expired"
	ReasonNotYetValid    Reason = "not_yet_valid"
	ReasonCutOff         Reason = "cut_off"
	ReasonClientDisabled Reason = "client_disabled"
	ReasonClientUnknown  Reason = "client_unknown" // deleted, or unknown and refused by the issuer's record
	ReasonAudience       Reason = "audience"       // the caller is neither its client nor an audience
	ReasonRefreshToken   Reason = "refresh_token"  // only the token's client and administrators may see a refresh token
	ReasonIssuer         Reason = "issuer"         // see IssuerReason
	ReasonDenied         Reason = "denied"         // denied by jti, by digest, or by the grant or session that it claims
)

// A Decision is the result of [Decide] with the rule that led to it.
type Decision struct {
	Verdict      Verdict
	Reason       Reason
	IssuerReason IssuerReason // set only for ReasonIssuer
}

// DecideInput holds the other inputs of [Decide], all read from one node.
type DecideInput struct {
	Now    Time    // the node's clock
	Stamp  Time    // the newest timestamp that the state machine has applied
	Client *Client // the grant's client in the state machine; nil if it does not exist
	// Cutoff reports whether a cut-off covers a token of the grant, see [Cutoff.Covers]. nil: no
	// cut-offs.
	Cutoff func(g *Grant, t *Token, skew time.Duration) bool

	// Denied reports that a denial has revoked the token or, for a JWT, a tombstone or the grant that
	// it claims.
	Denied bool

	// The fields below are set only for a verified JWT that is not registered.

	Issuer     *Issuer  // the record of its issuer
	Key        KeyState // the state of the key that verified it; 0: the record lost the key
	ClientGone bool     // the client was deleted
	// EarlierClient is the reason for which the client of an earlier mapping keeps the token
	// inactive: ReasonClientDisabled, ReasonClientUnknown or "".
	EarlierClient Reason
}

// Decide reports whether a token may still be used, and which rule decided. Decide is pure. No
// other function makes this decision.
//
// A token is expired if Now or Stamp has reached ExpiresAt. It is not yet valid if Now or Stamp is
// before NotBefore. The iat of a JWT may be in the future by the clock skew of its issuer. So a
// cut-off also covers JWTs issued up to that skew later, see [Issuer.CutoffSkew].
func Decide(r *Record, in DecideInput) Decision {
	if !r.Found {
		return Decision{Verdict: Unknown, Reason: ReasonUnknown}
	}
	if reason := ended(r, &in); reason != "" {
		return Decision{Verdict: Dead, Reason: reason}
	}
	var skew, reach time.Duration
	if in.Issuer != nil {
		skew, reach = in.Issuer.ClockSkew, in.Issuer.CutoffSkew(r.Token.IssuedAt)
		switch {
		case in.Issuer.DeletedAt != 0:
			return refused(Dead, RefusedIssuer)
		case in.Key != KeyActive:
			return refused(Dead, RefusedKey)
		}
	}
	if in.Cutoff != nil && (in.Cutoff(&r.Grant, &r.Token, reach) || coversEarlier(r, &in, reach)) {
		return Decision{Verdict: Dead, Reason: ReasonCutOff}
	}
	if exp := r.Token.ExpiresAt; exp != 0 {
		if exp <= in.Stamp {
			return Decision{Verdict: Dead, Reason: ReasonExpired}
		}
		if exp <= in.Now {
			return Decision{Verdict: PastExpiry, Reason: ReasonExpired}
		}
	}
	now := min(in.Now, in.Stamp).Add(skew)
	if nbf := r.Token.NotBefore; nbf != 0 && nbf > now {
		return Decision{Verdict: NotYet, Reason: ReasonNotYetValid}
	}
	if in.Issuer != nil {
		return decideJWT(r, &in, now)
	}
	switch {
	case in.Client == nil:
		return Decision{Verdict: Suspended, Reason: ReasonClientUnknown}
	case in.Client.Disabled:
		return Decision{Verdict: Suspended, Reason: ReasonClientDisabled}
	}
	return Decision{Verdict: Active, Reason: ReasonActive}
}

// ended returns why the state has ended a token permanently, or "". A cut-off that has not been
// compacted is not among the reasons.
func ended(r *Record, in *DecideInput) Reason {
	switch {
	case r.Grant.Revoked != nil:
		return ReasonRevoked
	case r.Token.State == Live && !in.Denied:
		return ""
	case r.Token.State == Live:
		return ReasonDenied
	case r.Token.State == Rotated:
		return ReasonRotated
	case r.Token.State == Expired:
		return ReasonExpired
	case r.Grant.ID != "":
		return ReasonCutOff // only a cut-off revokes a token alone
	}
	return ReasonRevoked // a stub that outlived its grant
}

// refused returns the decision about a token that the record of its issuer keeps inactive.
func refused(v Verdict, why IssuerReason) Decision {
	return Decision{Verdict: v, Reason: ReasonIssuer, IssuerReason: why}
}

// decideJWT applies the record of the issuer. now includes the clock skew.
func decideJWT(r *Record, in *DecideInput, now Time) Decision {
	t, iss := &r.Token, in.Issuer
	switch {
	case t.IssuedAt > now:
		return Decision{Verdict: NotYet, Reason: ReasonNotYetValid}
	case iss.Disabled:
		return refused(Suspended, RefusedDisabled)
	case t.ExpiresAt == 0:
		return refused(Suspended, RefusedClaims)
	case t.ExpiresAt.Sub(t.IssuedAt) > iss.LifetimeOf(t.IssuedAt):
		return refused(Suspended, RefusedLifetime)
	case iss.RequireAudience && len(t.Audience) == 0:
		return refused(Suspended, RefusedAudience)
	case in.Client != nil && in.Client.Disabled:
		return Decision{Verdict: Suspended, Reason: ReasonClientDisabled}
	case in.ClientGone, in.Client == nil && iss.RefuseUnknownClients:
		return Decision{Verdict: Suspended, Reason: ReasonClientUnknown}
	case in.EarlierClient != "":
		return Decision{Verdict: Suspended, Reason: in.EarlierClient}
	}
	return Decision{Verdict: Active, Reason: ReasonActive}
}

// A TokenStatus is a node's final decision about one token.
type TokenStatus struct {
	Decision
	Record Record // Found is false for Unknown
	// JWT is the verified JWT from whose claims Record was made. nil: the token is registered or
	// unknown.
	JWT *JWT
	// Foreign reports that the client of the record belongs to another issuer, not to this cluster. A
	// client of this cluster with the same id does not own the token.
	Foreign bool
}

// An Ending describes what revoked a token, if the state still has the record.
type Ending struct {
	Revoked *Revocation // a revocation of its grant, a denial, or a tombstone; nil: not known
	Cutoff  *Cutoff     // nil: not known
}

// An Explanation is the reason why a token is active or not.
type Explanation struct {
	TokenStatus
	Ending
	IsJWT        bool // it is a JWT that is not registered; its claims are verified only if JWT is set
	NodeID       string
	AppliedIndex uint64        // the index that this node had applied then
	LeaseLeft    time.Duration // 0: the node had no read lease
}

// A PresentedToken is a token as a caller sent it.
type PresentedToken struct {
	Digest Digest
	// JWT is the token itself if it may be a JWT, see [HasThreeParts], else nil. It is valid until
	// the call that receives it returns, and must not be stored or logged.
	JWT []byte
	// Caller identifies the caller. Signature verification is scheduled fairly among callers, and
	// each caller has a budget of read barriers for unknown tokens.
	Caller string
	// KnownOnly means that the node does not call the leader about a token of which it has no record.
	KnownOnly bool
}

// HasThreeParts reports whether a token has three parts, like a JWT in the compact form (RFC 7515
// section 7.1). It runs on every introspection, so it does not check characters; the parser does.
func HasThreeParts(token []byte) bool { return bytes.Count(token, []byte{'.'}) == 2 }

// A GrantView is a grant with its tokens, for an administrator or the issuer that registered it.
type GrantView struct {
	Grant  Grant
	Tokens []TokenView
	State  TokenState // Live, Revoked or Expired
	// ByCutoff is the cut-off that revoked the whole grant, or nil.
	ByCutoff *Cutoff
}

// A GrantQuery selects grants for a list.
type GrantQuery struct {
	Selector
	State TokenState // Live, Revoked or Expired; 0: any
	After string     // Next of the previous page; empty: the first page
	Limit int        // maximum number of grants per page
}

// A GrantPage is a part of a list of grants. The grants have no tokens.
type GrantPage struct {
	Grants []GrantView
	Next   string // id of the last grant that was examined; empty: the list is complete
}

// A TokenView is one token of a [GrantView] with its state, which accounts for the grant and the
// cut-offs.
type TokenView struct {
	Token Token
	State TokenState
}
