package revoked

import (
	"slices"
	"time"
)

// MaxEarlierMappings is the largest number of earlier mappings of an issuer.
const MaxEarlierMappings = 8

// A ClaimMapping decides to which client, session and grant the tokens of an issuer belong.
type ClaimMapping struct {
	ClientClaim  string // empty: client_id, else azp
	SessionClaim string // empty: tokens have no session
	GrantClaim   string // empty: tokens have no grant
	OwnClients   bool   // client ids of the issuer are client ids of this cluster
}

// An EarlierMapping is a mapping that a change of the record replaced. A token that was issued
// until Until may have been seen under it. Such a token belongs to its clients, sessions and grants
// by both mappings, so that the change brings back no token that has ended.
type EarlierMapping struct {
	ClaimMapping
	Until Time
}

// A Membership is the client, session and grant of a token by one mapping.
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

// HasGrants reports whether a token of i may have a grant, by the mapping in force or an earlier
// one.
func (i *Issuer) HasGrants() bool {
	return i.GrantClaim != "" ||
		slices.ContainsFunc(i.Earlier, func(m EarlierMapping) bool { return m.GrantClaim != "" })
}

// EarlierOf returns the memberships, by earlier mappings, of a token that was issued at iat and
// belongs to now by the mapping in force. read reads the claims of the token by a mapping. The
// result lacks what now or another mapping repeats. It is nil for most tokens.
func (i *Issuer) EarlierOf(iat Time, now Membership, read func(ClaimMapping) Membership) (list []Membership) {
	for n := range i.Earlier {
		m := &i.Earlier[n]
		if iat.Unix() > m.Until.Unix() { // equal whole seconds count as before
			continue
		}
		if was := read(m.ClaimMapping); was != now && !slices.Contains(list, was) {
			list = append(list, was)
		}
	}
	return list
}

// Membership returns the membership of j by the mapping in force of its issuer.
func (j *JWT) Membership(i *Issuer) Membership {
	return Membership{
		ClientID: j.ClientID, Session: j.Session, GrantID: j.GrantID, OwnClients: i.OwnClients,
		HasGrants: i.GrantClaim != "",
	}
}

// coversEarlier reports whether a cut-off covers a JWT by an earlier mapping.
func coversEarlier(r *Record, in *DecideInput, skew time.Duration) bool {
	for n := range r.Earlier {
		if in.Cutoff(&r.Earlier[n], &r.Token, skew) {
			return true
		}
	}
	return false
}
