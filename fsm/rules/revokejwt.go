package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
)

// revokeJWT ends a JWT of a trusted issuer.
//
// If one of its digests is registered, that record decides first, because the registration may bind
// another client. A JWT that is dead already needs no right: the client gets success, as for every
// invalid token (RFC 7009 section 2.2).
func (a *Applier) revokeJWT(actor *revoked.Client, m *command.RevokeJWT) Result {
	iss, j := a.issuerOf(m.Issuer), m.JWT()
	if iss == nil || iss.DeletedAt != 0 && len(j.Digests) == 0 {
		return Result{Err: fmt.Errorf("%w: issuer %q is not trusted", revoked.ErrUnprocessable, m.Issuer)}
	}
	if len(j.Digests) == 0 {
		return a.denyUnseen(actor, &iss.Issuer, j, m.Reason)
	}
	if j.MappingVersion != iss.MappingVersion { // the claims were read by another mapping
		return Result{Err: fmt.Errorf("%w: issuer %q has changed", revoked.ErrConflict, iss.Name)}
	}
	if res, registered := a.revokeRegistered(actor, j, m.Reason); res.Err != nil || registered && !ownsJWT(actor, iss, j) {
		return res
	}
	if !ownsJWT(actor, iss, j) {
		if v := a.decideJWT(&iss.Issuer, j); v != revoked.Dead && v != revoked.PastExpiry {
			return Result{Err: fmt.Errorf("%w: %s", revoked.ErrForeignToken, j.Digests[0].Prefix())}
		}
		return Result{}
	}
	if err := a.mayDeny(actor, revoked.DenialKey(revoked.DenyDigest, "", string(j.Digests[0][:]))); err != nil {
		return Result{Err: err}
	}
	a.endJWT(actor, &iss.Issuer, j, m.Reason)
	return Result{}
}

// mayDeny returns ErrQuota if actor has too many denials to add the one with that key. The
// revocation of a registered token adds its denials in any case: the state already holds the token.
func (a *Applier) mayDeny(actor *revoked.Client, id revoked.Digest) error {
	if actor.Has(revoked.RoleAdmin) || a.denialsOf(actor.ID) < a.DenialQuota {
		return nil
	}
	if _, row := a.denial(id); row != nil { // a repeat adds nothing
		return nil
	}
	return fmt.Errorf("%w: client %q: %d deny entries, the most of one client", revoked.ErrQuota, actor.ID, a.DenialQuota)
}

// ownsJWT reports whether actor may revoke j. The client ids of an issuer are those of this cluster
// only if its record has OwnClients: two issuers may both have a client "web".
func ownsJWT(actor *revoked.Client, iss *rows.Issuer, j *revoked.JWT) bool {
	return actor.Has(revoked.RoleAdmin) || iss.OwnClients && j.ClientID == actor.ID
}

// revokeRegistered ends the grants of the digests that are registered. Their records decide who may
// do so. It reports whether there are any.
func (a *Applier) revokeRegistered(actor *revoked.Client, j *revoked.JWT, reason string) (res Result, found bool) {
	for i := range j.Digests {
		if _, row := a.token(j.Digests[i]); row == nil {
			continue
		}
		found = true
		res = a.revoke(actor, &command.Revoke{Digest: j.Digests[i][:], Reason: reason})
		if res.Err != nil {
			return res, true
		}
	}
	return res, found
}

// denyUnseen denies a jti. The actor has not shown the token, so an issuer must be bound to the
// iss. If the issuer reuses jti, a denial would end tokens that the actor does not mean.
func (a *Applier) denyUnseen(actor *revoked.Client, iss *revoked.Issuer, j *revoked.JWT, reason string) Result {
	switch err := actor.Require(revoked.RoleAdmin, revoked.RoleIssuer); {
	case err != nil:
		return Result{Err: err}
	case !actor.Has(revoked.RoleAdmin) && !slices.Contains(actor.Issuers, iss.Issuer):
		return Result{Err: fmt.Errorf("%w: the issuers of client %q do not name %q",
			revoked.ErrForbidden, actor.ID, iss.Issuer)}
	}
	if !iss.JTI {
		return Result{Err: fmt.Errorf("%w: issuer %q reuses jti: revoke the token itself",
			revoked.ErrUnprocessable, iss.Issuer)}
	}
	if err := a.mayDeny(actor, revoked.DenialKey(revoked.DenyJTI, iss.Issuer, j.JTI)); err != nil {
		return Result{Err: err}
	}
	if a.denyJTI(iss, j, actor.ID, reason) {
		a.jwtEvent(actor, j, revoked.Selector{Issuer: iss.Issuer}, reason)
	}
	return Result{}
}

