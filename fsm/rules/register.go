package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// register adds tokens to a grant and creates the grant if it does not exist. It writes nothing
// unless every check passes.
func (a *Applier) register(actor *revoked.Client, m *command.Register) Result {
	if err := mayRegister(actor, m.Issuer); err != nil {
		return Result{Err: err}
	}
	if a.client(m.ClientId) == nil {
		return Result{Err: fmt.Errorf("%w: %q", revoked.ErrUnknownClient, m.ClientId)}
	}
	g, row := a.grant(m.GrantId)
	if row != nil {
		if err := a.mayJoin(actor, &g, m); err != nil {
			return Result{Err: err}
		}
	}
	fresh, known, err := a.splitKnown(m)
	if err != nil {
		return Result{Err: err}
	}
	if len(fresh) == 0 {
		return a.registerKnown(actor, m, known)
	}
	if n := g.TokenCount + len(fresh); n > revoked.MaxGrantTokens {
		return Result{Err: fmt.Errorf("%w: grant %q: got %d tokens, want at most %d",
			revoked.ErrGrantFull, m.GrantId, n, revoked.MaxGrantTokens)}
	}
	if row == nil {
		g.Grant = revoked.Grant{
			ID: m.GrantId, ClientID: m.ClientId, Subject: m.Subject, Session: m.Session, Issuer: m.Issuer,
			RegisteredBy: actor.ID, CreatedAt: a.Stamp, CreatedIndex: a.Index,
		}
	}
	refresh, wasRevoked := g.LiveRefresh, g.Revoked != nil
	ended := a.addTokens(&g, row, fresh, m.Audience)
	for _, t := range known {
		ended = ended || a.isEnded(&g.Grant, &t)
	}
	rotated := !refresh.IsZero() && g.LiveRefresh != refresh
	return Result{
		Ended: row != nil && (rotated || !wasRevoked && g.Revoked != nil),
		Register: revoked.RegisterResult{
			GrantID: g.ID, Index: a.Index, Created: true, Revoked: ended || g.Revoked != nil,
		},
	}
}

// mayRegister returns ErrForbidden unless actor may register tokens of issuer.
func mayRegister(actor *revoked.Client, issuer string) error {
	switch err := actor.Require(revoked.RoleAdmin, revoked.RoleIssuer); {
	case err != nil:
		return err
	case actor.Has(revoked.RoleAdmin):
		return nil
	}
	if len(actor.Issuers) > 0 && !slices.Contains(actor.Issuers, issuer) {
		return fmt.Errorf("%w: client %q may not register tokens of issuer %q", revoked.ErrForbidden, actor.ID, issuer)
	}
	return nil
}

// errTaken is the only ErrConflict that a registration returns. It does not name the property that
// differs, so an issuer cannot learn the client or the subject of a grant by guessing.
var errTaken = fmt.Errorf("%w: the grant or a token is already registered with other properties or by "+
	"another caller; use another grant_id and other tokens", revoked.ErrConflict)

// mayJoin returns errTaken unless actor may add the tokens of m to g. Empty fields in m match any
// value.
func (a *Applier) mayJoin(actor *revoked.Client, g *rows.Grant, m *command.Register) error {
	same := func(got, want string) bool { return got == "" || got == want }
	if g.ClientID == m.ClientId && same(m.Subject, g.Subject) && same(m.Session, g.Session) &&
		same(m.Issuer, g.Issuer) && a.mayExtend(actor, &g.Grant) {
		return nil
	}
	return errTaken
}

// mayExtend reports whether actor may add tokens to g and learn that a token belongs to g. It is
// true for an administrator, for a client that is bound to the issuer of g, and for the unbound
// client that registered g.
func (a *Applier) mayExtend(actor *revoked.Client, g *revoked.Grant) bool {
	if mayRegister(actor, g.Issuer) != nil {
		return false
	}
	return a.rules < command.RegisterRules || g.RegisteredBy == actor.ID || len(actor.Issuers) > 0 ||
		actor.Has(revoked.RoleAdmin)
}

