package clientauth

import (
	"bytes"
	"slices"
	"time"

	"revoked"
)

// A Caller is an authenticated client and the credential that it authenticated with.
type Caller struct {
	Client *revoked.Client     // the record at that time; must not be changed
	Method string              // [revoked.AuthBasic] or [revoked.AuthPost]
	Secret *revoked.SecretHash // the stored hash that matched
}

// Reasons of [Caller.Ended].
const (
	EndedDeleted  = "client_deleted"
	EndedDisabled = "client_disabled"
	EndedSecret   = "secret_ended" // expired, replaced, or no longer allowed for the method
)

// Ended returns why the caller could no longer authenticate with its credential, or "" if it could.
// record is the client's present record, nil if it no longer exists.
func (c *Caller) Ended(record *revoked.Client, now time.Time) string {
	switch {
	case record == nil:
		return EndedDeleted
	case record.Disabled:
		return EndedDisabled
	case record.Type != revoked.Confidential || !mayUse(record, c.Method):
		return EndedSecret
	}
	if s := c.find(record); s == nil || expired(s, now) {
		return EndedSecret
	}
	return ""
}

// Expires returns when the caller's secret expires according to record, and false if it does not.
func (c *Caller) Expires(record *revoked.Client) (at time.Time, ok bool) {
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

// mayUse reports whether c may authenticate by method. A record without methods allows all.
func mayUse(c *revoked.Client, method string) bool {
	return len(c.AuthMethods) == 0 || slices.Contains(c.AuthMethods, method)
}