// decideJWT decides about j as of the stamp of the log. Introspection makes the same decision, but
// with its own clock beside the stamp.
func (a *Applier) decideJWT(iss *revoked.Issuer, j *revoked.JWT) revoked.Verdict {
	r := j.Record()
	in := revoked.DecideInput{
		Now: a.Stamp, Stamp: a.Stamp, Client: a.client(j.ClientID), Issuer: iss,
		Cutoff: func(g *revoked.Grant, t *revoked.Token, skew time.Duration) bool {
			return a.findCutoff(g, t, skew) != nil
		},
	}
	if k := iss.Key(j.Thumbprint); k != nil {
		in.Key = k.State
	}
	denial, err := lookup.Denial(func(key []byte) ([]byte, error) { return a.get(key), nil }, j, iss.OwnClients)
	if err != nil {
		a.fail(err)
	}
	in.Denied = denial != nil
	return revoked.Decide(&r, in).Verdict
}

// endJWT denies j and, if the issuer has them, its grant or its session. An expired token still
// ends these: the issuer may have refreshed them.
func (a *Applier) endJWT(actor *revoked.Client, iss *revoked.Issuer, j *revoked.JWT, reason string) {
	changed := a.denyDigests(iss, j, actor.ID, reason)
	if iss.JTI && j.JTI != "" && a.denyJTI(iss, j, actor.ID, reason) {
		changed = true
	}
	if sel, family := a.endFamily(actor, iss, j.Membership(iss), reason); family || changed {
		a.jwtEvent(actor, j, sel, reason)
	}
	for _, m := range j.Earlier {
		if sel, family := a.endFamily(actor, iss, m, reason); family {
			a.jwtEvent(actor, j, sel, reason)
		}
	}
}

// endFamily ends the grant or the session of a JWT by one mapping. It returns the selector of what
// it ended, and reports whether that is new.
func (a *Applier) endFamily(
	actor *revoked.Client, iss *revoked.Issuer, m revoked.Membership, reason string,
) (sel revoked.Selector, changed bool) {
	sel.Issuer = iss.Issuer
	switch {
	case m.HasGrants && m.GrantID != "":
		sel.GrantID = m.GrantID
		changed = a.denyFamily(revoked.DenyGrant, iss, m.GrantID, actor.ID, reason)
		if g, row := a.grant(m.GrantID); row != nil && g.Issuer == iss.Issuer && g.Revoked == nil {
			a.endGrant(&g, row, revoked.Revocation{At: a.Stamp, By: actor.ID, Reason: reason, Index: a.Index})
		}
	case !m.HasGrants && iss.RevokeSession && m.Session != "":
		sel.Session = m.Session
		changed = a.denyFamily(revoked.DenySession, iss, m.Session, actor.ID, reason)
	}
	return sel, changed
}

// jwtEvent adds the event of a JWT that ended. Each digest comes with the audience of its claims,
// so that a resource server knows whether it is concerned.
func (a *Applier) jwtEvent(actor *revoked.Client, j *revoked.JWT, sel revoked.Selector, reason string) {
	e := revoked.Event{Kind: revoked.EventJWT, Selector: sel, JTI: j.JTI, Actor: actor.ID, Reason: reason}
	for i := range j.Digests {
		e.Digests, e.Audiences = append(e.Digests, j.Digests[i]), append(e.Audiences, j.Audience)
	}
	a.event(e)
}
