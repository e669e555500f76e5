package rules

import (
	"fmt"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// tombstoneQuota is the number of tombstone bindings that one client may have at a time. It limits
// the rows that a client can add by revoking random values.
const tombstoneQuota = 10_000

// revoke revokes the grant of a token, whatever the state of the token. For an unknown token it
// writes a tombstone. A foreign token that is still active is an error (RFC 7009 section 2.1). A
// foreign token that is inactive is a success, like every invalid token (section 2.2).
func (a *Applier) revoke(actor *revoked.Client, m *command.Revoke) Result {
	t, row := a.token(revoked.Digest(m.Digest))
	if row == nil {
		return a.addTombstone(actor, m)
	}
	g, grantRow := a.grant(t.GrantID)
	if grantRow == nil {
		a.fail(errOrphan(&t))
		return Result{}
	}
	if g.ClientID != actor.ID && !actor.Has(revoked.RoleAdmin) {
		if a.isActive(&g.Grant, &t) {
			return Result{Err: fmt.Errorf("%w: %s", revoked.ErrForeignToken, t.Digest.Prefix())}
		}
		return Result{}
	}
	if g.Revoked == nil {
		a.endGrant(&g, grantRow, revoked.Revocation{At: a.Stamp, By: actor.ID, Reason: m.Reason, Index: a.Index})
	}
	return Result{}
}

// isActive reports whether a node may still return the token as active, as of the stamp of the log.
func (a *Applier) isActive(g *revoked.Grant, t *revoked.Token) bool {
	return t.State == revoked.Live && g.Revoked == nil && a.findCutoff(g, t, 0) == nil && !a.isDeniedJTI(g, t) &&
		(t.ExpiresAt == 0 || t.ExpiresAt > a.Stamp)
}

// deleteGrant revokes a grant by its id. An issuer may revoke only the grants that it registered.
// Otherwise it could log out the subjects of another issuer.
func (a *Applier) deleteGrant(actor *revoked.Client, m *command.DeleteGrant) Result {
	g, row := a.grant(m.GrantId)
	if row == nil {
		return Result{Err: fmt.Errorf("%w: grant %q", revoked.ErrNotFound, m.GrantId)}
	}
	if !actor.Has(revoked.RoleAdmin) && (!actor.Has(revoked.RoleIssuer) || g.RegisteredBy != actor.ID) {
		return Result{Err: fmt.Errorf("%w: grant %q was registered by another client", revoked.ErrForbidden, m.GrantId)}
	}
	if g.Revoked == nil {
		a.endGrant(&g, row, revoked.Revocation{At: a.Stamp, By: actor.ID, Reason: m.Reason, Index: a.Index})
	}
	return Result{}
}

// endGrant sets the revocation of g and replaces its inline tokens with stubs. The revocation also
// revokes the overflow tokens; Compact replaces their rows later. A dry run stops at the first
// write, because it only sets dirty.
func (a *Applier) endGrant(g *rows.Grant, row []byte, r revoked.Revocation) {
	if a.dry {
		a.dirty = true
		return
	}
	g.Revoked = &r
	a.endedGrant = g.ID
	if a.keepsHistory() && r.Index != a.Index {
		g.Ended = revoked.Moment{At: a.Stamp, Index: a.Index}
	}
	a.Grants--
	ev := a.endedTokens(&g.Grant, r.By, r.Reason)
	for _, d := range g.Tokens {
		if t, tokenRow := a.token(d); tokenRow != nil && t.State == revoked.Live {
			ev.add(d, t.Audience)
			a.denyToken(&g.Grant, &t, r.By, r.Reason, false)
			a.toStub(&t, tokenRow, revoked.Revoked)
		}
	}
	a.denyGrantOf(&g.Grant, &r)
	a.event(ev.event) // needed even without digests; add has not sent it, because it has at most InlineTokens
	if g.Overflows() {
		a.putCursor(g.ID, []byte{})
	}
	// An earlier queue entry remains until Expire moves it: this saves two writes here.
	due := a.revokedDue(&g.Grant)
	if g.Due != 0 {
		due = min(due, g.Due)
	}
	a.putGrant(row, g, due)
}

// overDue returns the time at which a grant that is not revoked may be dropped. By then its last
// token has expired according to every clock. 0 means never.
func (a *Applier) overDue(g *revoked.Grant) revoked.Time {
	if g.LatestExpiry == revoked.MaxTime {
		return 0
	}
	return g.LatestExpiry.Add(a.currentSettings().MaxClockSkew)
}

// revokedDue returns the time at which a revoked grant may be dropped. By then its tokens have
// expired according to every clock, and the window for late registrations has ended. Every JWT that
// existed at the revocation has expired too. This matters because a registration may have named an
// earlier expiry than the JWT.
func (a *Applier) revokedDue(g *revoked.Grant) revoked.Time {
	s := a.currentSettings()
	due := g.Revoked.At.Add(max(s.LateRegistrationWindow+s.MaxClockSkew, a.longestJWT()))
	if g.LatestExpiry == revoked.MaxTime {
		return max(due, g.Revoked.At.Add(s.CutoffRetention))
	}
	return max(due, g.LatestExpiry.Add(s.MaxClockSkew))
}

// addTombstone records the revocation of an unknown token. The tombstone revokes registrations for
// the client that revoked the token, or for any client if an administrator revoked it. A tombstone
// lasts for two windows for late registrations, and a repeated revocation renews it after half a
// window. So each successful revocation is effective for at least one whole window. A tombstone
// also outlasts every JWT that exists now: the key that verifies the token may be published later.
func (a *Applier) addTombstone(actor *revoked.Client, m *command.Revoke) Result {
	d, client := revoked.Digest(m.Digest), actor.ID
	if actor.Has(revoked.RoleAdmin) {
		client = ""
	}
	window, longest := a.currentSettings().LateRegistrationWindow, a.longestJWT()
	until := a.Stamp.Add(max(2*window, longest))
	isFresh := func(b *rows.Binding) bool { // Until covers a JWT that existed at b.At
		return b != nil && b.Until.Sub(a.Stamp) >= window+window/2 && b.Until.Sub(b.At) >= longest
	}

	t, row := a.tombstone(d)
	if b := t.BindingTo(client); isFresh(b) {
		return Result{Unknown: true}
	} else if b != nil {
		b.Until = until
	} else {
		if isFresh(t.Binds(client)) { // an administrator's tombstone
			return Result{Unknown: true}
		}
		if a.tombstonesOf(actor.ID) >= tombstoneQuota {
			return Result{Err: fmt.Errorf("%w: client %q: %d outstanding revocations of unknown tokens",
				revoked.ErrQuota, actor.ID, tombstoneQuota)}
		}
		a.countTombstone(actor.ID, 1)
		t.Bindings = append(t.Bindings, rows.Binding{
			ClientID: client, By: actor.ID, At: a.Stamp, Until: until, Index: a.Index, Reason: m.Reason,
		})
		a.event(revoked.Event{
			Kind: revoked.EventToken, Digests: []revoked.Digest{d}, Audiences: [][]string{nil},
			Selector: revoked.Selector{ClientID: client}, Actor: actor.ID, Reason: m.Reason,
		})
	}
	a.putTombstone(d, row, &t, max(t.Due, until))
	return Result{Unknown: true}
}

// takeTombstone returns the binding in the tombstone of d that revokes a registration for client,
// or nil. If there is a binding, it deletes the tombstone, because the grant then records the
// revocation.
func (a *Applier) takeTombstone(d revoked.Digest, client string) *rows.Binding {
	if a.Tombstones == 0 {
		return nil
	}
	t, row := a.tombstone(d)
	b := t.Binds(client)
	if b != nil {
		a.deleteTombstone(d, row, &t)
	}
	return b
}

// maxEventDigests is the largest number of digests in one event.
const maxEventDigests = 256

// endedTokens collects the ended tokens of one grant for the feed.
type endedTokens struct {
	a     *Applier
	event revoked.Event
	ended revoked.Moment // entry that ended the tokens; zero: the current one
}

// endedTokens returns an empty event for tokens of g. by is the actor that ended them.
func (a *Applier) endedTokens(g *revoked.Grant, by, reason string) *endedTokens {
	return &endedTokens{a: a, event: revoked.Event{
		Kind: revoked.EventGrant, Selector: revoked.Selector{GrantID: g.ID}, Actor: by, Reason: reason,
	}}
}

// add adds a token and sends the event if it is full.
func (d *endedTokens) add(digest revoked.Digest, audience []string) {
	d.event.Digests = append(d.event.Digests, digest)
	d.event.Audiences = append(d.event.Audiences, audience)
	if len(d.event.Digests) == maxEventDigests {
		d.send()
	}
}

// send appends the event to the feed unless it has no tokens.
func (d *endedTokens) send() {
	if len(d.event.Digests) > 0 {
		d.a.event(d.event)
		d.event.Digests, d.event.Audiences = nil, nil
	}
}

// issuerEvent adds an event for an issuer. Resource servers that read it drop their cached results
// for tokens of that issuer, which may have changed.
func (a *Applier) issuerEvent(by string, i *revoked.Issuer, action, reason string) {
	a.event(revoked.Event{
		Kind: revoked.EventIssuer, Selector: revoked.Selector{Issuer: i.Issuer}, Action: action, Actor: by, Reason: reason,
	})
}
