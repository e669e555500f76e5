package api

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"revoked"
	"revoked/api/request"
	"revoked/api/strictjson"
)

// maxIssuerBody limits the body of an issuer, in bytes. Most of it is the key set.
const maxIssuerBody = 320 << 10

// Values of unknown_clients.
const (
	allowClients  = "allow"
	refuseClients = "refuse"
)

// An issuerPatch is the body of a POST or PATCH of an issuer. null sets a field to its default.
type issuerPatch struct {
	name, issuer, uri                    request.Patched[string]
	jwks                                 request.Patched[[]byte]
	algorithms, types, forbidden         request.Patched[[]string]
	required                             request.Patched[map[string]string]
	client, session, grant               request.Patched[string]
	revokeSession, own, refuse, aud, jti request.Patched[bool]
	lifetime, skew                       request.Patched[time.Duration]
	disabled                             request.Patched[bool]
	createdAt                            request.Patched[revoked.Time]
	keys, fetch                          request.Patched[[]byte] // read-only
	parsed                               []revoked.IssuerKey
}

// decodeIssuer reads an issuerPatch and checks each value separately. Only the backend can
// parse the key set.
func (a *API) decodeIssuer(r *request.Request, types []string) (*issuerPatch, error) {
	p := newIssuerPatch()
	if err := r.DecodeLimited(types, maxIssuerBody, p.fields()...); err != nil {
		return nil, err
	}
	if p.uri.Value != "" && p.jwks.Value != nil {
		return nil, errTwoKeySets // even if the set is malformed
	}
	if p.jwks.Value != nil {
		var err error
		if p.parsed, err = a.cfg.Backend.ParseKeys(p.jwks.Value); err != nil {
			return nil, err
		}
	}
	return p, p.validate()
}

// newIssuerPatch returns an empty patch, whose values are the defaults.
func newIssuerPatch() *issuerPatch {
	d := revoked.DefaultIssuer()
	p := new(issuerPatch)
	p.types.Value, p.session.Value, p.aud.Value, p.jti.Value = d.TokenTypes, d.SessionClaim, d.RequireAudience, d.JTI
	p.lifetime.Value, p.skew.Value = d.MaxLifetime, d.ClockSkew
	return p
}

// fields returns the members that a body may have. The read-only ones are accepted and ignored in a
// PATCH, so that a caller can send back the record that it got.
func (p *issuerPatch) fields() []request.Field {
	raw := func(j *strictjson.Reader) ([]byte, error) {
		b, err := j.Raw(maxIssuerBody)
		return bytes.Clone(b), err
	}
	claim := func(j *strictjson.Reader) (string, error) { return j.Line(revoked.MaxClaimName) }
	return []request.Field{
		p.name.Field("name", request.Name(request.MaxID)),
		p.issuer.Field("issuer", request.Name(revoked.MaxClaimValue)),
		p.uri.Field("jwks_uri", request.Name(revoked.MaxIssuerURI)),
		p.jwks.Field("jwks", raw),
		p.algorithms.Field("algorithms", request.Names(revoked.MaxIssuerList, request.MaxID)),
		p.types.Field("token_types", readTokenTypes),
		p.required.Field("required_claims", func(j *strictjson.Reader) (map[string]string, error) {
			return j.Strings(revoked.MaxIssuerList, revoked.MaxClaimName, revoked.MaxClaimValue)
		}),
		p.forbidden.Field("forbidden_claims", request.Names(revoked.MaxIssuerList, revoked.MaxClaimName)),
		p.client.Field("client_claim", claim),
		p.session.Field("session_claim", claim),
		p.grant.Field("grant_claim", claim),
		p.revokeSession.Field("revoke_session", (*strictjson.Reader).Bool),
		p.own.Field("own_clients", (*strictjson.Reader).Bool),
		p.refuse.Field("unknown_clients", readClients),
		p.aud.Field("require_audience", (*strictjson.Reader).Bool),
		p.jti.Field("jti", (*strictjson.Reader).Bool),
		p.lifetime.Field("max_lifetime", request.ReadDuration),
		p.skew.Field("clock_skew", request.ReadDuration),
		p.disabled.Field("disabled", (*strictjson.Reader).Bool),
		p.createdAt.Field("created_at", (*strictjson.Reader).Time),
		p.keys.Field("keys", raw),
		p.fetch.Field("fetch", raw),
	}
}

// validate rejects values that are malformed for any record (400).
func (p *issuerPatch) validate() error {
	probe := revoked.DefaultIssuer()
	probe.Name, probe.Issuer = "any", "any"
	p.merge(&probe)
	if err := revoked.ValidateIssuer(&probe); errors.Is(err, revoked.ErrInvalid) {
		return err
	}
	return nil
}

