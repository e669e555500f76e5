package revoked

import (
	"slices"
	"time"
)

// MaxEarlierMappings is the largest number of earlier mappings of an issuer.
const MaxEarlierMappings = 8

// A ClaimMapping determines to which client, session and grant the tokens of an issuer belong.
type ClaimMapping struct {
	ClientClaim  string // empty: client_id, else azp
	SessionClaim string // empty: tokens have no session
	GrantClaim   string // empty: tokens have no grant
	OwnClients   bool   // client ids of the issuer are client ids of this cluster
}

// An EarlierMapping is a mapping that a change of the record replaced. A token that was issued
// until Until may have been seen under it. Such a token belongs to the clients, sessions and grants
// of both mappings, so the change does not reactivate revoked tokens.
type EarlierMapping struct {
	ClaimMapping
	Until Time
}

// A Membership is the client, session and grant of a token according to one mapping.
type Membership struct {
	ClientID   string
	Session    string
	GrantID    string
	OwnClients bool
	HasGrants  bool // the mapping names a grant claim
}

// Mapping returns the mapping in force.
func (i *Issuer) Mapping() ClaimMapping {
	return ClaimMapping{i.ClientClaim, i.SessionClaim, i.GrantClaim, i.OwnClients}
}

// HasGrants reports whether a token of i may have a grant, according to the mapping in force or an
// earlier one.
func (i *Issuer) HasGrants() bool {
	return i.GrantClaim != "" ||
		slices.ContainsFunc(i.Earlier, func(m EarlierMapping) bool { return m.GrantClaim != "" })
}

// EarlierOf returns the memberships of a token according to earlier mappings. The token was issued
// at iat. The argument now is its membership according to the mapping in force. The function read
// applies a mapping to the claims of the token. The result omits now and duplicates. It is nil for
// most tokens.
func (i *Issuer) EarlierOf(iat Time, now Membership, read func(ClaimMapping) Membership) (list []Membership) {
	for n := range i.Earlier {
		m := &i.Earlier[n]
		if iat.Unix() > m.Until.Unix() { // a token of the same whole second counts as earlier
			continue
		}
		if was := read(m.ClaimMapping); was != now && !slices.Contains(list, was) {
			list = append(list, was)
		}
	}
	return list
}

// Membership returns the membership of j according to the mapping in force of its issuer.
func (j *JWT) Membership(i *Issuer) Membership {
	return Membership{
		ClientID: j.ClientID, Session: j.Session, GrantID: j.GrantID, OwnClients: i.OwnClients,
		HasGrants: i.GrantClaim != "",
	}
}

// coversEarlier reports whether a cut-off covers a JWT according to an earlier mapping.
func coversEarlier(r *Record, in *DecideInput, skew time.Duration) bool {
	for n := range r.Earlier {
		if in.Cutoff(&r.Earlier[n], &r.Token, skew) {
			return true
		}
	}
	return false
}
