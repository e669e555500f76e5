package jwt

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"revoked"
)

// An Assertion is a well-formed JWT with which a client may authenticate (RFC 7523 section 2.2).
// Its signature has not been verified.
type Assertion struct {
	*Token
	clientID string
}

// ParseAssertion checks the form of an assertion. It returns [ErrFormat] unless iss and sub name
// the same client.
func ParseAssertion(raw string) (*Assertion, error) {
	t, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	sub := t.claims.get("sub")
	if sub == nil || sub.kind != text || sub.text != t.issuer || revoked.ValidateClientID(t.issuer) != nil {
		return nil, ErrFormat
	}
	return &Assertion{t, strings.Clone(t.issuer)}, nil
}

// ClientID returns the id of the client that the assertion names. The id is unverified: use it only
// to find the client's record.
func (a *Assertion) ClientID() string { return a.clientID }

// Verify verifies the assertion with the keys of a client, and checks its claims at the time now.
// The clocks of the client and of this node may differ by skew. The only audience that the
// assertion may have is audience, the issuer identifier of the cluster (RFC 10070).
//
// If Verify refuses an assertion that a key of the client has signed, problem is the reason for the
// client. Otherwise problem is empty, so that a caller that cannot authenticate learns nothing. The
// caller of Verify must also reject an assertion whose Key was already used.
func (a *Assertion) Verify(c *revoked.Client, audience string, now revoked.Time, skew time.Duration) (
	v revoked.VerifiedAssertion, problem string, ok bool,
) {
	if a.clientID != c.ID {
		return v, "", false
	}
	key := a.signer(c)
	if key == nil {
		return v, "", false
	}
	claims := claims{object: &a.claims}
	expires := claims.second("exp", false)
	issued, notBefore := claims.second("iat", false), claims.second("nbf", true)
	jti := claims.text("jti", revoked.MaxAssertionID)
	claims.require("exp", expires != 0)
	claims.require("jti", jti != "")
	switch {
	case !isAssertionType(a.typ):
		problem = "typ must be absent, JWT or client-authentication+jwt"
	case !a.hasAudience(audience):
		problem = "aud must be " + audience + " alone"
	case claims.bad != "":
		problem = claims.bad + " is missing or malformed"
	case expires > now.Add(revoked.MaxAssertionLifetime+skew):
		problem = fmt.Sprintf("exp must be at most %.0f minutes ahead", revoked.MaxAssertionLifetime.Minutes())
	case expires.Add(skew) <= now:
		problem = "exp has passed"
	case max(issued, notBefore) > now.Add(skew):
		problem = "iat or nbf is in the future"
	}
	if problem != "" {
		return v, problem, false
	}
	return revoked.VerifiedAssertion{
		Key: revoked.AssertionKey(c.ID, jti), ExpiresAt: expires, Thumbprint: key.Thumbprint,
	}, "", true
}

// isAssertionType reports whether typ is absent or is a type that an assertion may have. RFC 10070
// recommends client-authentication+jwt, but allows an absent type. A token of another type must not
// pass as an assertion (RFC 8725 section 3.11).
func isAssertionType(typ string) bool {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return typ == "" || strings.EqualFold(typ, "JWT") || strings.EqualFold(typ, "client-authentication+jwt")
}

// hasAudience reports whether audience is the only audience of the assertion, compared as a string.
func (a *Assertion) hasAudience(audience string) bool {
	aud := a.claims.get("aud")
	if aud != nil && aud.kind == array && len(aud.list) == 1 {
		aud = &aud.list[0]
	}
	return aud != nil && aud.kind == text && aud.text == audience
}

// signer returns the client's key that made the signature, or nil. Only the client's record decides
// which keys exist and which algorithm fits each of them, as with [Verifier] for issuers.
func (a *Assertion) signer(c *revoked.Client) *revoked.IssuerKey {
	v := Verifier{issuer: &revoked.Issuer{}}
	for i := range c.Keys {
		k := &c.Keys[i]
		if a.hasKeyID && k.KeyID != a.keyID {
			continue
		}
		public, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			continue // Apply rejects a record with such a key
		}
		v.keys = append(v.keys, verifyKey{k, public})
	}
	keys, _ := v.candidates(a.Token)
	if key := a.signedBy(keys); key != nil {
		return key.IssuerKey
	}
	return nil
}