// create returns the issuer that a POST describes.
func (p *issuerPatch) create() (revoked.Issuer, error) {
	i := revoked.DefaultIssuer()
	switch {
	case p.name.Value == "":
		return i, fmt.Errorf("%w: name is missing", revoked.ErrInvalid)
	case p.issuer.Value == "":
		return i, fmt.Errorf("%w: issuer is missing", revoked.ErrInvalid)
	case p.createdAt.Value != 0 || p.keys.Set || p.fetch.Set:
		return i, fmt.Errorf("%w: created_at, keys and fetch are set by the server", revoked.ErrUnprocessable)
	case p.uri.Value != "" && p.parsed != nil:
		return i, errTwoKeySets
	}
	p.merge(&i)
	return i, revoked.ValidateIssuer(&i)
}

var errTwoKeySets = fmt.Errorf("%w: jwks_uri: want exactly one of jwks_uri and jwks", revoked.ErrUnprocessable)

// change returns stored with the changes of a PATCH. It accepts the current value of a field that
// cannot change, and ignores keys and fetch, which are read-only.
func (p *issuerPatch) change(stored *revoked.Issuer) (revoked.Issuer, error) {
	i := *stored
	fixed := func(field string) (revoked.Issuer, error) {
		return i, fmt.Errorf("%w: %s cannot be changed", revoked.ErrUnprocessable, field)
	}
	switch {
	case p.name.Set && p.name.Value != i.Name:
		return fixed("name")
	case p.issuer.Set && p.issuer.Value != i.Issuer:
		return fixed("issuer")
	case p.createdAt.Set && p.createdAt.Value.Unix() != i.CreatedAt.Unix():
		return fixed("created_at")
	}
	// Without jwks in the body, the keys of the newest set stay.
	given := p.parsed
	if !p.jwks.Set && i.JWKSURI == "" {
		given = givenKeys(stored)
	}
	uri := i.JWKSURI
	p.uri.Apply(&uri)
	if uri != "" && len(given) > 0 {
		return i, errTwoKeySets
	}
	p.merge(&i)
	if i.JWKSURI == "" {
		i.Keys = given
	}
	return i, revoked.ValidateIssuer(&i)
}

// merge sets the fields of the body.
func (p *issuerPatch) merge(i *revoked.Issuer) {
	if p.name.Value != "" {
		i.Name = p.name.Value
	}
	if p.issuer.Value != "" {
		i.Issuer = p.issuer.Value
	}
	p.uri.Apply(&i.JWKSURI)
	if p.parsed != nil {
		i.Keys = p.parsed
	}
	p.algorithms.Apply(&i.Algorithms)
	p.types.Apply(&i.TokenTypes)
	p.required.Apply(&i.RequiredClaims)
	p.forbidden.Apply(&i.ForbiddenClaims)
	p.client.Apply(&i.ClientClaim)
	p.session.Apply(&i.SessionClaim)
	p.grant.Apply(&i.GrantClaim)
	p.revokeSession.Apply(&i.RevokeSession)
	p.own.Apply(&i.OwnClients)
	p.refuse.Apply(&i.RefuseUnknownClients)
	p.aud.Apply(&i.RequireAudience)
	p.jti.Apply(&i.JTI)
	p.lifetime.Apply(&i.MaxLifetime)
	p.skew.Apply(&i.ClockSkew)
	p.disabled.Apply(&i.Disabled)
}

// givenKeys returns the keys of the newest set, which may be retired or banned. The record also has
// the keys that only earlier sets had.
func givenKeys(i *revoked.Issuer) []revoked.IssuerKey {
	var keys []revoked.IssuerKey
	for _, k := range i.Keys {
		if k.MissingSince == 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// readTokenTypes reads a list of strings that may be empty, and drops repeated ones.
func readTokenTypes(j *strictjson.Reader) ([]string, error) {
	list, seen := []string{}, map[string]bool{}
	err := j.Array(revoked.MaxIssuerList, func() error {
		s, err := j.Line(revoked.MaxTokenType)
		if err == nil && !seen[s] {
			list, seen[s] = append(list, s), true
		}
		return err
	})
	return list, err
}

// readClients reads the member unknown_clients and reports whether unknown clients are refused. A
// value other than "allow" and "refuse" is an error: a default for a misspelled value would be the
// weaker rule.
func readClients(j *strictjson.Reader) (bool, error) {
	s, err := j.Line(request.MaxID)
	if err == nil && s != allowClients && s != refuseClients {
		err = j.Fail("want allow or refuse")
	}
	return s == refuseClients, err
}
