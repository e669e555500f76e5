package rules

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
)

// revokeJWT revokes a JWT of a trusted issuer.
//
// If one of its digests is registered, the rules for registered tokens apply first, because the
// registration may name another client. Any client may revoke a JWT that is already inactive, and
// gets success, as for every invalid token (RFC 7009 section 2.2).
func (a *Applier) revokeJWT(actor *revoked.Client, m *command.RevokeJWT) Result {
	iss, j := a.issuerOf(m.Issuer), m.JWT()
	if iss == nil || iss.DeletedAt != 0 && len(j.Digests) == 0 {
		return Result{Err: fmt.Errorf("%w: issuer %q is not trusted", revoked.ErrUnprocessable, m.Issuer)}
	}
	if len(j.Digests) == 0 {
		return a.denyUnseen(actor, &iss.Issuer, j, m.Reason)
	}
	if j.MappingVersion != iss.MappingVersion { // the node read the claims under another mapping
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
// revocation of a registered token adds its denials without this check, because the state already
// contains the token.
func (a *Applier) mayDeny(actor *revoked.Client, id revoked.Digest) error {
	if actor.Has(revoked.RoleAdmin) || a.denialsOf(actor.ID) < a.DenialQuota {
		return nil
	}
	if _, row := a.denial(id); row != nil { // a repeated revocation adds no row
		return nil
	}
	return fmt.Errorf("%w: client %q: limit of %d deny entries reached", revoked.ErrQuota, actor.ID, a.DenialQuota)
}

// ownsJWT reports whether actor may revoke j. The client ids of an issuer are those of this cluster
// only if its record has OwnClients: two issuers may both have a client "web".
func ownsJWT(actor *revoked.Client, iss *rows.Issuer, j *revoked.JWT) bool {
	return actor.Has(revoked.RoleAdmin) || iss.OwnClients && j.ClientID == actor.ID
}

// revokeRegistered revokes the grants of the digests that are registered. It returns an error if
// actor may not revoke one of them. found reports whether any digest is registered.
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

// denyUnseen denies a jti. The actor has not presented the token, so a client with the role issuer
// must be bound to the iss. If the issuer reuses jti, a denial would also revoke unrelated tokens.
func (a *Applier) denyUnseen(actor *revoked.Client, iss *revoked.Issuer, j *revoked.JWT, reason string) Result {
	switch err := actor.Require(revoked.RoleAdmin, revoked.RoleIssuer); {
	case err != nil:
		return Result{Err: err}
	case !actor.Has(revoked.RoleAdmin) && !slices.Contains(actor.Issuers, iss.Issuer):
		return Result{Err: fmt.Errorf("%w: client %q is not bound to issuer %q",
			revoked.ErrForbidden, actor.ID, iss.Issuer)}
	}
	if !iss.JTI {
		return Result{Err: fmt.Errorf("%w: issuer %q reuses jti: revoke the token itself",
			revoked.ErrUnprocessable, iss.Issuer)}
	}
	if err := a.mayDeny(actor, revoked.DenialKey(revoked.DenyJTI, iss.Issuer, j.JTI)); err != nil {
		return Result{Err: err}
	}
	if a.endUnseen(actor, iss, j, reason) {
		a.jwtEvent(actor, j, revoked.Selector{Issuer: iss.Issuer}, reason)
	}
	return Result{}
}

// maxJTITokens is the maximum number of registered tokens with one jti that an operation examines,
// and whose grants it revokes. Usually only one token has a jti, but registrations need not have
// distinct ones. The denial stays until the grants of the remaining tokens are revoked, too.
const maxJTITokens = 1024

// denialExtension is the time by which a denial is extended while registered grants with its jti
// remain.
const denialExtension = time.Minute

// endUnseen denies the jti of j and revokes the registered grants that have a token with this jti.
// It reports whether anything changed.
func (a *Applier) endUnseen(actor *revoked.Client, iss *revoked.Issuer, j *revoked.JWT, reason string) bool {
	ended := 0
	if a.endsByJTI() {
		ended, _ = a.endJTI(revoked.DenialKey(revoked.DenyJTI, iss.Issuer, j.JTI),
			revoked.Revocation{At: a.Stamp, By: actor.ID, Reason: reason, Index: a.Index}, false)
	}
	return a.denyJTI(iss, j, actor.ID, reason) || ended > 0
}

// endsByJTI reports whether the denial of a jti revokes registered grants. The command Expire has
// no field for rules, so endsByJTI also considers the highest version in the log.
func (a *Applier) endsByJTI() bool {
	return a.rules >= command.JTIRules || max(a.mem.Version.Commands, a.version.Commands) >= command.JTIRules
}

// endJTI revokes the registered grants that have a token of one jti. id is the key of the jti's
// denial. If live is set, endJTI considers only tokens in state Live; otherwise also expired and
// rotated ones. It examines at most maxJTITokens tokens. It returns the number of grants that it
// ended, and reports whether more tokens may exist.
func (a *Applier) endJTI(id revoked.Digest, r revoked.Revocation, live bool) (ended int, more bool) {
	tokens, more := a.withJTI(id)
	for i := range tokens {
		g, row := a.grant(tokens[i].GrantID)
		if row == nil {
			a.fail(errOrphan(&tokens[i]))
			return ended, false
		}
		if g.Revoked == nil && (!live || tokens[i].State == revoked.Live) {
			a.endGrant(&g, row, r)
			ended++
		}
	}
	return ended, more
}

// withJTI returns the registered tokens of one jti, except revoked ones, in the order of their
// digests and at most maxJTITokens. id is the key of the jti's denial. more reports whether others
// exist.
//
// A scan finds committed rows only, so withJTI adds the tokens of the unit and checks every token
// in the unit. The result therefore does not depend on which entries share a commit.
func (a *Applier) withJTI(id revoked.Digest) (tokens []revoked.Token, more bool) {
	a.keyBuf = rows.JTIPrefix(a.keyBuf[:0], id)
	if len(a.jtis[id]) == 0 && a.store.Lacks(a.keyBuf) {
		return nil, false
	}
	prefix := bytes.Clone(a.keyBuf)
	add := func(d revoked.Digest) {
		if t, row := a.token(d); row != nil && t.State != revoked.Revoked {
			tokens = append(tokens, t)
		}
	}
	err := a.store.Scan(prefix, prefix, func(key, _ []byte) (bool, error) {
		add(revoked.Digest(key[len(prefix):]))
		return len(tokens) <= maxJTITokens && a.err == nil, nil
	})
	if err != nil {
		a.fail(err)
	}
	for _, d := range a.jtis[id] {
		add(d)
	}
	slices.SortFunc(tokens, func(a, b revoked.Token) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	tokens = slices.CompactFunc(tokens, func(a, b revoked.Token) bool { return a.Digest == b.Digest })
	if len(tokens) > maxJTITokens {
		return tokens[:maxJTITokens], true
	}
	return tokens, false
}

// decideJWT evaluates j as of the stamp of the log. Introspection makes the same decision, but with
// the clock of the node in addition to the stamp.
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

// endJWT denies j. If the issuer uses grants or sessions, endJWT also denies the grant or the
// session of j. An expired token still revokes its grant or session, because the issuer may have
// refreshed the token.
func (a *Applier) endJWT(actor *revoked.Client, iss *revoked.Issuer, j *revoked.JWT, reason string) {
	changed := a.denyDigests(iss, j, actor.ID, reason)
	if iss.JTI && j.JTI != "" && a.endUnseen(actor, iss, j, reason) {
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

// endFamily revokes the grant or the session of a JWT under one mapping. It returns the selector of
// that grant or session, and reports whether it wrote a denial.
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

// jwtEvent adds the event of a revoked JWT. Each digest has the audience of the claims, so that a
// resource server can select the events about its tokens.
func (a *Applier) jwtEvent(actor *revoked.Client, j *revoked.JWT, sel revoked.Selector, reason string) {
	e := revoked.Event{Kind: revoked.EventJWT, Selector: sel, JTI: j.JTI, Actor: actor.ID, Reason: reason}
	for i := range j.Digests {
		e.Digests, e.Audiences = append(e.Digests, j.Digests[i]), append(e.Audiences, j.Audience)
	}
	a.event(e)
}
