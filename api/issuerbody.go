package api

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"revoked"
	"revoked/api/strictjson"
)

// An issuerPatch is the body of a POST or PATCH of an issuer. null sets a field to its default.
type issuerPatch struct {
	name, issuer, uri                    patched[string]
	jwks                                 patched[[]byte]
	algorithms, types, forbidden         patched[[]string]
	required                             patched[map[string]string]
	client, session, grant               patched[string]
	revokeSession, own, refuse, aud, jti patched[bool]
	lifetime, skew                       patched[time.Duration]
	disabled                             patched[bool]
	createdAt                            patched[revoked.Time]
	keys, fetch                          patched[[]byte] // read-only
	parsed                               []revoked.IssuerKey
}

// decodeIssuer reads an issuerPatch and checks each value separately.
func (a *API) decodeIssuer(r *request, types []string) (*issuerPatch, error) {
	p := newIssuerPatch()
	if err := r.decodeLimited(types, maxIssuerBody, p.fields()...); err != nil {
		return nil, err
	}
	if p.jwks.value != nil {
		var err error
		if p.parsed, err = a.cfg.Backend.ParseKeys(p.jwks.value); err != nil {
			return nil, err
		}
	}
	return p, p.validate()
}

// newIssuerPatch returns an empty patch, whose values are the defaults.
func newIssuerPatch() *issuerPatch {
	d := revoked.DefaultIssuer()
	p := new(issuerPatch)
	p.types.value, p.session.value, p.aud.value, p.jti.value = d.TokenTypes, d.SessionClaim, d.RequireAudience, d.JTI
	p.lifetime.value, p.skew.value = d.MaxLifetime, d.ClockSkew
	return p
}

func (p *issuerPatch) fields() []field {
	raw := func(j *strictjson.Reader) ([]byte, error) {
		b, err := j.Raw(maxIssuerBody)
		return bytes.Clone(b), err
	}
	claim := func(j *strictjson.Reader) (string, error) { return j.Line(revoked.MaxClaimName) }
	return []field{
		p.name.field("name", name(maxID)),
		p.issuer.field("issuer", name(revoked.MaxClaimValue)),
		p.uri.field("jwks_uri", name(revoked.MaxIssuerURI)),
		p.jwks.field("jwks", raw),
		p.algorithms.field("algorithms", names(revoked.MaxIssuerList, maxID)),
		p.types.field("token_types", readTokenTypes),
		p.required.field("required_claims", func(j *strictjson.Reader) (map[string]string, error) {
			return j.Strings(revoked.MaxIssuerList, revoked.MaxClaimName, revoked.MaxClaimValue)
		}),
		p.forbidden.field("forbidden_claims", names(revoked.MaxIssuerList, revoked.MaxClaimName)),
		p.client.field("client_claim", claim),
		p.session.field("session_claim", claim),
		p.grant.field("grant_claim", claim),
		p.revokeSession.field("revoke_session", (*strictjson.Reader).Bool),
		p.own.field("own_clients", (*strictjson.Reader).Bool),
		p.refuse.field("unknown_clients", readClients),
		p.aud.field("require_audience", (*strictjson.Reader).Bool),
		p.jti.field("jti", (*strictjson.Reader).Bool),
		p.lifetime.field("max_lifetime", readDuration),
		p.skew.field("clock_skew", readDuration),
		p.disabled.field("disabled", (*strictjson.Reader).Bool),
		p.createdAt.field("created_at", (*strictjson.Reader).Time),
		p.keys.field("keys", raw),
		p.fetch.field("fetch", raw),
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
	case p.name.value == "":
		return i, fmt.Errorf("%w: name is missing", revoked.ErrInvalid)
	case p.issuer.value == "":
		return i, fmt.Errorf("%w: issuer is missing", revoked.ErrInvalid)
	case p.createdAt.value != 0 || p.keys.set || p.fetch.set:
		return i, fmt.Errorf("%w: created_at, keys and fetch are set by the server", revoked.ErrUnprocessable)
	case p.uri.value != "" && p.parsed != nil:
		return i, errTwoKeySets
	}
	p.merge(&i)
	return i, revoked.ValidateIssuer(&i)
}

var errTwoKeySets = fmt.Errorf("%w: jwks_uri: want exactly one of jwks_uri and jwks", revoked.ErrUnprocessable)

// change returns the record that a PATCH makes of stored. It accepts the current value of a field
// that cannot change, and ignores keys and fetch, which change by themselves.
func (p *issuerPatch) change(stored *revoked.Issuer) (revoked.Issuer, error) {
	i := *stored
	fixed := func(field string) (revoked.Issuer, error) {
		return i, fmt.Errorf("%w: %s cannot be changed", revoked.ErrUnprocessable, field)
	}
	switch {
	case p.name.set && p.name.value != i.Name:
		return fixed("name")
	case p.issuer.set && p.issuer.value != i.Issuer:
		return fixed("issuer")
	case p.createdAt.set && p.createdAt.value.Unix() != i.CreatedAt.Unix():
		return fixed("created_at")
	}
	// A set that the operator does not mention stays: the keys of the newest set.
	given := p.parsed
	if !p.jwks.set && i.JWKSURI == "" {
		given = givenKeys(stored)
	}
	uri := i.JWKSURI
	p.uri.apply(&uri)
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
	if p.name.value != "" {
		i.Name = p.name.value
	}
	if p.issuer.value != "" {
		i.Issuer = p.issuer.value
	}
	p.uri.apply(&i.JWKSURI)
	if p.parsed != nil {
		i.Keys = p.parsed
	}
	p.algorithms.apply(&i.Algorithms)
	p.types.apply(&i.TokenTypes)
	p.required.apply(&i.RequiredClaims)
	p.forbidden.apply(&i.ForbiddenClaims)
	p.client.apply(&i.ClientClaim)
	p.session.apply(&i.SessionClaim)
	p.grant.apply(&i.GrantClaim)
	p.revokeSession.apply(&i.RevokeSession)
	p.own.apply(&i.OwnClients)
	p.refuse.apply(&i.RefuseUnknownClients)
	p.aud.apply(&i.RequireAudience)
	p.jti.apply(&i.JTI)
	p.lifetime.apply(&i.MaxLifetime)
	p.skew.apply(&i.ClockSkew)
	p.disabled.apply(&i.Disabled)
}
