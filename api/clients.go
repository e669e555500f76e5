package api

import (
	"errors"
	"fmt"
	"net/http"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
	"revoked/api/strictjson"
)

// maxSecrets limits the stored hashes of a client: the current one and those in their grace period.
const maxSecrets = 4

// maxSecretsView limits the member valid_secrets of a body, in bytes.
const maxSecretsView = 1 << 10

// clientView is a client record as JSON.
type clientView struct {
	ClientID              string              `json:"client_id"`
	Type                  string              `json:"type"`
	Roles                 []revoked.Role      `json:"roles"`
	Audiences             []string            `json:"audiences"`
	Issuers               []string            `json:"issuers"`
	AuthMethods           []string            `json:"auth_methods"`
	AllowPublicRevocation bool                `json:"allow_public_revocation"`
	Disabled              bool                `json:"disabled"`
	CreatedAt             request.UnixSeconds `json:"created_at"`
	Secrets               []secretInfo        `json:"valid_secrets,omitempty"`
	// WeakSecret is true if a valid secret has less than [clientauth.StrongSecret] bytes.
	WeakSecret   bool   `json:"weak_secret,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"` // only in the response to its POST
}

// secretInfo describes one valid secret of a client.
type secretInfo struct {
	ExpiresAt request.UnixSeconds `json:"expires_at"` // null: never
}

// viewClient returns the record without its secrets. Lists are never null, and are copies: the
// record belongs to the state of the node.
func viewClient(c *revoked.Client) clientView {
	return clientView{
		ClientID: c.ID, Type: string(c.Type), Roles: append([]revoked.Role{}, c.Roles...),
		Audiences: append([]string{}, c.Audiences...), Issuers: append([]string{}, c.Issuers...),
		AuthMethods: append([]string{}, c.AuthMethods...), AllowPublicRevocation: c.AllowPublicRevocation,
		Disabled: c.Disabled, CreatedAt: request.UnixSeconds(c.CreatedAt),
	}
}

// describeSecrets adds the members that only GET of one client has: whether a secret is weak, and
// until when old secrets are valid beside the current one.
func (v *clientView) describeSecrets(c *revoked.Client, now revoked.Time) {
	v.WeakSecret = clientauth.HasWeakSecret(c, now.Std())
	var valid []secretInfo
	for _, s := range c.Secrets {
		if s.ExpiresAt == 0 || s.ExpiresAt > now {
			valid = append(valid, secretInfo{request.UnixSeconds(s.ExpiresAt)})
		}
	}
	if len(valid) > 1 || len(valid) == 1 && valid[0].ExpiresAt != 0 {
		v.Secrets = valid
	}
}

// getClients is GET /v1/clients.
func (a *API) getClients(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	list, err := a.cfg.Backend.Clients(ctx)
	if err != nil {
		return err
	}
	out := make([]clientView, 0, len(list))
	for _, c := range list {
		out = append(out, viewClient(c))
	}
	return r.SendJSON(http.StatusOK, map[string][]clientView{"clients": out})
}

// getClient is GET /v1/clients/{id}. It reads this node's copy only after the copy is current, so
// an administrator sees every acknowledged change, from whichever node.
func (a *API) getClient(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	if err := a.cfg.Backend.Current(ctx); err != nil {
		return err
	}
	c, ok := a.cfg.Backend.Client(id)
	if !ok {
		return errNoClient
	}
	v := viewClient(c)
	v.describeSecrets(c, revoked.TimeOf(a.cfg.Now()))
	return r.SendJSON(http.StatusOK, v)
}

var errNoClient = fmt.Errorf("%w: no such client", revoked.ErrNotFound)

// postClients is POST /v1/clients. Only its response shows the secret.
func (a *API) postClients(r *request.Request) error {
	p, err := decodeClient(r, request.TypesJSON)
	if err != nil {
		return err
	}
	c, secret, err := p.create()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	made, _, err := a.cfg.Backend.CreateClient(ctx, revoked.ActorOf(r.Client), c)
	if err != nil {
		return err
	}
	out := viewClient(made)
	out.ClientSecret = secret
	return r.SendJSON(http.StatusCreated, out)
}

// patchClient is PATCH /v1/clients/{id}: a merge patch (RFC 7396). A patch without changes is also
// committed, so its response is as final as any other.
func (a *API) patchClient(r *request.Request) error {
	p, err := decodeClient(r, request.TypesPatch)
	if err != nil {
		return err
	}
	c, _, err := a.changeClient(r, p.apply)
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, viewClient(c))
}

// deleteClient is DELETE /v1/clients/{id}. It also ends the tokens of the client. So a repeat for a
// deleted client succeeds: the caller learns that nothing of it is left.
func (a *API) deleteClient(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.DeleteClient(ctx, revoked.ActorOf(r.Client), id))
}

// secretView is the response to POST /v1/clients/{id}/secret.
type secretView struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Index        uint64 `json:"index"`
}

