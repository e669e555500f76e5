package api

import (
	"fmt"
	"slices"

	"github.com/labstack/echo/v4"

	"revoked"
)

// A clientPatch is the body of POST and PATCH of a client: the fields that it has. In a merge patch
// null puts a field back to its default.
type clientPatch struct {
	has       [len(clientFields)]bool
	null      [len(clientFields)]bool
	id        string
	typ       revoked.ClientType
	roles     []revoked.Role
	audiences []string
	issuers   []string
	methods   []string
	public    bool
	disabled  bool
	createdAt revoked.Time
	secret    string
	imported  bool
}

var clientFields = [...]string{"client_id", "type", "roles", "audiences", "issuers", "auth_methods",
	"allow_public_revocation", "disabled", "created_at", "client_secret", "imported"}

// Places in clientFields.
const (
	fieldID = iota
	fieldType
	fieldRoles
	fieldAudiences
	fieldIssuers
	fieldMethods
	fieldPublic
	fieldDisabled
	fieldCreated
	fieldSecret
	fieldImported
)

func decodeClient(c echo.Context, types ...string) (*clientPatch, error) {
	p := new(clientPatch)
	err := decodeBody(c, false, types, clientFields[:], func(r *jsonReader, k int) (err error) {
		p.has[k] = true
		if r.null() {
			p.null[k] = true
			return nil
		}
		switch k {
		case fieldID:
			p.id, err = r.clientID()
		case fieldType:
			p.typ, err = r.clientType()
		case fieldRoles:
			p.roles, err = r.roles()
		case fieldAudiences:
			p.audiences, err = r.list(maxClientList, maxURI)
		case fieldIssuers:
			p.issuers, err = r.list(maxClientList, maxURI)
		case fieldMethods:
			p.methods, err = r.methods()
		case fieldPublic:
			p.public, err = r.boolean()
		case fieldDisabled:
			p.disabled, err = r.boolean()
		case fieldCreated:
			p.createdAt, err = r.seconds()
		case fieldSecret:
			p.secret, err = r.words(maxSecret)
		case fieldImported:
			p.imported, err = r.boolean()
		}
		return err
	})
	return p, err
}

// clientID reads a new client id: visible ASCII, so that every spelling of Basic can carry it, and
// no name that a path would swallow.
func (r *jsonReader) clientID() (string, error) {
	id, err := r.words(maxClientID)
	if err != nil {
		return "", err
	}
	for i := range len(id) {
		if id[i] >= 0x7f {
			return "", r.fail("not ASCII")
		}
	}
	if id == "." || id == ".." {
		return "", r.fail("names a folder")
	}
	return id, nil
}

func (r *jsonReader) clientType() (revoked.ClientType, error) {
	s, err := r.words(maxID)
	if err != nil {
		return "", err
	}
	switch t := revoked.ClientType(s); t {
	case revoked.Confidential, revoked.Public:
		return t, nil
	}
	return "", r.fail("want confidential or public")
}

func (r *jsonReader) roles() ([]revoked.Role, error) {
	list, err := r.list(maxClientList, maxID)
	roles := make([]revoked.Role, 0, len(list))
	for _, s := range list {
		switch role := revoked.Role(s); role {
		case revoked.RoleAdmin, revoked.RoleIssuer, revoked.RoleResourceServer:
			roles = append(roles, role)
		default:
			return nil, r.fail("want admin, issuer or resource_server")
		}
	}
	return roles, err
}

func (r *jsonReader) methods() ([]string, error) {
	list, err := r.list(maxClientList, maxID)
	for _, s := range list {
		if s != revoked.AuthBasic && s != revoked.AuthPost {
			return nil, r.fail("want client_secret_basic or client_secret_post")
		}
	}
	return list, err
}

