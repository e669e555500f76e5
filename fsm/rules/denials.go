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

// DenialQuota is the number of denials that a client without the role of an administrator may have
// at a time. It bounds what one client adds to the state. A denial of a session may stay for
// cutoff_retention, so the quota is large.
const DenialQuota = 10_000_000

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
	switch {
	case actor.Has(revoked.RoleAdmin):
	case !actor.Has(revoked.RoleIssuer) || !slices.Contains(actor.Issuers, iss.Issuer):
		return Result{Err: fmt.Errorf("%w: client %q is neither an administrator nor an issuer whose issuers name %q",
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
// so that a resource server can tell whether it is concerned.
func (a *Applier) jwtEvent(actor *revoked.Client, j *revoked.JWT, sel revoked.Selector, reason string) {
	e := revoked.Event{Kind: revoked.EventJWT, Selector: sel, JTI: j.JTI, Actor: actor.ID, Reason: reason}
	for i := range j.Digests {
		e.Digests, e.Audiences = append(e.Digests, j.Digests[i]), append(e.Audiences, j.Audience)
	}
	a.event(e)
}

// jwtEnd returns the time at which j is over by every clock. Without an expiry, it is that of the
// longest token that exists. A token that a node has verified may be dated ahead of its revocation.
// So its own expiry counts, unless no record lets it be active for so long.
func (a *Applier) jwtEnd(iss *revoked.Issuer, j *revoked.JWT) revoked.Time {
	end := a.Stamp.Add(a.jwtLifetime(iss))
	if len(j.Digests) > 0 {
		end = max(a.Stamp, j.IssuedAt).Add(a.longestLifetime())
	}
	if j.ExpiresAt != 0 {
		end = min(end, j.ExpiresAt.Add(iss.ClockSkew+a.currentSettings().MaxClockSkew))
	}
	return end
}

// denyJTI denies a jti of an issuer. Without an expiry each repeat would move the end of the denial
// a little. So a repeat writes only if it adds a sixteenth of a lifetime.
func (a *Applier) denyJTI(iss *revoked.Issuer, j *revoked.JWT, by, reason string) bool {
	var renew time.Duration
	if j.ExpiresAt == 0 {
		renew = a.jwtLifetime(iss) / 16
	}
	return a.deny(revoked.DenialKey(revoked.DenyJTI, iss.Issuer, j.JTI), a.jwtEnd(iss, j), renew, by, reason)
}

// denyDigests denies the encodings under which a JWT was presented, and reports whether it wrote.
func (a *Applier) denyDigests(iss *revoked.Issuer, j *revoked.JWT, by, reason string) (changed bool) {
	for i := range j.Digests {
		if a.denyDigest(j.Digests[i], a.jwtEnd(iss, j), by, reason) {
			changed = true
		}
	}
	return changed
}

// denyDigest denies a token, however its issuer is configured.
func (a *Applier) denyDigest(d revoked.Digest, until revoked.Time, by, reason string) bool {
	if !a.deny(revoked.DenialKey(revoked.DenyDigest, "", string(d[:])), until, 0, by, reason) {
		return false
	}
	a.tokensChanged = append(a.tokensChanged, d)
	return true
}

// denyFamily denies a grant or a session: also the tokens that the issuer still adds to it. It
// lasts for at least cutoff_retention, because a refresh may add tokens long after the newest known
// one. A repeat leaves at least the lifetime of a token that was added meanwhile.
func (a *Applier) denyFamily(kind revoked.DenialKind, iss *revoked.Issuer, value, by, reason string) bool {
	life := a.jwtLifetime(iss)
	keep := max(a.currentSettings().CutoffRetention, life)
	return a.deny(revoked.DenialKey(kind, iss.Issuer, value), a.Stamp.Add(keep), min(keep/16, keep-life), by, reason)
}

// denyToken denies a registered token that ends: its registration may have named an earlier expiry
// than the JWT does, and its rows then go first. A revoked grant keeps the stubs of its tokens long
// enough. Other tokens need withDigest.
func (a *Applier) denyToken(g *revoked.Grant, t *revoked.Token, by, reason string, withDigest bool) {
	longest := a.longestJWT()
	if longest == 0 {
		return
	}
	if iss := a.issuerOf(g.Issuer); iss != nil && t.JTI != "" && iss.JTI {
		a.denyJTI(&iss.Issuer, &revoked.JWT{JTI: t.JTI}, by, reason)
	}
	if withDigest {
		a.denyDigest(t.Digest, a.Stamp.Add(longest), by, reason)
	}
}

// denyGrantOf denies the JWTs that claim to be of the registered grant g, which ends.
func (a *Applier) denyGrantOf(g *revoked.Grant, r *revoked.Revocation) {
	if iss := a.issuerOf(g.Issuer); g.Issuer != "" && iss != nil && iss.HasGrants() {
		a.denyFamily(revoked.DenyGrant, &iss.Issuer, g.ID, r.By, r.Reason)
	}
}

// deny writes the denial with that key. A repeat extends it, unless that would add no more than
// renew and the denial was made to last as long as this one. It reports whether it wrote.
func (a *Applier) deny(id revoked.Digest, until revoked.Time, renew time.Duration, by, reason string) bool {
	if until <= a.Stamp {
		return false
	}
	v, row := a.denial(id)
	if row != nil && v.Until.Sub(v.At) < until.Sub(a.Stamp) {
		renew = 0 // it had the end of a token that was named with another expiry
	}
	if row != nil && v.Until.Add(renew) >= until {
		return false
	}
	key := rows.DigestKey(nil, rows.FamilyDenial, id)
	a.requeue(key, v.Until, until)
	if row != nil {
		a.countDenial(v.By, -1)
	}
	a.countDenial(by, 1)
	v.Denial = revoked.Denial{Until: until, At: a.Stamp, By: by, Reason: reason, Index: a.Index}
	a.put(key, row, rows.Append(nil, &v))
	a.tokensChanged = append(a.tokensChanged, id)
	return true
}

// denial returns the denial with that key. row is nil if there is none.
func (a *access) denial(id revoked.Digest) (v rows.Denial, row []byte) {
	key := rows.DigestKey(nil, rows.FamilyDenial, id)
	if row = a.get(key); row != nil {
		if err := rows.Parse(key, row, &v); err != nil {
			a.fail(err)
		}
	}
	return v, row
}

// isDeniedJTI reports whether the jti of a registered token is denied.
func (a *access) isDeniedJTI(g *revoked.Grant, t *revoked.Token) bool {
	if t.JTI == "" || g.Issuer == "" || a.issuerOf(g.Issuer) == nil {
		return false
	}
	_, row := a.denial(revoked.DenialKey(revoked.DenyJTI, g.Issuer, t.JTI))
	return row != nil
}

// deniedBefore returns the denial of a token that is about to be registered in g, or nil. A JWT
// that was revoked must not become active by its registration.
func (a *access) deniedBefore(g *revoked.Grant, t *revoked.Token) *rows.Binding {
	if len(a.mem.Issuers) == 0 && len(a.issuers) == 0 {
		return nil
	}
	keys := []revoked.Digest{revoked.DenialKey(revoked.DenyDigest, "", string(t.Digest[:]))}
	if g.Issuer != "" && a.issuerOf(g.Issuer) != nil {
		keys = append(keys, revoked.DenialKey(revoked.DenyGrant, g.Issuer, g.ID))
		if t.JTI != "" {
			keys = append(keys, revoked.DenialKey(revoked.DenyJTI, g.Issuer, t.JTI))
		}
	}
	for _, id := range keys {
		if v, row := a.denial(id); row != nil {
			return &rows.Binding{By: v.By, At: v.At, Until: v.Until, Index: v.Index, Reason: v.Reason}
		}
	}
	return nil
}

// expireDenial drops a denial: the tokens that it ends are over.
func (a *Applier) expireDenial(id revoked.Digest, due revoked.Time) int {
	v, row := a.denial(id)
	if row == nil || v.Until != due {
		a.fail(errStray("denial", id.Prefix()))
		return 1
	}
	key := rows.DigestKey(nil, rows.FamilyDenial, id)
	a.requeue(key, due, 0)
	a.del(key, row)
	a.countDenial(v.By, -1)
	a.tokensChanged = append(a.tokensChanged, id)
	return 1
}

// denialsOf returns the number of denials that count against the quota of a client, as the unit
// sees it.
func (a *access) denialsOf(client string) uint64 {
	if n, ok := a.denials[client]; ok {
		return n
	}
	return a.mem.Denials[client]
}

// countDenial adds n, 1 or -1, to the number of denials of a client.
func (a *access) countDenial(client string, n int) {
	v := rows.Denials{Count: a.denialsOf(client)}
	switch {
	case n > 0:
		v.Count++
	case v.Count > 0: // else the denial is older than this row
		v.Count--
	}
	put(&a.denials, client, v.Count)
	key := rows.Key(nil, rows.FamilyDenials, client)
	if old := a.get(key); v.Count == 0 {
		a.del(key, old)
	} else {
		a.put(key, old, rows.Append(nil, &v))
	}
}
