package clientauth

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"revoked"
)

// A Caller is an authenticated client and the credential that it authenticated with.
type Caller struct {
	Client *revoked.Client     // the record at the time of the authentication; must not be changed
	Method string              // one of the methods of package revoked
	Secret *revoked.SecretHash // the stored hash that matched; nil for a method without a secret
	// Assertion is the use of the assertion; nil for every method but private_key_jwt.
	Assertion *revoked.AssertionUse

	key          string              // thumbprint of the key that matched; "" without one
	certificates []*x509.Certificate // for a TLS method: as the peer sent them, its own first
}

// Actor returns the caller as the actor of a change. record is the caller's client record. c may be
// nil.
func (c *Caller) Actor(record *revoked.Client) revoked.Actor {
	by := revoked.ActorOf(record)
	if c != nil {
		by.Assertion = c.Assertion
	}
	return by
}

// Reasons of [Caller.Ended].
const (
	EndedDeleted  = "client_deleted"
	EndedDisabled = "client_disabled"
	EndedSecret   = "secret_ended" // expired, replaced, or no longer allowed for the method
	EndedKey      = "key_ended"    // the key or certificate no longer authenticates the client
)

// Ended returns why the caller could no longer authenticate with its credential, or "" if it could.
// record is the client's current record, nil if it no longer exists. [Session.Client] checks the
// current client CAs.
func (c *Caller) Ended(record *revoked.Client, now time.Time) string {
	switch {
	case record == nil:
		return EndedDeleted
	case record.Disabled:
		return EndedDisabled
	case c.Secret == nil && !c.keyHolds(record, now):
		return EndedKey
	case c.Secret == nil:
		return ""
	case record.Type != revoked.Confidential || !record.MayUse(c.Method):
		return EndedSecret
	}
	if s := c.find(record); s == nil || expired(s, now) {
		return EndedSecret
	}
	return ""
}

// keyHolds reports whether the caller's key or certificate would still authenticate the client with
// the given record.
func (c *Caller) keyHolds(record *revoked.Client, now time.Time) bool {
	switch {
	case record.Type != revoked.Confidential || !record.MayUse(c.Method):
		return false
	case c.certificates != nil && !isValid(c.certificates[0], now):
		return false
	case c.Method == revoked.AuthTLS:
		return record.Subject.Matches(c.certificates[0])
	}
	return record.Key(c.key) != nil
}

// Expires returns when the caller's credential expires according to record. ok is false if the
// credential does not expire.
func (c *Caller) Expires(record *revoked.Client) (at time.Time, ok bool) {
	switch {
	case c.certificates != nil:
		return c.certificates[0].NotAfter, true
	case c.Secret == nil:
		return time.Time{}, false
	}
	s := c.find(record)
	if s == nil || s.ExpiresAt == 0 {
		return time.Time{}, false
	}
	return s.ExpiresAt.Std(), true
}

// find returns the caller's secret in record, or nil.
func (c *Caller) find(record *revoked.Client) *revoked.SecretHash {
	i := slices.IndexFunc(record.Secrets, func(s revoked.SecretHash) bool {
		return s.Kind == c.Secret.Kind && bytes.Equal(s.Salt, c.Secret.Salt) && bytes.Equal(s.Hash, c.Secret.Hash)
	})
	if i < 0 {
		return nil
	}
	return &record.Secrets[i]
}

func expired(s *revoked.SecretHash, now time.Time) bool {
	return s.ExpiresAt != 0 && s.ExpiresAt <= revoked.TimeOf(now)
}
