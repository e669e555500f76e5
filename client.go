package revoked

import (
	"slices"
	"time"
)

// ClientType is "confidential" or "public" (RFC 6749 section 2.1).
type ClientType string

// The client types.
const (
	Confidential ClientType = "confidential"
	Public       ClientType = "public"
)

// A Role is what a client may do beside revoking and introspecting its own tokens.
type Role string

// The roles.
const (
	RoleAdmin          Role = "admin"
	RoleIssuer         Role = "issuer"
	RoleResourceServer Role = "resource_server"
)

// Client authentication methods (RFC 8414 section 2, token_endpoint_auth_methods_supported).
const (
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
)

// HashKind says how a client secret is stored.
type HashKind uint8

// The kinds of hash. The numbers are part of stored records.
const (
	HashSHA256   HashKind = 1 // SHA-256(salt, secret): secrets of 32 bytes and more
	HashArgon2id HashKind = 2 // argon2id, 19 MiB, 2 passes: imported, possibly weak secrets
)

// A SecretHash is a stored client secret.
type SecretHash struct {
	Kind      HashKind
	Salt      []byte
	Hash      []byte
	ExpiresAt Time // 0: never; set when rotate-secret replaced it
}

// A Client is an OAuth client, an issuer, a resource server or an administrator.
type Client struct {
	ID                    string
	Type                  ClientType
	Roles                 []Role
	Audiences             []string
	Issuers               []string // issuers an issuer may register for; none: any
	AuthMethods           []string
	AllowPublicRevocation bool
	Disabled              bool
	CreatedAt             Time
	Version               uint64 // log index of the last change: commands carry it, Apply checks it
	Secrets               []SecretHash
}

// Has reports whether the client has role r.
func (c *Client) Has(r Role) bool { return slices.Contains(c.Roles, r) }

// HasAudiences returns the audiences of a resource server: those it names, else its client id.
func (c *Client) HasAudiences() []string {
	if len(c.Audiences) > 0 {
		return c.Audiences
	}
	return []string{c.ID}
}

// An Actor is who asks for a change: a client as it was when it authenticated.
type Actor struct {
	ClientID string
	Version  uint64
	Admin    bool
}

// ActorOf returns the actor that an authenticated client is.
func ActorOf(c *Client) Actor {
	return Actor{ClientID: c.ID, Version: c.Version, Admin: c.Has(RoleAdmin)}
}

// Settings are replicated: the same on every node at the same log index.
type Settings struct {
	LeaseDuration          time.Duration
	LateRegistrationWindow time.Duration
	CutoffRetention        time.Duration
	MaxClockSkew           time.Duration
	SecretGrace            time.Duration
	// LeaseCeiling is the longest lease that may still be in force after LeaseDuration was lowered; 0
	// when that is LeaseDuration itself. The cluster sets it.
	LeaseCeiling time.Duration
	Version      uint64 // log index of the last change
}

// DefaultSettings returns the settings of a new cluster.
func DefaultSettings() Settings {
	return Settings{
		LeaseDuration:          2 * time.Second,
		LateRegistrationWindow: time.Hour,
		CutoffRetention:        9600 * time.Hour,
		MaxClockSkew:           5 * time.Second,
		SecretGrace:            24 * time.Hour,
	}
}
