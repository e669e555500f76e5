package api

import (
	"bytes"
	"errors"
	"fmt"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
	"revoked/api/strictjson"
)

// A clientPatch is the body of a POST or PATCH of a client.
type clientPatch struct {
	id        request.Patched[string]
	typ       request.Patched[revoked.ClientType]
	roles     request.Patched[[]revoked.Role]
	audiences request.Patched[[]string]
	issuers   request.Patched[[]string]
	methods   request.Patched[[]string]
	public    request.Patched[bool]
	disabled  request.Patched[bool]
	jwks      request.Patched[[]byte]
	subjects  [revoked.SubjectEmail + 1]request.Patched[string] // subject of the certificate by kind
	keys      request.Patched[[]byte]                           // read-only
	parsed    []revoked.IssuerKey
	createdAt request.Patched[revoked.Time]
	secrets   request.Patched[[]byte] // read-only
	weak      request.Patched[bool]   // read-only
	secret    request.Patched[string]
	imported  request.Patched[bool]
}

// decodeClient reads a clientPatch and checks each value separately.
func (a *API) decodeClient(r *request.Request, types []string) (*clientPatch, error) {
	p := new(clientPatch)
	if err := r.Decode(types, p.fields()...); err != nil {
		return nil, err
	}
	return p, p.validate(a.cfg.Backend.ParseKeys)
}

// A ParseKeys function parses a JWK set that an administrator supplies, like the method of
// [Backend].
type ParseKeys func(set []byte) ([]revoked.IssuerKey, error)

// ParseClient returns the client that the body of a POST /v1/clients describes, with its secret
// hashed. Its errors are those of the endpoint.
func ParseClient(body []byte, parse ParseKeys) (revoked.Client, error) {
	p := new(clientPatch)
	if err := request.DecodeObject(body, p.fields()); err != nil {
		return revoked.Client{}, err
	}
	if err := p.validate(parse); err != nil {
		return revoked.Client{}, err
	}
	c, _, err := p.create()
	return c, err
}

// fields returns the members that a body may have. Each member limits its own value; validate,
// create and apply check what the value means for the record.
func (p *clientPatch) fields() []request.Field {
	list := request.Names(revoked.MaxClientList, revoked.MaxClientElement)
	raw := func(j *strictjson.Reader) ([]byte, error) {
		b, err := j.Raw(request.MaxBody)
		return bytes.Clone(b), err
	}
	fields := []request.Field{
		p.jwks.Field("jwks", raw),
		p.keys.Field("keys", raw),
		p.id.Field("client_id", request.Name(revoked.MaxClientID)),
		p.typ.Field("type", func(j *strictjson.Reader) (revoked.ClientType, error) {
			s, err := j.Name(request.MaxID)
			return revoked.ClientType(s), err
		}),
		p.roles.Field("roles", func(j *strictjson.Reader) ([]revoked.Role, error) {
			list, err := list(j)
			roles := make([]revoked.Role, 0, len(list))
			for _, s := range list {
				roles = append(roles, revoked.Role(s))
			}
			return roles, err
		}),
		p.audiences.Field("audiences", list),
		p.issuers.Field("issuers", list),
		p.methods.Field("auth_methods", list),
		p.public.Field("allow_public_revocation", (*strictjson.Reader).Bool),
		p.disabled.Field("disabled", (*strictjson.Reader).Bool),
		p.createdAt.Field("created_at", (*strictjson.Reader).Time),
		p.secrets.Field("valid_secrets", func(j *strictjson.Reader) ([]byte, error) { return j.Raw(maxSecretsView) }),
		p.weak.Field("weak_secret", (*strictjson.Reader).Bool),
		p.secret.Field("client_secret", request.Name(clientauth.MaxSecret)),
		p.imported.Field("imported", (*strictjson.Reader).Bool),
	}
	for _, kind := range revoked.SubjectKinds() {
		fields = append(fields, p.subjects[kind].Field(kind.Name(), request.Name(revoked.MaxSubject)))
	}
	return fields
}

// validate rejects values that are malformed for any record (400). create and apply reject values
// that contradict the record.
func (p *clientPatch) validate(parse ParseKeys) (err error) {
	if p.jwks.Value != nil {
		if p.parsed, err = parse(p.jwks.Value); err != nil {
			return err
		}
	}
	for _, kind := range revoked.SubjectKinds() {
		probe := revoked.Client{ID: "any", Type: revoked.Confidential}
		if v := p.subjects[kind].Value; v != "" {
			probe.Subject = revoked.CertificateSubject{Kind: kind, Value: v}
		}
		if err := revoked.ValidateClient(&probe); errors.Is(err, revoked.ErrInvalid) {
			return err
		}
	}
	probe := revoked.Client{ID: "any", Type: revoked.Confidential}
	if err := p.merge(&probe); err != nil {
		return err
	}
	if err := revoked.ValidateClient(&probe); errors.Is(err, revoked.ErrInvalid) {
		return err
	}
	return nil
}

