package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
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
	JWKS                  json.RawMessage     `json:"jwks,omitempty"`
	Keys                  []clientKeyView     `json:"keys,omitempty"`
	SubjectDN             string              `json:"tls_client_auth_subject_dn,omitempty"`
	SubjectDNS            string              `json:"tls_client_auth_san_dns,omitempty"`
	SubjectURI            string              `json:"tls_client_auth_san_uri,omitempty"`
	SubjectIP             string              `json:"tls_client_auth_san_ip,omitempty"`
	SubjectEmail          string              `json:"tls_client_auth_san_email,omitempty"`
	Secrets               []secretInfo        `json:"valid_secrets,omitempty"`
	// WeakSecret is true if a valid secret is shorter than [clientauth.StrongSecret].
	WeakSecret   bool   `json:"weak_secret,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"` // only in the response to POST
}

// secretInfo describes one valid secret of a client.
type secretInfo struct {
	ExpiresAt request.UnixSeconds `json:"expires_at"` // null: does not expire
}

// clientKeyView is a public key of a client without its material.
type clientKeyView struct {
	KeyID      string `json:"kid,omitempty"`
	Thumbprint string `json:"thumbprint"`
	Algorithm  string `json:"alg,omitempty"`
}

// viewClient returns the record without its secrets. Lists are never null, and are copies: the
// record belongs to the state of the node. It fails if the stored keys cannot be written as a JWK
// set.
func (a *API) viewClient(c *revoked.Client) (clientView, error) {
	v := clientView{
		ClientID: c.ID, Type: string(c.Type), Roles: append([]revoked.Role{}, c.Roles...),
		Audiences: append([]string{}, c.Audiences...), Issuers: append([]string{}, c.Issuers...),
		AuthMethods: append([]string{}, c.AuthMethods...), AllowPublicRevocation: c.AllowPublicRevocation,
		Disabled: c.Disabled, CreatedAt: request.UnixSeconds(c.CreatedAt),
	}
	switch s := c.Subject; s.Kind {
	case revoked.SubjectDN:
		v.SubjectDN = s.Value
	case revoked.SubjectDNS:
		v.SubjectDNS = s.Value
	case revoked.SubjectURI:
		v.SubjectURI = s.Value
	case revoked.SubjectIP:
		v.SubjectIP = s.Value
	case revoked.SubjectEmail:
		v.SubjectEmail = s.Value
	}
	if len(c.Keys) == 0 {
		return v, nil
	}
	for i := range c.Keys {
		v.Keys = append(v.Keys, clientKeyView{c.Keys[i].KeyID, c.Keys[i].Thumbprint, c.Keys[i].Algorithm})
	}
	var err error
	v.JWKS, err = a.cfg.Backend.FormatKeys(c.Keys)
	return v, err
}

// describeSecrets adds the members that only GET /v1/clients/{id} returns. They show whether a
// secret is weak, and when the old secrets expire.
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

// getClients serves GET /v1/clients.
func (a *API) getClients(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	list, err := a.cfg.Backend.Clients(ctx)
	if err != nil {
		return err
	}
	out := make([]clientView, 0, len(list))
	for _, c := range list {
		v, err := a.viewClient(c)
		if err != nil {
			return err
		}
		out = append(out, v)
	}
	return r.SendJSON(http.StatusOK, map[string][]clientView{"clients": out})
}

// getClient serves GET /v1/clients/{id}. It reads this node's copy only after the copy is current,
// so an administrator sees every acknowledged change at every node.
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
	v, err := a.viewClient(c)
	if err != nil {
		return err
	}
	v.describeSecrets(c, revoked.TimeOf(a.cfg.Now()))
	return r.SendJSON(http.StatusOK, v)
}

var errNoClient = fmt.Errorf("%w: no such client", revoked.ErrNotFound)

// postClients serves POST /v1/clients. Only its response shows the secret.
func (a *API) postClients(r *request.Request) error {
	p, err := a.decodeClient(r, request.TypesJSON)
	if err != nil {
		return err
	}
	r.Object.ClientID = p.id.Value
	c, secret, err := p.create()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	made, _, err := a.cfg.Backend.CreateClient(ctx, r.Actor(), c)
	if err != nil {
		return err
	}
	out, err := a.viewClient(made)
	if err != nil {
		return err
	}
	out.ClientSecret = secret
	return r.SendJSON(http.StatusCreated, out)
}

// patchClient serves PATCH /v1/clients/{id}: a merge patch (RFC 7396). A patch without changes is
// also committed, so its response is as final as any other.
func (a *API) patchClient(r *request.Request) error {
	p, err := a.decodeClient(r, request.TypesPatch)
	if err != nil {
		return err
	}
	c, _, err := a.changeClient(r, p.apply)
	if err != nil {
		return err
	}
	v, err := a.viewClient(c)
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, v)
}

// deleteClient serves DELETE /v1/clients/{id}. It also revokes the tokens of the client. A second
// request succeeds too, because the client is already deleted.
func (a *API) deleteClient(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.DeleteClient(ctx, r.Actor(), id))
}

// secretView is the response to POST /v1/clients/{id}/secret.
type secretView struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Index        uint64 `json:"index"`
}

// postSecret serves POST /v1/clients/{id}/secret: a new secret. The old ones stay valid for
// secret_grace, so that a caller can replace the secret of a fleet without an outage.
func (a *API) postSecret(r *request.Request) error {
	if err := r.DecodeOptional(); err != nil {
		return err
	}
	secret := clientauth.NewSecret()
	hash := clientauth.HashSecret(secret)
	c, index, err := a.changeClient(r, func(c *revoked.Client) error {
		switch {
		case c.Type == revoked.Public:
			return fmt.Errorf("%w: a public client cannot have a secret", revoked.ErrUnprocessable)
		case !c.UsesSecret():
			return errNoSecretMethod
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
// end or earlier. The newest maxSecrets are kept: each costs a failed authentication one more
// argon2id computation.
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

// changeClient applies change to the record in the path and stores the result. change gets
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
		made, index, err = a.cfg.Backend.UpdateClient(ctx, r.Actor(), next)
		return err
	})
	return made, index, err
}