// splitKnown separates the tokens of a registration that are new from those in the state. If any
// token is new, the known ones must belong to the grant of the registration. Otherwise a caller
// could combine the tokens of two grants, and learn the owner of each.
func (a *Applier) splitKnown(m *command.Register) (fresh, known []revoked.Token, err error) {
	for _, spec := range m.Tokens {
		d := revoked.Digest(spec.Digest)
		if t, row := a.token(d); row != nil {
			known = append(known, t)
			continue
		}
		if err := a.checkIssuedAt(spec); err != nil {
			return nil, nil, err
		}
		t := revoked.Token{
			Digest: d, Kind: revoked.TokenKind(spec.Kind), State: revoked.Live, GrantID: m.GrantId,
			IssuedAt: revoked.Time(spec.IssuedAt), ExpiresAt: revoked.Time(spec.ExpiresAt),
			NotBefore: revoked.Time(spec.NotBefore), Scope: m.Scope, Username: m.Username, Audience: m.Audience,
			JTI: spec.Jti, CNF: spec.Cnf,
		}
		switch {
		case t.ExpiresAt != 0 && t.ExpiresAt <= a.Stamp:
			return nil, nil, fmt.Errorf("%w: token %s has expired", revoked.ErrInvalid, d.Prefix())
		case t.IssuedAt == 0:
			t.IssuedAt = a.Stamp
		case t.IssuedAt > a.Stamp:
			t.RegisteredAt = a.Stamp
		}
		if a.keepsHistory() {
			t.RegisteredAt, t.RegisteredIndex = a.Stamp, a.Index
		}
		if fresh == nil {
			fresh = make([]revoked.Token, 0, len(m.Tokens))
		}
		fresh = append(fresh, t)
	}
	for i := range known {
		if len(fresh) > 0 && known[i].GrantID != m.GrantId {
			return nil, nil, errTaken
		}
	}
	return fresh, known, nil
}

// checkIssuedAt returns ErrUnprocessable for a new token with an unsafe issued_at. A refresh token
// issued in the future would make every refresh token issued before that time count as rotated.
// Without issued_at, a token that was revoked before a restore or a recovery would count as issued
// after it.
func (a *Applier) checkIssuedAt(spec *command.TokenSpec) error {
	if a.rules < command.RegisterRules {
		return nil
	}
	skew := a.currentSettings().MaxClockSkew
	if revoked.TokenKind(spec.Kind) == revoked.RefreshToken && revoked.Time(spec.IssuedAt) > a.Stamp.Add(skew) {
		return fmt.Errorf("%w: refresh_token: issued_at is more than max_clock_skew (%s) in the future",
			revoked.ErrUnprocessable, revoked.FormatDuration(skew))
	}
	if c := a.wholeCutoff(); c != nil && spec.IssuedAt == 0 {
		return fmt.Errorf("%w: issued_at is missing: every token needs it since the restore or recovery at %s",
			revoked.ErrUnprocessable, c.IssuedBefore.Std().Format(time.RFC3339))
	}
	return nil
}

// registerKnown returns the result of a registration whose tokens are all in the state. If they
// belong to the client of the registration, nothing changes and the result names the grant of the
// first token.
func (a *Applier) registerKnown(actor *revoked.Client, m *command.Register, known []revoked.Token) Result {
	ended, rotated := false, false
	for i := range known {
		t := &known[i]
		g, row := a.grant(t.GrantID)
		if row == nil {
			a.fail(errOrphan(t))
			return Result{}
		}
		if g.ClientID != m.ClientId || !a.mayExtend(actor, &g.Grant) {
			return Result{Err: errTaken}
		}
		ended = ended || g.Revoked != nil || a.isEnded(&g.Grant, t)
		rotated = rotated || t.Kind == revoked.RefreshToken && g.TokenCount > len(known)
	}
	// The first registration may have invalidated an older token before its response was lost. So the
	// response to a retry must also wait for all members.
	return Result{Ended: ended || rotated, Register: revoked.RegisterResult{
		GrantID: known[0].GrantID, Index: a.Index, Revoked: ended,
	}}
}

// isEnded reports whether a token of g was revoked, was cut off, or has a denied jti.
func (a *Applier) isEnded(g *revoked.Grant, t *revoked.Token) bool {
	return t.State == revoked.Revoked || (t.State == revoked.Live && (a.findCutoff(g, t, 0) != nil || a.isDeniedJTI(g, t)))
}