// errNoSecretMethod is returned for a secret that no method of the client would use.
var errNoSecretMethod = fmt.Errorf("%w: client_secret: no method in auth_methods uses a secret",
	revoked.ErrUnprocessable)

// create returns the client that a POST describes, and its secret if a method needs one.
func (p *clientPatch) create() (c revoked.Client, secret string, err error) {
	switch {
	case p.id.Value == "":
		return c, "", fmt.Errorf("%w: client_id is missing", revoked.ErrInvalid)
	case p.createdAt.Value != 0:
		return c, "", fmt.Errorf("%w: created_at is set by the server", revoked.ErrUnprocessable)
	case p.secrets.Set || p.weak.Set || p.keys.Set:
		return c, "", fmt.Errorf("%w: valid_secrets, weak_secret and keys are set by the server", revoked.ErrUnprocessable)
	}
	c = revoked.Client{Type: revoked.Confidential}
	if err := p.merge(&c); err != nil {
		return c, "", err
	}
	secret = p.secret.Value
	switch {
	case c.Type != revoked.Confidential:
	case !c.UsesSecret() && secret != "":
		return c, "", errNoSecretMethod
	case c.UsesSecret():
		if secret == "" {
			secret = clientauth.NewSecret()
		}
		if err := clientauth.CheckSecret(secret, p.imported.Value); err != nil {
			return c, "", err
		}
	}
	if secret != "" {
		c.Secrets = []revoked.SecretHash{clientauth.HashSecret(secret)}
	}
	return c, secret, revoked.ValidateClient(&c)
}

// apply changes c as a PATCH describes. It accepts the current value of a field that cannot change.
// It ignores the members that the server adds to a record, so that a caller may send back a record
// that it has read.
func (p *clientPatch) apply(c *revoked.Client) error {
	fixed := func(field string) error {
		return fmt.Errorf("%w: %s cannot be changed", revoked.ErrUnprocessable, field)
	}
	switch {
	case p.id.Set && p.id.Value != c.ID:
		return fixed("client_id")
	case p.typ.Set && p.typ.Value != c.Type:
		return fixed("type")
	case p.createdAt.Set && p.createdAt.Value.Unix() != c.CreatedAt.Unix():
		return fixed("created_at")
	case p.secret.Set || p.imported.Set:
		return fmt.Errorf("%w: client_secret: cannot be changed by PATCH (use POST /v1/clients/{id}/secret)",
			revoked.ErrUnprocessable)
	}
	if err := p.merge(c); err != nil {
		return err
	}
	return revoked.ValidateClient(c)
}

// merge sets the fields of the body in c. A confidential client without auth_methods gets both
// methods that use a secret. merge sets the type first, because this default depends on the type.
// The error wraps [revoked.ErrUnprocessable].
func (p *clientPatch) merge(c *revoked.Client) error {
	if p.id.Value != "" {
		c.ID = p.id.Value
	}
	if p.typ.Value != "" {
		c.Type = p.typ.Value
	}
	p.roles.Apply(&c.Roles)
	p.audiences.Apply(&c.Audiences)
	p.issuers.Apply(&c.Issuers)
	p.methods.Apply(&c.AuthMethods)
	p.public.Apply(&c.AllowPublicRevocation)
	p.disabled.Apply(&c.Disabled)
	if c.AuthMethods == nil && c.Type == revoked.Confidential {
		c.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost}
	}
	if p.jwks.Set {
		c.Keys = p.parsed
	}
	return p.mergeSubject(c)
}

// mergeSubject sets the name of the certificate. A record has at most one name. A PATCH that sets a
// name of another kind must set the current one to null.
func (p *clientPatch) mergeSubject(c *revoked.Client) error {
	stored := c.Subject
	c.Subject = revoked.CertificateSubject{}
	for _, kind := range revoked.SubjectKinds() {
		next := revoked.CertificateSubject{Kind: kind}
		if kind == stored.Kind {
			next.Value = stored.Value
		}
		p.subjects[kind].Apply(&next.Value)
		switch {
		case next.Value == "":
		case c.Subject != revoked.CertificateSubject{}:
			return fmt.Errorf("%w: %s: the record already has %s, and can have only one of them",
				revoked.ErrUnprocessable, kind.Name(), c.Subject.Kind.Name())
		default:
			c.Subject = next
		}
	}
	return nil
}
