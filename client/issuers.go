package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// An Issuer is a trusted issuer of JWTs, as GET /v1/issuers/{name} returns it. The Body of an
// [Answer] also holds the members that this version does not support.
type Issuer struct {
	Name            string            `json:"name"`
	Issuer          string            `json:"issuer"`
	JWKSURI         string            `json:"jwks_uri"` // empty: the keys are given in JWKS
	JWKS            json.RawMessage   `json:"jwks"`
	Algorithms      []string          `json:"algorithms"`
	TokenTypes      []string          `json:"token_types"`
	RequiredClaims  map[string]string `json:"required_claims"`
	ForbiddenClaims []string          `json:"forbidden_claims"`
	ClientClaim     string            `json:"client_claim"`
	SessionClaim    string            `json:"session_claim"`
	GrantClaim      string            `json:"grant_claim"`
	RevokeSession   bool              `json:"revoke_session"`
	OwnClients      bool              `json:"own_clients"`
	UnknownClients  string            `json:"unknown_clients"` // allow or refuse
	RequireAudience bool              `json:"require_audience"`
	JTI             bool              `json:"jti"`
	MaxLifetime     string            `json:"max_lifetime"`
	ClockSkew       string            `json:"clock_skew"`
	Disabled        bool              `json:"disabled"`
	CreatedAt       json.RawMessage   `json:"created_at"` // Unix seconds
	Keys            []IssuerKey       `json:"keys"`
	Fetch           *KeyFetch         `json:"fetch"` // nil: the keys are given, or the leader did not report it
}

// A KeyFetch describes the fetches of an issuer's keys by the leader. Times are Unix seconds.
type KeyFetch struct {
	At     json.RawMessage `json:"at"` // null: none yet
	OK     bool            `json:"ok"`
	Error  string          `json:"error"`
	NextAt json.RawMessage `json:"next_at"`
}

// A Refreshed is the response to POST /v1/issuers/{name}/refresh.
type Refreshed struct {
	Index   uint64 `json:"index"`
	Changed bool   `json:"changed"`
}

// An IssuerKey is a public key of an issuer.
type IssuerKey struct {
	KeyID      string `json:"kid"`
	Thumbprint string `json:"thumbprint"` // RFC 7638
	Algorithm  string `json:"alg"`
	State      string `json:"state"` // active, retired or banned
}

// Issuers is the response to GET /v1/issuers.
type Issuers struct {
	Issuers []Issuer `json:"issuers"`
}

// A TokenCheck is the response to POST /v1/issuers/{name}/check. The members after Reason are set
// only if the issuer signed the token.
type TokenCheck struct {
	Verified   bool   `json:"verified"`
	Reason     string `json:"reason"` // why the token cannot be active
	Claim      string `json:"claim"`  // the first wrong claim, if Reason is claims
	KeyID      string `json:"kid"`
	Thumbprint string `json:"thumbprint"`
	ClientID   string `json:"client_id"`
	Subject    string `json:"sub"`
	Session    string `json:"session"`
	Grant      string `json:"grant"`
	JTI        string `json:"jti"`
	IssuedAt   int64  `json:"iat"` // Unix seconds
	ExpiresAt  int64  `json:"exp"` // Unix seconds
}

// Issuers lists the trusted issuers.
func (c *Client) Issuers(ctx context.Context) (Answer[Issuers], error) {
	return call[Issuers](ctx, c, get("list the issuers", "/v1/issuers"))
}

// Issuer returns one trusted issuer.
func (c *Client) Issuer(ctx context.Context, name string) (Answer[Issuer], error) {
	return call[Issuer](ctx, c, get("show issuer "+name, issuerPath(name)))
}

// CreateIssuer creates a trusted issuer from a JSON object with the members of [Issuer].
func (c *Client) CreateIssuer(ctx context.Context, record json.RawMessage) (Answer[Issuer], error) {
	r, err := jsonRequest("create the issuer", http.MethodPost, "/v1/issuers", record)
	if err != nil {
		return Answer[Issuer]{}, err
	}
	r.once = true // a second attempt would be a conflict
	return call[Issuer](ctx, c, r)
}

// UpdateIssuer changes a trusted issuer by a merge patch (RFC 7396).
func (c *Client) UpdateIssuer(ctx context.Context, name string, patch json.RawMessage) (Answer[Issuer], error) {
	r, err := jsonRequest("update issuer "+name, http.MethodPatch, issuerPath(name), patch)
	if err != nil {
		return Answer[Issuer]{}, err
	}
	r.contentType = "application/merge-patch+json"
	return call[Issuer](ctx, c, r)
}

// DeleteIssuer deletes a trusted issuer. This revokes all of its tokens.
func (c *Client) DeleteIssuer(ctx context.Context, name string) (Answer[Applied], error) {
	return call[Applied](ctx, c, request{name: "delete issuer " + name, method: http.MethodDelete, path: issuerPath(name)})
}

// RefreshIssuer makes the leader fetch the keys of an issuer now.
func (c *Client) RefreshIssuer(ctx context.Context, name string) (Answer[Refreshed], error) {
	r, err := jsonRequest("refresh issuer "+name, http.MethodPost, issuerPath(name)+"/refresh", struct{}{})
	if err != nil {
		return Answer[Refreshed]{}, err
	}
	return call[Refreshed](ctx, c, r)
}

// BanIssuerKey bans a key of an issuer permanently.
func (c *Client) BanIssuerKey(ctx context.Context, name, thumbprint string) (Answer[Applied], error) {
	return call[Applied](ctx, c, request{
		name: "ban a key of issuer " + name, method: http.MethodDelete,
		path: issuerPath(name) + "/keys/" + url.PathEscape(thumbprint),
	})
}

// CheckToken reports whether a token may be active by the record and the keys of an issuer.
func (c *Client) CheckToken(ctx context.Context, name, token string) (Answer[TokenCheck], error) {
	r, err := jsonRequest("check a token of issuer "+name, http.MethodPost, issuerPath(name)+"/check",
		map[string]string{"token": token})
	if err != nil {
		return Answer[TokenCheck]{}, err
	}
	return call[TokenCheck](ctx, c, r)
}

func issuerPath(name string) string { return "/v1/issuers/" + url.PathEscape(name) }