// create returns the client that the body of a POST describes, and its secret if it has one.
func (p *clientPatch) create() (cl revoked.Client, secret string, err error) {
	switch {
	case !p.has[fieldID] || p.null[fieldID]:
		return cl, "", fmt.Errorf("%w: client_id is missing", revoked.ErrInvalid)
	case p.has[fieldCreated] && !p.null[fieldCreated]:
		return cl, "", fmt.Errorf("%w: created_at is set by the server", revoked.ErrUnprocessable)
	}
	cl = revoked.Client{ID: p.id, Type: revoked.Confidential}
	if p.typ != "" {
		cl.Type = p.typ
	}
	p.merge(&cl)
	if err := checkClient(&cl); err != nil {
		return cl, "", err
	}
	if cl.Type == revoked.Public {
		if p.secret != "" {
			return cl, "", fmt.Errorf("%w: a public client has no secret", revoked.ErrUnprocessable)
		}
		return cl, "", nil
	}
	secret = p.secret
	switch {
	case secret == "":
		secret = NewSecret()
	case len(secret) < strongSecret && !p.imported:
		return cl, "", fmt.Errorf("%w: client_secret has less than %d bytes; leave it out, or say that it is imported", revoked.ErrUnprocessable, strongSecret)
	}
	cl.Secrets = []revoked.SecretHash{HashSecret(secret)}
	return cl, secret, nil
}

// apply changes cl as the body of a PATCH says. What cannot change may be repeated as it is.
func (p *clientPatch) apply(cl *revoked.Client) error {
	fixed := func(field string) error {
		return fmt.Errorf("%w: %s cannot be changed", revoked.ErrUnprocessable, field)
	}
	switch {
	case p.has[fieldID] && p.id != cl.ID:
		return fixed("client_id")
	case p.has[fieldType] && p.typ != cl.Type:
		return fixed("type")
	case p.has[fieldCreated] && p.createdAt != cl.CreatedAt:
		return fixed("created_at")
	case p.has[fieldSecret] || p.has[fieldImported]:
		return fmt.Errorf("%w: a secret is changed by POST to the client's secret", revoked.ErrUnprocessable)
	}
	p.merge(cl)
	return checkClient(cl)
}

// merge sets the fields that the body has. A confidential client without auth_methods has both.
func (p *clientPatch) merge(cl *revoked.Client) {
	if p.has[fieldRoles] {
		cl.Roles = p.roles
	}
	if p.has[fieldAudiences] {
		cl.Audiences = p.audiences
	}
	if p.has[fieldIssuers] {
		cl.Issuers = p.issuers
	}
	if p.has[fieldMethods] {
		cl.AuthMethods = p.methods
	}
	if p.has[fieldPublic] {
		cl.AllowPublicRevocation = p.public
	}
	if p.has[fieldDisabled] {
		cl.Disabled = p.disabled
	}
	if cl.AuthMethods == nil && cl.Type == revoked.Confidential {
		cl.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost}
	}
}

// checkClient refuses a record that contradicts itself.
func checkClient(cl *revoked.Client) error {
	public := cl.Type == revoked.Public
	switch {
	case public && len(cl.Roles) > 0:
		return fmt.Errorf("%w: a public client cannot have roles: it cannot authenticate", revoked.ErrUnprocessable)
	case public && len(cl.AuthMethods) > 0:
		return fmt.Errorf("%w: a public client cannot have auth_methods", revoked.ErrUnprocessable)
	case !public && len(cl.AuthMethods) == 0:
		return fmt.Errorf("%w: auth_methods is empty: the client could not authenticate", revoked.ErrUnprocessable)
	case !public && cl.AllowPublicRevocation:
		return fmt.Errorf("%w: allow_public_revocation is for public clients", revoked.ErrUnprocessable)
	case len(cl.Issuers) > 0 && !slices.Contains(cl.Roles, revoked.RoleIssuer):
		return fmt.Errorf("%w: issuers is for the role issuer", revoked.ErrUnprocessable)
	case slices.Contains(cl.Roles, revoked.RoleAdmin) && !slices.Contains(cl.AuthMethods, revoked.AuthBasic):
		return fmt.Errorf("%w: an administrator needs client_secret_basic: this API takes no other", revoked.ErrUnprocessable)
	}
	return nil
}
