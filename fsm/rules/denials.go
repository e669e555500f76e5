package rules

import (
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// DenialQuota is the number of denials that a client without the role of an administrator may have
// at a time. It limits the rows that one client can add to the state. A denial of a session may
// stay for cutoff_retention, so the quota is large.
const DenialQuota = 10_000_000

// jwtEnd returns the time at which j has expired according to every clock.
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

// denyJTI denies a jti of an issuer, and reports whether it wrote the denial. If j has no expiry,
// each repeated revocation would extend the denial a little. So denyJTI then writes only if it
// extends the denial by more than a sixteenth of the lifetime.
func (a *Applier) denyJTI(iss *revoked.Issuer, j *revoked.JWT, by, reason string) bool {
	var renew time.Duration
	if j.ExpiresAt == 0 {
		renew = a.jwtLifetime(iss) / 16
	}
	return a.deny(revoked.DenialKey(revoked.DenyJTI, iss.Issuer, j.JTI), a.jwtEnd(iss, j), renew, by, reason)
}

// denyDigests denies the digests of the encodings of a JWT, and reports whether it wrote a denial.
func (a *Applier) denyDigests(iss *revoked.Issuer, j *revoked.JWT, by, reason string) (changed bool) {
	for i := range j.Digests {
		if a.denyDigest(j.Digests[i], a.jwtEnd(iss, j), by, reason) {
			changed = true
		}
	}
	return changed
}

// denyDigest denies the digest of a token, whatever the configuration of its issuer. It reports
// whether it wrote the denial.
func (a *Applier) denyDigest(d revoked.Digest, until revoked.Time, by, reason string) bool {
	if !a.deny(revoked.DenialKey(revoked.DenyDigest, "", string(d[:])), until, 0, by, reason) {
		return false
	}
	a.tokensChanged = append(a.tokensChanged, d)
	return true
}

// denyFamily denies a grant or a session, including the tokens that the issuer adds to it later.
// The denial lasts for at least cutoff_retention, because a refresh may add tokens long after the
// newest known one. A repeated revocation extends the denial only by more than a sixteenth of that
// time, or if a newer token may outlive it.
func (a *Applier) denyFamily(kind revoked.DenialKind, iss *revoked.Issuer, value, by, reason string) bool {
	life := a.jwtLifetime(iss)
	keep := max(a.currentSettings().CutoffRetention, life)
	return a.deny(revoked.DenialKey(kind, iss.Issuer, value), a.Stamp.Add(keep), min(keep/16, keep-life), by, reason)
}

// denyToken denies a registered token that is being ended. Its registration may name an earlier
// expiry than the JWT, and then its rows are removed before the JWT expires. If withDigest is set,
// denyToken also denies the digest. The tokens of a revoked grant do not need withDigest, because
// their stubs stay long enough.
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

// denyGrantOf denies the JWTs that claim to belong to the registered grant g, which is being
// revoked.
func (a *Applier) denyGrantOf(g *revoked.Grant, r *revoked.Revocation) {
	if iss := a.issuerOf(g.Issuer); g.Issuer != "" && iss != nil && iss.HasGrants() {
		a.denyFamily(revoked.DenyGrant, &iss.Issuer, g.ID, r.By, r.Reason)
	}
}

// deny writes the denial with that key, and reports whether it wrote one. It does not if until has
// passed. A repeated revocation extends the denial, unless the extension is at most renew. A denial
// that was written for a shorter lifetime than the new one is extended by any amount.
func (a *Applier) deny(id revoked.Digest, until revoked.Time, renew time.Duration, by, reason string) bool {
	if until <= a.Stamp {
		return false
	}
	v, row := a.denial(id)
	if row != nil && v.Until.Sub(v.At) < until.Sub(a.Stamp) {
		renew = 0 // the earlier revocation named a shorter lifetime
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
	if row != nil && a.keepsHistory() {
		v.First = v.Began()
	}
	v.Denial = revoked.Denial{Until: until, At: a.Stamp, By: by, Reason: reason, Index: a.Index}
	a.put(key, row, rows.Append(nil, &v))
	a.tokensChanged = append(a.tokensChanged, id)
	return true
}

// denial returns the denial with that key. row is nil if the state has no such denial.
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

// deniedBefore returns the denial of a token that is about to be registered in g, or nil. The
// registration of a revoked JWT must not make the JWT active again.
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

// expireDenial drops a denial once all tokens that it revokes have expired. A registered token with
// the denied jti may expire later. Then expireDenial first revokes the grant of the token, which
// may extend this and other denials. expireDenial returns the number of touched rows.
func (a *Applier) expireDenial(id revoked.Digest, due revoked.Time) (touched int) {
	v, row := a.denial(id)
	if row != nil && v.Until > due { // this command has extended it
		return 1
	}
	if row == nil || v.Until != due {
		a.fail(errStray("denial", id.Prefix()))
		return 1
	}
	key := rows.DigestKey(nil, rows.FamilyDenial, id)
	touched = 1
	if a.endsByJTI() {
		ended, more := a.endJTI(id, revoked.Revocation{At: a.Stamp, By: v.By, Reason: v.Reason, Index: a.Index}, true)
		touched += ended * rows.InlineTokens
		v, row = a.denial(id)
		if more && v.Until == due {
			v.Until = a.Stamp.Add(denialExtension)
			a.requeue(key, due, v.Until)
			a.put(key, row, rows.Append(nil, &v))
		}
		if v.Until > due {
			return touched
		}
	}
	a.requeue(key, due, 0)
	a.reaped, a.undenied = true, !a.endsByJTI()
	a.del(key, row)
	a.countDenial(v.By, -1)
	a.tokensChanged = append(a.tokensChanged, id)
	return touched
}

// denialsOf returns the number of denials that count against the quota of a client, including the
// changes of the unit.
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
	case v.Count > 0: // the count is 0 if the denial is older than this row
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

// AssertionQuota is the maximum number of used assertions of one client in the state. A client at
// the quota gets ErrQuota until its oldest use expires. The state never drops a use before that.
const AssertionQuota = 100_000

// Durations for the row of an assertion whose request has many operations. Once the row ends in
// less than assertionRenew, an operation moves its end to assertionExtension from now. So the
// request may last longer than its assertion.
const (
	assertionExtension = time.Hour
	assertionRenew     = 30 * time.Minute
)

// useAssertion records the use of the assertion that authenticated the actor, in the entry of the
// operation. It returns ErrReplayed if another request has used the assertion, or if the record of
// such a use may already have expired. So at most one request succeeds, whichever nodes receive the
// requests. A refused operation uses the assertion up as well.
func (a *Applier) useAssertion(by *command.Actor) error {
	use := by.Actor().Assertion
	if use == nil {
		return nil
	}
	key := rows.DigestKey(nil, rows.FamilyAssertion, use.Key)
	row := a.get(key)
	if row == nil {
		due := use.ExpiresAt.Add(revoked.MaxAssertionSkew)
		switch {
		case due <= a.Stamp:
			return fmt.Errorf("%w: assertion expired; a record of its use may have been deleted", revoked.ErrReplayed)
		case a.mem.Assertions[by.ClientId]+a.assertions[by.ClientId] >= a.AssertionQuota:
			return fmt.Errorf("%w: client %q: %d used assertions that have not expired",
				revoked.ErrQuota, by.ClientId, a.AssertionQuota)
		}
		put(&a.assertions, by.ClientId, a.assertions[by.ClientId]+1)
		a.putAssertion(key, nil, &rows.Assertion{ClientID: by.ClientId, Request: use.Request}, due)
		return nil
	}
	var v rows.Assertion
	if err := rows.Parse(key, row, &v); err != nil {
		a.fail(err)
	}
	if v.Request != use.Request {
		return revoked.ErrReplayed
	}
	if now := a.Stamp; v.Due.Sub(now) < assertionRenew && use.ExpiresAt < now {
		a.putAssertion(key, row, &v, now.Add(assertionExtension))
	}
	return nil
}

// putAssertion writes v and moves its queue entry to due. The audit log does not count this as a
// change by the operation, but a dry run does, so the leader proposes the operation.
func (a *Applier) putAssertion(key, old []byte, v *rows.Assertion, due revoked.Time) {
	dirty := a.dirty
	a.requeue(key, v.Due, due)
	v.Due = due
	a.put(key, old, rows.Append(nil, v))
	a.dirty = dirty || a.dry
}

// expireAssertion drops the use of an assertion that every node would now reject as expired.
func (a *Applier) expireAssertion(id revoked.Digest, due revoked.Time) {
	key := rows.DigestKey(nil, rows.FamilyAssertion, id)
	row := a.get(key)
	var v rows.Assertion
	if row != nil {
		if err := rows.Parse(key, row, &v); err != nil {
			a.fail(err)
		}
	}
	if row == nil || v.Due != due {
		a.fail(errStray("assertion", id.Prefix()))
		return
	}
	a.requeue(key, due, 0)
	a.del(key, row)
	put(&a.assertions, v.ClientID, a.assertions[v.ClientID]-1)
}
