package fsm

import (
	"fmt"

	"revoked"
	"revoked/internal/mutant"
)

// tombstoneQuota is how many live tombstones one client may leave.
const tombstoneQuota = 10_000

// revoke ends the grant of a token, whatever state the token is in; of an unknown token it leaves a
// tombstone.
func (t *tx) revoke(who *revoked.Client, m *Revoke) Result {
	tok, row := t.token(revoked.Digest(m.Digest))
	if row == nil {
		return t.buryUnknown(who, m)
	}
	g, grow := t.grant(tok.GrantID)
	if grow == nil {
		t.fail(fmt.Errorf("token %s has no grant %q", tok.Digest.Prefix(), tok.GrantID))
		return Result{}
	}
	if g.ClientID != who.ID && !who.Has(revoked.RoleAdmin) {
		if t.isLive(&g.Grant, &tok) {
			return Result{Err: fmt.Errorf("%w: %s", revoked.ErrForeignToken, tok.Digest.Prefix())}
		}
		return Result{}
	}
	if g.Revoked == nil {
		t.endGrant(&g, grow, revoked.Revocation{At: t.Stamp, By: who.ID, Reason: m.Reason, Index: t.Index})
	}
	return Result{}
}

// isLive reports whether some node may still call the token active, by the clock of the log.
func (t *tx) isLive(g *revoked.Grant, tok *revoked.Token) bool {
	return tok.State == revoked.Live && g.Revoked == nil && t.cutoff(g, tok) == nil &&
		(tok.ExpiresAt == 0 || tok.ExpiresAt > t.Stamp)
}

// deleteGrant ends a grant by its id.
func (t *tx) deleteGrant(who *revoked.Client, m *DeleteGrant) Result {
	g, row := t.grant(m.GrantId)
	if row == nil {
		return Result{Err: fmt.Errorf("%w: grant %q", revoked.ErrNotFound, m.GrantId)}
	}
	if !who.Has(revoked.RoleAdmin) && !(who.Has(revoked.RoleIssuer) && g.RegisteredBy == who.ID) {
		return Result{Err: fmt.Errorf("%w: grant %q was registered by another", revoked.ErrForbidden, m.GrantId)}
	}
	if g.Revoked == nil {
		t.endGrant(&g, row, revoked.Revocation{At: t.Stamp, By: who.ID, Reason: m.Reason, Index: t.Index})
	}
	return Result{}
}

// endGrant sets the one flag that ends a grant, and makes its inline tokens stubs. The others are dead
// by the flag; Reap removes their rows.
func (t *tx) endGrant(g *grantRow, row []byte, rev revoked.Revocation) {
	if t.dry { // it would change the state: that is all a dry one has to tell
		t.dirty = true
		return
	}
	g.Revoked = &rev
	t.Grants--
	ev := revoked.Event{
		Kind: revoked.EventGrant, Selector: revoked.Selector{GrantID: g.ID}, Actor: rev.By, Reason: rev.Reason,
	}
	for _, d := range g.Tokens {
		tok, trow := t.token(d)
		if trow == nil || tok.State != revoked.Live {
			continue
		}
		ev.Digests, ev.Audiences = append(ev.Digests, d), append(ev.Audiences, tok.Audience)
		t.bury(&tok, trow, revoked.Revoked)
	}
	t.event(ev)
	if g.overflow() {
		key := reapKey(nil, g.ID)
		t.put(key, t.get(key), []byte{})
		t.reaps++
	}
	// A queue entry that comes earlier stays where it is, and Expire moves it then: two writes less now.
	due := t.revokedDue(&g.Grant)
	if g.Due != 0 {
		due = min(due, g.Due)
	}
	t.putGrant(row, g, due)
}

// goneEvent tells the feed of tokens that were dead when they were registered.
func (t *tx) goneEvent(g *revoked.Grant, gone []revoked.Digest, audience []string) {
	ev := revoked.Event{Kind: revoked.EventGrant, Selector: revoked.Selector{GrantID: g.ID}, Digests: gone}
	for range gone {
		ev.Audiences = append(ev.Audiences, audience)
	}
	if r := g.Revoked; r != nil {
		ev.Actor, ev.Reason = r.By, r.Reason
	}
	t.event(ev)
}

// overDue is when an unrevoked grant is over: its last token has expired by every clock. 0 is never.
func (t *tx) overDue(g *revoked.Grant) revoked.Time {
	if g.LatestExpiry == revoked.MaxTime {
		return 0
	}
	return g.LatestExpiry.Add(t.config().MaxClockSkew)
}

