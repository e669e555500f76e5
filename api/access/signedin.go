package access

import (
	"context"

	"revoked/api/clientauth"
)

type signedInKey struct{}

// WithCaller returns a copy of ctx for requests of a caller that has already authenticated, at the
// console. These requests need no credentials. A request from outside cannot have such a context.
func WithCaller(ctx context.Context, caller *clientauth.Caller) context.Context {
	return context.WithValue(ctx, signedInKey{}, caller)
}

// SignedIn returns the caller of [WithCaller], or nil if ctx has none. It returns
// [clientauth.ErrUnauthenticated] unless [Control.Lasts] is true for the caller.
func (c *Control) SignedIn(ctx context.Context) (*clientauth.Caller, error) {
	caller, _ := ctx.Value(signedInKey{}).(*clientauth.Caller)
	if caller != nil && !c.Lasts(caller) {
		return nil, clientauth.ErrUnauthenticated
	}
	return caller, nil
}

// Lasts reports whether the client record of a caller is unchanged since the caller authenticated,
// and the caller's credential is still valid. Every change of the record invalidates the caller,
// even a new secret while the old one is still valid.
func (c *Control) Lasts(caller *clientauth.Caller) bool {
	record, _ := c.cfg.Backend.Client(caller.Client.ID)
	return record != nil && record.Version == caller.Client.Version && caller.Ended(record, c.cfg.Now()) == ""
}