// postSecret is POST /v1/clients/{id}/secret: a new secret. The old ones stay valid for
// secret_grace, so that a caller can change the secret of a fleet without an outage.
func (a *API) postSecret(r *request.Request) error {
	if err := r.DecodeOptional(); err != nil {
		return err
	}
	secret := clientauth.NewSecret()
	hash := clientauth.HashSecret(secret)
	c, index, err := a.changeClient(r, func(c *revoked.Client) error {
		if c.Type == revoked.Public {
			return fmt.Errorf("%w: a public client has no secret", revoked.ErrUnprocessable)
		}
		now := revoked.TimeOf(a.cfg.Now())
		c.Secrets = rotate(c.Secrets, hash, now, now.Add(a.cfg.Backend.Settings().SecretGrace))
		return nil
	})
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, secretView{ClientID: c.ID, ClientSecret: secret, Index: index})
}

// rotate returns next followed by the old secrets that have not expired. The old secrets expire at
// end or earlier. The newest maxSecrets are kept: each is one more argon2id hash for a failed
// authentication.
func rotate(old []revoked.SecretHash, next revoked.SecretHash, now, end revoked.Time) []revoked.SecretHash {
	out := []revoked.SecretHash{next}
	for _, s := range old {
		if s.ExpiresAt == 0 || s.ExpiresAt > end {
			s.ExpiresAt = end
		}
		if s.ExpiresAt > now && len(out) < maxSecrets {
			out = append(out, s)
		}
	}
	return out
}

// changeClient applies change to the record that the path names and stores the result. change gets
// a shallow copy: it replaces lists and never modifies them. If another request has changed the
// record, changeClient calls change again.
func (a *API) changeClient(r *request.Request, change func(*revoked.Client) error) (
	made *revoked.Client, index uint64, err error,
) {
	id, err := r.PathID()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	err = request.RetryConflict(ctx, func() error {
		stored, ok := a.cfg.Backend.Client(id)
		if !ok {
			return errNoClient
		}
		next := *stored
		if err := change(&next); err != nil {
			return err
		}
		made, index, err = a.cfg.Backend.UpdateClient(ctx, revoked.ActorOf(r.Client), next)
		return err
	})
	return made, index, err
}

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
	createdAt request.Patched[revoked.Time]
	secrets   request.Patched[[]byte] // read-only
	weak      request.Patched[bool]   // read-only
	secret    request.Patched[string]
	imported  request.Patched[bool]
}

// decodeClient reads a clientPatch and checks each value separately.
func decodeClient(r *request.Request, types []string) (*clientPatch, error) {
	p := new(clientPatch)
	if err := r.Decode(types, p.fields()...); err != nil {
		return nil, err
	}
	return p, p.validate()
}

// ParseClient returns the client that the body of a POST /v1/clients describes, with its secret
// hashed. Its errors are those of the endpoint.
func ParseClient(body []byte) (revoked.Client, error) {
	p := new(clientPatch)
	if err := request.DecodeObject(body, p.fields()); err != nil {
		return revoked.Client{}, err
	}
	if err := p.validate(); err != nil {
		return revoked.Client{}, err
	}
	c, _, err := p.create()
	return c, err
}

// fields returns the members that a body may have. Each limits its own value; validate, create and
// apply check what the value means for the record.
func (p *clientPatch) fields() []request.Field {
	list := request.Names(revoked.MaxClientList, revoked.MaxClientElement)
	return []request.Field{
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
}

// validate rejects values that are malformed for any record (400). create and apply reject values
// that contradict the record.
func (p *clientPatch) validate() error {
	probe := revoked.Client{ID: "any", Type: revoked.Confidential}
	p.merge(&probe)
	if err := revoked.ValidateClient(&probe); errors.Is(err, revoked.ErrInvalid) {
		return err
	}
	return nil
}

// create returns the client that a POST describes, and its secret unless it is public.
func (p *clientPatch) create() (c revoked.Client, secret string, err error) {
	switch {
	case p.id.Value == "":
		return c, "", fmt.Errorf("%w: client_id is missing", revoked.ErrInvalid)
	case p.createdAt.Value != 0:
		return c, "", fmt.Errorf("%w: created_at is set by the server", revoked.ErrUnprocessable)
	case p.secrets.Set || p.weak.Set:
		return c, "", fmt.Errorf("%w: valid_secrets and weak_secret are set by the server", revoked.ErrUnprocessable)
	}
	c = revoked.Client{Type: revoked.Confidential}
	p.merge(&c)
	secret = p.secret.Value
	if c.Type == revoked.Confidential {
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
// It ignores valid_secrets and weak_secret, which change by themselves while a caller edits the
// record.
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
		return fmt.Errorf("%w: a secret is changed by POST to the client's secret", revoked.ErrUnprocessable)
	}
	p.merge(c)
	return revoked.ValidateClient(c)
}

// merge sets the fields of the body. A confidential client without auth_methods gets both. The
// order matters: the default of auth_methods depends on the type that the body may set.
func (p *clientPatch) merge(c *revoked.Client) {
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
}
