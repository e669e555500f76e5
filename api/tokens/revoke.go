package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"revoked"
	"revoked/api/request"
)

// Revoke is the revocation endpoint (RFC 7009). It answers 200 only after the backend reported that
// the revocation is final, or that the token cannot be valid.
func (e *Endpoints) Revoke(r *request.Request) error {
	q := e.acquire()
	defer e.release(q)
	if err := e.read(r.Request(), q); err != nil {
		return err
	}
	if err := e.identify(r, q, true); err != nil {
		return err
	}
	res, err := e.revokeToken(r, q)
	if err != nil {
		e.metrics.revocations.WithLabelValues(request.FailureOf(r.Request().URL.Path, err).Outcome).Inc()
		return err
	}
	r.Outcome = "revoked"
	if res.Unknown {
		r.Outcome = "unknown"
	}
	e.metrics.revocations.WithLabelValues(r.Outcome).Inc()
	if r.Client.Has(revoked.RoleAdmin) {
		r.Response().Header().Set(headerOutcome, r.Outcome)
	}
	return r.Send(http.StatusOK, request.TypeJSON, []byte("{}"))
}

// headerOutcome shows an administrator whether the token was known: "revoked" or "unknown". Every
// other caller gets the same answer for both (RFC 7009 section 2.2): it must not learn which tokens
// exist.
const headerOutcome = "Revoked-Outcome"

// revokeToken revokes the token of q for the authenticated caller.
func (e *Endpoints) revokeToken(r *request.Request, q *oauthRequest) (res revoked.RevokeResult, err error) {
	ctx, cancel := e.withTimeout(r)
	defer cancel()
	p := q.presented()
	p.Caller = r.Client.ID
	if len(r.Client.Roles) > 0 && !r.Client.Has(revoked.RoleAdmin) {
		if err := e.checkOwner(ctx, r.Client, p); err != nil {
			return res, err
		}
	}
	if !q.has(paramToken) {
		return res, errNoToken
	}
	if err := e.checkAnonymous(ctx, r, p); err != nil {
		return res, err
	}
	res, err = e.revokePresented(ctx, r.Actor(), p)
	if !errors.Is(err, revoked.ErrActorChanged) {
		return res, err
	}
	// The client record changed during the request, or this node's copy of it is behind. Authenticate
	// again with the newer record, so that 401 is sent for wrong credentials only.
	if err := e.identify(r, q, true); err != nil {
		return res, err
	}
	res, err = e.revokePresented(ctx, r.Actor(), p)
	if errors.Is(err, revoked.ErrActorChanged) {
		err = fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
	}
	return res, err
}

// revokePresented calls the backend once. A token that cannot be a JWT needs no verification.
func (e *Endpoints) revokePresented(
	ctx context.Context, by revoked.Actor, p revoked.PresentedToken,
) (revoked.RevokeResult, error) {
	if p.JWT == nil {
		return e.cfg.Backend.Revoke(ctx, by, p.Digest)
	}
	return e.cfg.Backend.RevokeToken(ctx, by, p)
}

// checkAnonymous limits the revocations of unknown tokens by a public client. Anyone can send them,
// and each uses up the client's quota of tombstones. A token in this node's copy is never limited,
// so users behind one address can always revoke their tokens.
func (e *Endpoints) checkAnonymous(ctx context.Context, r *request.Request, p revoked.PresentedToken) error {
	if r.Client.Type != revoked.Public {
		return nil
	}
	if known, err := e.cfg.Backend.Peek(p.Digest); err == nil && known.Found {
		return nil
	}
	if p.JWT != nil {
		p.KnownOnly = true
		if s, err := e.cfg.Backend.StatusOf(ctx, p); err != nil || s.Record.Found {
			return err
		}
	}
	wait := e.anonymous.Take(r.Client.ID+"\x00"+network(r.RealIP()), e.cfg.Now())
	if wait == 0 {
		return nil
	}
	e.cfg.Throttled.WithLabelValues("public_revocations").Inc()
	return &request.Failure{Status: http.StatusTooManyRequests, Code: request.CodeUnavailable,
		Title: "too many revocations of unknown tokens, retry later", Outcome: "quota", RetryAfter: wait}
}

// network returns the part of an address that one host owns: all of IPv4, 64 bits of IPv6.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// checkOwner rejects a token that was not issued to the client. Resource servers and issuers
// hold credentials for another purpose (RFC 9701 section 3), so they act as OAuth clients only for
// their own tokens.
func (e *Endpoints) checkOwner(ctx context.Context, client *revoked.Client, p revoked.PresentedToken) error {
	record, err := e.cfg.Backend.Peek(p.Digest)
	foreign := false
	if err != nil || !record.Found { // the owner of a token never changes, so any copy that has the token suffices
		v := viewerOf(client)
		s, err := e.status(ctx, &v, p)
		if err != nil {
			return err
		}
		record, foreign = s.Record, s.Foreign
	}
	if !record.Found || foreign || record.Grant.ClientID != client.ID {
		return &request.Failure{Status: http.StatusBadRequest, Code: request.CodeUnauthorizedClient,
			Title: "this client may not revoke tokens", Outcome: "unauthorized_client"}
	}
	return nil
}