// addTokens writes fresh tokens into g and reports whether any of them is already revoked.
//
// It decides on all tokens before it writes the first one. A later refresh token of the same
// registration may rotate an earlier one, and one tombstone revokes the whole grant.
func (a *Applier) addTokens(g *rows.Grant, row []byte, fresh []revoked.Token, audience []string) (ended bool) {
	due := g.Due
	var tombstone *rows.Binding
	ev := a.endedTokens(&g.Grant, "", "")
	if g.Revoked != nil {
		ev.event.Actor, ev.event.Reason = g.Revoked.By, g.Revoked.Reason
	}
	for i := range fresh {
		t := &fresh[i]
		if g.LatestExpiry = max(g.LatestExpiry, t.ExpiresAt); t.ExpiresAt == 0 {
			g.LatestExpiry = revoked.MaxTime
		}
		if b := a.takeTombstone(t.Digest, g.ClientID); b != nil && tombstone == nil {
			tombstone = b
		}
		if tombstone == nil {
			tombstone = a.deniedBefore(&g.Grant, t)
		}
		if g.Revoked != nil || a.findCutoff(&g.Grant, t, 0) != nil {
			t.State, ended = revoked.Revoked, true
		} else if t.Kind == revoked.RefreshToken {
			a.rotate(g, t, fresh[:i])
		}
	}
	for i := range fresh {
		t := &fresh[i]
		if t.State == revoked.Live {
			a.Tokens++
		} else {
			a.recordEnd(t)
		}
		a.putToken(nil, t)
		a.indexJTI(g.Issuer, t)
		a.addMember(g, t, &due)
	}
	g.TokenCount += len(fresh)
	if row == nil {
		a.indexGrant(&g.Grant)
		a.Grants++
	}
	endedBy := rows.Binding{By: ev.event.Actor, Reason: ev.event.Reason}
	if tombstone != nil {
		endedBy = *tombstone
	}
	for i := range fresh {
		if fresh[i].State == revoked.Revoked {
			ev.add(fresh[i].Digest, audience)
		}
		if fresh[i].State == revoked.Revoked || tombstone != nil {
			a.denyToken(&g.Grant, &fresh[i], endedBy.By, endedBy.Reason, true)
		}
	}
	ev.send()
	if tombstone != nil && g.Revoked == nil {
		a.endGrant(g, row, revoked.Revocation{
			At: tombstone.At, By: tombstone.By, Reason: tombstone.Reason, Index: tombstone.Index,
		})
		return true
	}
	if g.Revoked != nil {
		due = a.revokedDue(&g.Grant)
	} else if due == 0 {
		due = a.overDue(&g.Grant)
	}
	a.putGrant(row, g, due)
	return ended
}

// rotate decides which refresh token of g is active: the one with the latest issued_at or, among
// equal ones, the one registered last. RefreshIat remains after the token that set it has expired.
// So the result does not depend on the order of registrations with different issued_at.
func (a *Applier) rotate(g *rows.Grant, t *revoked.Token, sameOp []revoked.Token) {
	if t.IssuedAt < g.RefreshIat {
		t.State = revoked.Rotated
		return
	}
	if !g.LiveRefresh.IsZero() {
		a.markRotated(g.LiveRefresh, sameOp)
	}
	g.LiveRefresh, g.RefreshIat = t.Digest, t.IssuedAt
}

// markRotated replaces a rotated refresh token with a stub. A token of sameOp is not written yet,
// so only its state changes.
func (a *Applier) markRotated(d revoked.Digest, sameOp []revoked.Token) {
	for i := range sameOp {
		if sameOp[i].Digest == d {
			sameOp[i].State = revoked.Rotated
			return
		}
	}
	if t, row := a.token(d); row != nil && t.State == revoked.Live {
		a.toStub(&t, row, revoked.Rotated)
	}
}

// addMember lists a new token in its grant: inline, or in a member row with a separate queue entry.
// If an inline token expires before *due, addMember sets *due to its expiry. The inline tokens
// share the queue entry of the grant.
func (a *Applier) addMember(g *rows.Grant, t *revoked.Token, due *revoked.Time) {
	exp := t.ExpiresAt
	if t.State != revoked.Live {
		exp = 0
	}
	if len(g.Tokens) < rows.InlineTokens {
		g.Tokens = append(g.Tokens, t.Digest)
		if exp != 0 && (*due == 0 || exp < *due) {
			*due = exp
		}
		return
	}
	a.put(rows.MemberKey(nil, g.ID, t.Digest), nil, rows.AppendMember(nil, exp))
	a.requeue(rows.DigestKey(nil, rows.FamilyToken, t.Digest), 0, exp)
}
