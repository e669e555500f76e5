package revoked

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ClientType is "confidential" or "public" (RFC 6749 section 2.1).
type ClientType string

// The client types.
const (
	Confidential ClientType = "confidential"
	Public       ClientType = "public"
)

// A Role permits more than revoking and introspecting the client's own tokens.
type Role string

// The roles. A program before command version 4 supports only the first three.
const (
	RoleAdmin          Role = "admin"           // everything
	RoleIssuer         Role = "issuer"          // registers tokens
	RoleResourceServer Role = "resource_server" // introspects tokens, reads its part of the feed
	RoleOperator       Role = "operator"        // members, settings and backups
	RoleViewer         Role = "viewer"          // reads members, status, settings and explanations
	RoleAuditor        Role = "auditor"         // reads the whole feed
)

// Roles returns all roles, in the order in which messages list them.
func Roles() []Role {
	return []Role{RoleAdmin, RoleIssuer, RoleResourceServer, RoleOperator, RoleViewer, RoleAuditor}
}

// Client authentication methods (RFC 8414 section 2, token_endpoint_auth_methods_supported).
const (
	AuthBasic      = "client_secret_basic"
	AuthPost       = "client_secret_post"
	AuthPrivateKey = "private_key_jwt"             // RFC 7523, with one of the client's keys
	AuthTLS        = "tls_client_auth"             // RFC 8705 section 2.1, a certificate of a CA
	AuthSelfSigned = "self_signed_tls_client_auth" // RFC 8705 section 2.2, a certificate of a known key
)

// authMethods lists all methods. Programs before command version 5 support only the first two.
var authMethods = [...]string{AuthBasic, AuthPost, AuthPrivateKey, AuthTLS, AuthSelfSigned}

// HashKind is the algorithm of a stored client secret.
type HashKind uint8

// The hash kinds. The numbers are part of stored records.
const (
	HashSHA256   HashKind = 1 // SHA-256(salt, secret): for secrets of at least 32 bytes
	HashArgon2id HashKind = 2 // argon2id, 19 MiB, 2 passes: for imported, possibly weak secrets
)

// A SecretHash is a stored client secret.
type SecretHash struct {
	Kind      HashKind
	Salt      []byte
	Hash      []byte
	ExpiresAt Time // 0: never; set when a rotation replaces the secret
}

// A Client is an OAuth client. Its roles make it an issuer, an administrator and so on.
type Client struct {
	ID                    string
	Type                  ClientType
	Roles                 []Role
	Audiences             []string
	Issuers               []string // issuers that an issuer may register for; empty: any
	AuthMethods           []string
	AllowPublicRevocation bool
	Disabled              bool
	CreatedAt             Time
	Version               uint64 // log index of the last change; commands carry it, Apply compares it
	Secrets               []SecretHash
	// Keys are the public keys for AuthPrivateKey and AuthSelfSigned: at most MaxClientKeys, all
	// active, sorted by thumbprint.
	Keys []IssuerKey
	// Subject names the certificate for AuthTLS.
	Subject CertificateSubject
}

// MayUse reports whether the client may authenticate by method. A record without methods allows
// client_secret_basic and client_secret_post.
func (c *Client) MayUse(method string) bool {
	if len(c.AuthMethods) == 0 {
		return method == AuthBasic || method == AuthPost
	}
	return slices.Contains(c.AuthMethods, method)
}

// UsesSecret reports whether a method of the client needs a secret.
func (c *Client) UsesSecret() bool { return c.MayUse(AuthBasic) || c.MayUse(AuthPost) }

// UsesKeys reports whether a method of the client needs Keys.
func (c *Client) UsesKeys() bool { return c.MayUse(AuthPrivateKey) || c.MayUse(AuthSelfSigned) }

// Key returns the key with that thumbprint, or nil.
func (c *Client) Key(thumbprint string) *IssuerKey {
	for i := range c.Keys {
		if c.Keys[i].Thumbprint == thumbprint {
			return &c.Keys[i]
		}
	}
	return nil
}

// Has reports whether the client has the role.
func (c *Client) Has(r Role) bool { return slices.Contains(c.Roles, r) }

// HasAny reports whether the client has one of the roles.
func (c *Client) HasAny(roles ...Role) bool {
	for _, r := range roles { // a closure would allocate for each operation
		if c.Has(r) {
			return true
		}
	}
	return false
}

