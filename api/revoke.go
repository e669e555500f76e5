package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"revoked"
)

// revoke is the revocation endpoint (RFC 7009). It answers 200 only after the backend said that the
// revocation is final, or that the token cannot be valid.
func (a *API) revoke(c echo.Context) error {
	q := a.acquire()
	defer a.release(q)
	if err := a.read(c, q); err != nil {
		return unlessAnswered(err)
	}
	if err := a.identify(c, q, true); err != nil {
		return unlessAnswered(err)
	}
	err := a.revokeAs(c, q)
	a.metrics.revocations.WithLabelValues(c.(*exchange).outcome).Inc()
	return err
}

// revokeAs is revoke for a caller who has authenticated.
func (a *API) revokeAs(c echo.Context, q *oauthRequest) error {
	client := a.caller(c)
	ctx, cancel := a.within(c)
	defer cancel()
	d := revoked.DigestToken(string(q.values[paramToken]))
	if len(client.Roles) > 0 && !client.Has(revoked.RoleAdmin) {
		own, err := a.owns(ctx, client, d)
		if err != nil {
			return a.failRevocation(c, err)
		}
		if !own {
			a.note(c, "unauthorized_client")
			return a.oauthError(c, http.StatusBadRequest, codeUnauthorizedClient, "this client may not revoke tokens")
		}
	}
	if !q.has(paramToken) {
		return a.refused(c, http.StatusBadRequest, "no_token", "the token is missing")
	}
	_, err := a.cfg.Backend.Revoke(ctx, revoked.ActorOf(client), d)
	if errors.Is(err, revoked.ErrActorChanged) {
		// The record changed under the request, or this node's copy of it is behind. Only wrong credentials
		// are 401: so they are judged again, by the newer record.
		if err := a.identify(c, q, true); err != nil {
			return unlessAnswered(err)
		}
		_, err = a.cfg.Backend.Revoke(ctx, revoked.ActorOf(a.caller(c)), d)
		if errors.Is(err, revoked.ErrActorChanged) {
			err = fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
		}
	}
	if err != nil {
		return a.failRevocation(c, err)
	}
	a.note(c, "revoked")
	return write(c, http.StatusOK, typeJSON, []byte("{}"))
}

// owns reports whether the token was issued to the client. A resource server or an issuer holds credentials for
// something else (RFC 9701 section 3); one that is an OAuth client too has tokens of its own, and only for those
// it is one here.
func (a *API) owns(ctx context.Context, client *revoked.Client, d revoked.Digest) (bool, error) {
	if r, err := a.cfg.Backend.Peek(d); err == nil && r.Found { // whose it is never changes
		return r.Grant.ClientID == client.ID, nil
	}
	v := viewerOf(client)
	s, err := a.status(ctx, &v, d)
	return err == nil && s.Record.Found && s.Record.Grant.ClientID == client.ID, err
}

func (a *API) failRevocation(c echo.Context, err error) error {
	var t *throttledError
	if errors.As(err, &t) {
		c.Response().Header().Set("Retry-After", retrySeconds(t.after))
	}
	return a.oauthFail(c, err)
}

func unlessAnswered(err error) error {
	if err == errAnswered { //nolint:errorlint // never wrapped: it is this package's own signal
		return nil
	}
	return err
}
