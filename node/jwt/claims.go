package jwt

import (
	"cmp"
	"slices"
	"strings"

	"revoked"
)

// Limits of the claims, in bytes or number of values. They equal the limits of a registration in
// package command.
const (
	maxID     = 512
	maxScope  = 8192
	maxValues = 64
	maxCNF    = 4096
)

// readClaims returns a verified result with the claims, or a result with the reason RefusedClaims.
//
// A token with a bad claim is refused, even if this package does not use the claim. Otherwise a
// resource server that reads the claim in another way would act on it.
func readClaims(issuer *revoked.Issuer, t *Token) Result {
	c := claims{object: &t.claims}
	c.distinguish(issuer)
	issued, expires := c.second("iat", false), c.second("exp", false)
	c.require("iat", issued != 0)
	c.require("exp", expires != 0)
	if c.bad != "" {
		return Result{Reason: revoked.RefusedClaims, Claim: c.bad}
	}
	notBefore := c.second("nbf", true)
	c.require("exp", expires > max(issued, notBefore))
	c.text("iss", maxID)
	r := Result{Verified: true, JWT: revoked.JWT{
		Issuer: issuer.Issuer, Digests: []revoked.Digest{t.Digest()}, JTI: c.text("jti", maxID),
		ClientID: c.client(issuer.ClientClaim), Subject: c.text("sub", maxID),
		Session: c.optional(issuer.SessionClaim), GrantID: c.optional(issuer.GrantClaim),
		IssuedAt: issued, ExpiresAt: expires, NotBefore: notBefore,
		Scope: c.scope(), Username: c.username(), Audience: c.audience(), CNF: c.confirmation(),
	}}
	if twin, ok := t.Twin(); ok {
		r.JWT.Digests = append(r.JWT.Digests, twin)
	}
	r.JWT.MappingVersion = issuer.MappingVersion
	r.JWT.Earlier = issuer.EarlierOf(issued, r.JWT.Membership(issuer), c.membership)
	if c.bad != "" {
		return Result{Reason: revoked.RefusedClaims, Claim: c.bad}
	}
	return r
}

// The claims type reads the claims of one token. The strings that it returns do not share the
// token's memory.
type claims struct {
	object *value
	bad    string // name of the first invalid claim; never the claim's value
}

// require refuses the token because of a claim unless ok is true.
func (c *claims) require(name string, ok bool) {
	if !ok {
		c.bad = cmp.Or(c.bad, name)
	}
}

// distinguish checks the claims that distinguish access tokens from other tokens of the issuer.
// Without them an ID token of the same issuer would pass as an access token (RFC 8725 section
// 3.12).
func (c *claims) distinguish(issuer *revoked.Issuer) {
	for name, want := range issuer.RequiredClaims {
		v := c.object.get(name)
		c.require(name, v != nil && v.kind == text && v.text == want)
	}
	for _, name := range issuer.ForbiddenClaims {
		c.require(name, c.object.get(name) == nil)
	}
}

// text returns a claim that is a string, or "" if it is absent.
func (c *claims) text(name string, limit int) string {
	v := c.object.get(name)
	if v == nil {
		return ""
	}
	if v.kind != text || len(v.text) > limit {
		c.require(name, false)
		return ""
	}
	return strings.Clone(v.text)
}

// optional returns a claim whose name the operator chose. If the name is empty, the claim counts as
// absent. So if the issuer's record names no session or grant claim, a revocation of the token
// never covers other tokens.
func (c *claims) optional(name string) string {
	if name == "" {
		return ""
	}
	return c.text(name, maxID)
}

// client returns the client that the token was issued to, or "" if the token does not name it. If
// client_id has the wrong type, azp is not used instead. Otherwise the token would belong to a
// client that its issuer did not mean.
func (c *claims) client(name string) string {
	if name == "" {
		name = "client_id"
		if c.object.get(name) == nil {
			name = "azp"
		}
	}
	client := c.text(name, maxID)
	c.require(name, client != "" || c.object.get(name) == nil)
	return client
}

// membership reads the claims with the earlier mapping m. An invalid claim counts as absent,
// because the token did not verify under that mapping.
func (c *claims) membership(m revoked.ClaimMapping) revoked.Membership {
	read := func(get func(*claims) string) string {
		then := claims{object: c.object}
		if s := get(&then); then.bad == "" {
			return s
		}
		return ""
	}
	return revoked.Membership{
		ClientID:   read(func(c *claims) string { return c.client(m.ClientClaim) }),
		Session:    read(func(c *claims) string { return c.optional(m.SessionClaim) }),
		GrantID:    read(func(c *claims) string { return c.optional(m.GrantClaim) }),
		OwnClients: m.OwnClients, HasGrants: m.GrantClaim != "",
	}
}

// second returns a NumericDate in whole seconds. It returns 0 only if the claim is absent or bad.
// As an expiry, 0 would mean "never", so the second 0 becomes one microsecond. If up is true,
// second rounds up: a fraction in nbf must not make a token active early. It rounds iat and exp
// down.
func (c *claims) second(name string, up bool) revoked.Time {
	v := c.object.get(name)
	if v == nil {
		return 0
	}
	if v.kind != number {
		c.require(name, false)
		return 0
	}
	s, ok := wholeSeconds(v.text, up)
	if !ok {
		c.require(name, false)
		return 0
	}
	return max(1, revoked.Time(s*1e6))
}

// scope returns the claim scope (RFC 9068 section 2.2.3), or scp if the standard claim scope is
// absent. Both must be well formed if present.
func (c *claims) scope() string {
	scope, other := c.scopes("scope"), c.scopes("scp")
	if c.object.get("scope") == nil {
		return other
	}
	return scope
}

// scopes returns a claim as a string of scopes with spaces between them. The claim is such a string
// or, from some issuers, a list of scopes. In a list, a name with a space is invalid, because it
// would become two scopes in the string.
func (c *claims) scopes(name string) string {
	v := c.object.get(name)
	if v == nil || v.kind != array {
		return c.text(name, maxScope)
	}
	var names []string
	for _, s := range v.list {
		c.require(name, s.kind == text && s.text != "" && !strings.Contains(s.text, " "))
		names = append(names, s.text)
	}
	scopes := strings.Join(names, " ")
	c.require(name, len(scopes) <= maxScope)
	return scopes
}

// username returns preferred_username (OpenID Connect Core section 5.1), or username.
func (c *claims) username() string {
	preferred, other := c.text("preferred_username", maxID), c.text("username", maxID)
	if c.object.get("preferred_username") == nil {
		return other
	}
	return preferred
}

// audience returns aud, a string or a list (RFC 7519 section 4.1.3). An empty audience is invalid,
// because it would match a resource server without a name.
func (c *claims) audience() []string {
	v := c.object.get("aud")
	if v == nil {
		return nil
	}
	list := []value{*v}
	if v.kind == array {
		list = v.list
	}
	if len(list) > maxValues {
		c.require("aud", false)
		return nil
	}
	var audience []string
	for _, a := range list {
		c.require("aud", a.kind == text && a.text != "" && len(a.text) <= maxID)
		audience = append(audience, strings.Clone(a.text))
	}
	return audience
}

// confirmation returns the JSON of cnf (RFC 7800 section 3.1) unchanged. This package does not
// check the proof of possession.
func (c *claims) confirmation() []byte {
	v := c.object.get("cnf")
	if v == nil {
		return nil
	}
	if v.kind != object || len(v.raw) > maxCNF {
		c.require("cnf", false)
		return nil
	}
	return slices.Clone([]byte(v.raw))
}