// Require returns nil if the client has one of the roles. Otherwise it returns an error that wraps
// [ErrForbidden] and names the roles. Every refusal of a role has this text.
func (c *Client) Require(roles ...Role) error {
	if c.HasAny(roles...) {
		return nil
	}
	return fmt.Errorf("%w: the caller needs the role %s", ErrForbidden, listRoles(roles))
}

// listRoles returns "a, b or c".
func listRoles(roles []Role) string {
	text := ""
	for i, r := range roles {
		switch {
		case i == 0:
		case i == len(roles)-1:
			text += " or "
		default:
			text += ", "
		}
		text += string(r)
	}
	return text
}

// EffectiveAudiences returns the audiences of a resource server: its Audiences, or its client id if
// it has none.
func (c *Client) EffectiveAudiences() []string {
	if len(c.Audiences) > 0 {
		return c.Audiences
	}
	return []string{c.ID}
}

// An Actor is the client that requests a change.
type Actor struct {
	ClientID  string
	Version   uint64 // version of the client record that authenticated the caller
	Admin     bool
	RequestID string // id of the call, for the audit log; may be empty
	Via       string // node that received the call, for the audit log; empty: the node that proposes
	// Assertion is the use of the assertion that authenticated the caller; nil: another method did.
	Assertion *AssertionUse
}

// ActorOf returns an authenticated client as an actor.
func ActorOf(c *Client) Actor {
	return Actor{ClientID: c.ID, Version: c.Version, Admin: c.Has(RoleAdmin)}
}

// Limits of a client record.
const (
	MaxClientID      = 128 // bytes of a client id
	MaxClientList    = 64  // number of audiences or issuers
	MaxClientElement = 512 // bytes of an audience or issuer
	MaxClientSecrets = 8   // number of stored secrets: the current one and those in their grace period
	MaxClientKeys    = 16  // number of public keys
	maxSecretHash    = 128 // bytes of a salt or hash
)