// revokedDue is when a revoked grant may be forgotten: its tokens have expired by every clock, and the
// window for late registrations has passed.
func (t *tx) revokedDue(g *revoked.Grant) revoked.Time {
	s := t.config()
	due := g.Revoked.At.Add(s.LateRegistrationWindow).Add(s.MaxClockSkew)
	if g.LatestExpiry == revoked.MaxTime {
		return max(due, g.Revoked.At.Add(s.CutoffRetention))
	}
	return max(due, g.LatestExpiry.Add(s.MaxClockSkew))
}

// buryUnknown leaves a tombstone for a token that is not registered: for the registrations of the
// client that revoked it, or of any client when an administrator did. It lives for two windows, and a
// repeat renews it only in the second half: so every 200 is good for one window at least.
func (t *tx) buryUnknown(who *revoked.Client, m *Revoke) Result {
	if mutant.On(mutant.NoTombstones) {
		return Result{}
	}
	d, bound := revoked.Digest(m.Digest), who.ID
	if who.Has(revoked.RoleAdmin) {
		bound = ""
	}
	key := tombstoneKey(nil, d)
	row := t.get(key)
	var stone tombRow
	if row != nil {
		var err error
		if stone, err = parseTombstone(row); err != nil {
			t.fail(err)
			return Result{}
		}
	}
	window := t.config().LateRegistrationWindow
	until := t.Stamp.Add(window).Add(window)
	was := stone.Due
	if i := stone.exactly(bound); i >= 0 {
		b := &stone.Bindings[i]
		if b.Until.Sub(t.Stamp) >= window+window/2 {
			return Result{}
		}
		b.Until = until
	} else {
		if b := stone.binds(bound); b != nil && b.Until.Sub(t.Stamp) >= window+window/2 {
			return Result{} // an administrator's binds every client
		}
		if t.tombstonesOf(who.ID) >= tombstoneQuota {
			return Result{Err: fmt.Errorf("%w: client %q has %d revocations of unknown tokens outstanding", revoked.ErrQuota, who.ID, tombstoneQuota)}
		}
		t.countTombstone(who.ID, 1)
		stone.Bindings = append(stone.Bindings, binding{
			ClientID: bound, By: who.ID, At: t.Stamp, Until: until, Index: t.Index, Reason: m.Reason,
		})
		t.event(revoked.Event{
			Kind: revoked.EventToken, Digests: []revoked.Digest{d}, Audiences: [][]string{nil},
			Selector: revoked.Selector{ClientID: bound}, Actor: who.ID, Reason: m.Reason,
		})
	}
	if row == nil {
		t.Tombstones++
	}
	stone.Due = max(stone.Due, until)
	t.requeue(key, was, stone.Due)
	t.put(key, row, appendTombstone(nil, &stone))
	t.tokensChanged = append(t.tokensChanged, d)
	return Result{}
}

// exactly returns the position of the binding to that client, -1 if there is none.
func (s *tombRow) exactly(client string) int {
	for i := range s.Bindings {
		if s.Bindings[i].ClientID == client {
			return i
		}
	}
	return -1
}

// takeTombstone returns what binds a registration of d for client. A tombstone that bites is removed:
// the grant carries its revocation from here on, and the token is known.
func (t *tx) takeTombstone(d revoked.Digest, client string) *binding {
	if t.Tombstones == 0 {
		return nil
	}
	key := tombstoneKey(nil, d)
	row := t.get(key)
	if row == nil {
		return nil
	}
	stone, err := parseTombstone(row)
	if err != nil {
		t.fail(err)
		return nil
	}
	b := stone.binds(client)
	if b == nil {
		return nil
	}
	found := *b
	t.dropTombstone(key, row, &stone)
	return &found
}

func (t *tx) dropTombstone(key, row []byte, stone *tombRow) {
	for i := range stone.Bindings {
		t.countTombstone(stone.Bindings[i].By, -1)
	}
	t.requeue(key, stone.Due, 0)
	t.del(key, row)
	t.Tombstones--
}

func (t *tx) tombstonesOf(client string) int { return t.mem.tombstones[client] + t.tombs[client] }

func (t *tx) countTombstone(client string, n int) {
	if t.tombs == nil {
		t.tombs = map[string]int{}
	}
	t.tombs[client] += n
}