// ValidateClient returns an error that names the first invalid field of a client record. The API,
// the bootstrap files and Apply all use it. The error wraps [ErrInvalid] if a value is malformed
// and [ErrUnprocessable] if well-formed fields contradict each other.
func ValidateClient(c *Client) error {
	for _, err := range []error{
		ValidateClientID(c.ID),
		validateClientEnums(c),
		validateClientList("audiences", c.Audiences),
		validateClientList("issuers", c.Issuers),
		validateSecrets(c.Secrets),
		validateClientKeys(c.Keys),
		c.Subject.validate(),
		validateClientCombination(c),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// ValidateClientID accepts printable ASCII, so that HTTP Basic can carry the id in any encoding. It
// rejects the path segments that a router would resolve. The error wraps [ErrInvalid].
func ValidateClientID(id string) error {
	switch {
	case id == "" || len(id) > MaxClientID:
		return fmt.Errorf("%w: client_id: wrong length (got %d bytes, want 1 to %d)", ErrInvalid, len(id), MaxClientID)
	case strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Errorf("%w: client_id: want printable ASCII", ErrInvalid)
	case id == "." || id == "..":
		return fmt.Errorf("%w: client_id: %q is a path segment", ErrInvalid, id)
	}
	return nil
}

func validateClientEnums(c *Client) error {
	if c.Type != Confidential && c.Type != Public {
		return fmt.Errorf("%w: type: want confidential or public", ErrInvalid)
	}
	for i, r := range c.Roles {
		if !slices.Contains(Roles(), r) {
			return fmt.Errorf("%w: roles: want %s", ErrInvalid, listRoles(Roles()))
		}
		if slices.Contains(c.Roles[:i], r) {
			return fmt.Errorf("%w: roles: %s is repeated", ErrInvalid, r)
		}
	}
	for i, m := range c.AuthMethods {
		if !slices.Contains(authMethods[:], m) {
			return fmt.Errorf("%w: auth_methods: want %s", ErrInvalid, strings.Join(authMethods[:], ", "))
		}
		if slices.Contains(c.AuthMethods[:i], m) {
			return fmt.Errorf("%w: auth_methods: %s is repeated", ErrInvalid, m)
		}
	}
	return nil
}

func validateClientList(field string, list []string) error {
	if len(list) > MaxClientList {
		return fmt.Errorf("%w: %s: too many (got %d, want at most %d)", ErrInvalid, field, len(list), MaxClientList)
	}
	for _, s := range list {
		if s == "" || len(s) > MaxClientElement {
			return fmt.Errorf("%w: %s: element of wrong length (got %d bytes, want 1 to %d)",
				ErrInvalid, field, len(s), MaxClientElement)
		}
		if err := checkPlain(field, s); err != nil {
			return err
		}
	}
	return nil
}

// checkPlain returns an error that wraps ErrInvalid unless s is UTF-8 without the control
// characters of ASCII.
func checkPlain(field, s string) error {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%w: %s: want UTF-8 without control characters", ErrInvalid, field)
	}
	return nil
}

func validateSecrets(secrets []SecretHash) error {
	if len(secrets) > MaxClientSecrets {
		return fmt.Errorf("%w: secrets: too many (got %d, want at most %d)", ErrInvalid, len(secrets), MaxClientSecrets)
	}
	for _, s := range secrets {
		if s.Kind != HashSHA256 && s.Kind != HashArgon2id || len(s.Hash) == 0 ||
			len(s.Hash) > maxSecretHash || len(s.Salt) > maxSecretHash || s.ExpiresAt < 0 {
			return fmt.Errorf("%w: secrets: malformed hash", ErrInvalid)
		}
	}
	return nil
}

// validateClientKeys rejects malformed and inactive keys. A client's keys have no history, unlike
// an issuer's: a key that is not in the record verifies nothing.
func validateClientKeys(keys []IssuerKey) error {
	if len(keys) > MaxClientKeys {
		return fmt.Errorf("%w: jwks: too many keys (got %d, want at most %d)", ErrInvalid, len(keys), MaxClientKeys)
	}
	for i := range keys {
		if k := &keys[i]; k.State != KeyActive || k.MissingSince != 0 || k.EndedAt != 0 {
			return fmt.Errorf("%w: jwks: malformed key", ErrInvalid)
		}
	}
	return ValidateIssuerKeys(keys)
}

// validateClientCombination rejects a record whose fields contradict each other.
func validateClientCombination(c *Client) error {
	public := c.Type == Public
	problem := ""
	switch {
	case public && len(c.Roles) > 0:
		problem = "roles: a public client cannot have roles, because it cannot authenticate"
	case public && len(c.AuthMethods) > 0:
		problem = "auth_methods: a public client cannot authenticate"
	case public && len(c.Secrets) > 0:
		problem = "client_secret: a public client cannot have a secret"
	case public:
	case len(c.AuthMethods) == 0:
		problem = "auth_methods: a confidential client needs at least one"
	case c.AllowPublicRevocation:
		problem = "allow_public_revocation: only a public client may have it"
	case len(c.Issuers) > 0 && !c.Has(RoleIssuer):
		problem = "issuers: only a client with the role issuer may have them"
	case c.HasAny(RoleAdmin, RoleOperator, RoleViewer, RoleAuditor) && !c.UsesKeys() && !c.MayUse(AuthBasic) &&
		!c.MayUse(AuthTLS):
		problem = "auth_methods: the roles admin, operator, viewer and auditor need client_secret_basic, a key or " +
			"a certificate: /v1 does not accept client_secret_post"
	}
	if problem == "" {
		problem = credentialProblem(c)
	}
	if problem == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnprocessable, problem)
}

// credentialProblem returns the first contradiction between the methods of c and its keys or its
// certificate, or "".
func credentialProblem(c *Client) string {
	usesKeys := c.Type != Public && c.UsesKeys()
	usesSubject := c.Type != Public && c.MayUse(AuthTLS)
	switch {
	case usesKeys && len(c.Keys) == 0:
		return "jwks: private_key_jwt and self_signed_tls_client_auth need a public key"
	case !usesKeys && len(c.Keys) > 0:
		return "jwks: only private_key_jwt and self_signed_tls_client_auth use it"
	case usesSubject && c.Subject == CertificateSubject{}:
		return "tls_client_auth needs exactly one of " + subjectNames()
	case !usesSubject && c.Subject != CertificateSubject{}:
		return c.Subject.Kind.Name() + ": only tls_client_auth uses it"
	}
	return ""
}
