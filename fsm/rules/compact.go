package rules

import (
	"bytes"

	"revoked"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
)

// compact turns the rows of tokens that a revocation or a cut-off has revoked into stubs. It starts
// with the overflow tokens of revoked grants and continues with the oldest unfinished
// cut-off. It examines about limit rows and records its position.
//
// No lookup depends on its progress, because readers evaluate the grant and the cut-offs
// themselves. compact frees space, and adds the digests of tokens that a cut-off ended to the feed.
func (a *Applier) compact(limit int) {
	if a.mem.Compactions > 0 {
		limit = a.compactGrants(limit)
	}
	for _, c := range a.mem.Unfinished() {
		if limit <= 0 || a.err != nil {
			return
		}
		limit = a.compactCutoff(c, limit)
	}
}

// compactGrants compacts the revoked grants that have a cursor row. It returns the remaining limit.
// A cursor row exists from the revocation until the last overflow token is a stub.
func (a *Applier) compactGrants(limit int) int {
	type job struct {
		id     string
		cursor []byte
	}
	var jobs []job
	err := a.store.Scan([]byte{rows.FamilyCompact}, nil, func(key, val []byte) (bool, error) {
		jobs = append(jobs, job{string(key[1:]), bytes.Clone(val)})
		return len(jobs) < limit, nil
	})
	if err != nil {
		a.fail(err)
	}
	for _, j := range jobs {
		if limit <= 0 || a.err != nil {
			return limit
		}
		limit--
		g, row := a.grant(j.id)
		if row == nil || g.Revoked == nil {
			a.fail(errStray("grant to compact", j.id))
			return limit
		}
		ev := a.endedTokens(&g.Grant, g.Revoked.By, g.Revoked.Reason)
		ev.ended = g.EndedAt()
		left, cursor := a.compactMembers(&g, j.cursor, limit, func(*revoked.Token) bool { return true }, ev)
		ev.send()
		a.putCursor(j.id, cursor)
		limit = left
	}
	return limit
}

// compactMembers turns the revoked tokens of g beyond the inline ones into stubs, starting after
// cursor. It returns the remaining limit and the new cursor, which is nil after the last token.
func (a *Applier) compactMembers(g *rows.Grant, cursor []byte, limit int, ended func(*revoked.Token) bool,
	ev *endedTokens) (int, []byte) {
	digests, more := a.members(g.ID, cursor, max(limit, 1))
	a.compactTokens(g, digests, ended, ev)
	limit -= len(digests)
	if more {
		return limit, digests[len(digests)-1][:]
	}
	return limit, nil
}

// compactTokens turns the tokens of g among digests for which the function ended returns true into
// stubs, and adds them to ev. It skips stubs. While a trusted issuer exists, a token of a grant
// that is not revoked also gets a denial of its digest. The rows of such a grant may be removed
// before the JWT expires.
func (a *Applier) compactTokens(
	g *rows.Grant, digests []revoked.Digest, ended func(*revoked.Token) bool, ev *endedTokens,
) {
	for _, d := range digests {
		if t, row := a.token(d); row != nil && t.State == revoked.Live && ended(&t) {
			ev.add(d, t.Audience)
			a.denyToken(&g.Grant, &t, ev.event.Actor, ev.event.Reason, g.Revoked == nil)
			if a.keepsHistory() {
				t.EndedAt, t.EndedIndex = ev.ended.At, ev.ended.Index
			}
			a.toStub(&t, row, revoked.Revoked)
		}
	}
}

// compactCutoff compacts the tokens that one cut-off revokes and records the position in its row.
// It returns the remaining limit. The position is part of the state, so every member continues at
// the same row, even after a restart or an installed snapshot.
func (a *Applier) compactCutoff(c *rows.Cutoff, limit int) int {
	next := *c
	next.Compacted = true
	var keys [][]byte
	if len(c.Member) > 0 { // the previous command stopped inside this grant
		keys = append(keys, c.Cursor)
	}
	err := lookup.EachGrant(a.store, &c.Selector, c.Cursor, func(key []byte, _ *rows.Grant) (bool, error) {
		if len(keys) >= limit {
			next.Compacted = false
			return false, nil
		}
		keys = append(keys, bytes.Clone(key))
		return true, nil
	})
	if err != nil {
		a.fail(err)
		return limit
	}
	prefix := len(rows.SelectorPrefix(&c.Selector))
	for _, key := range keys {
		if limit <= 0 || a.err != nil {
			next.Compacted = false
			break
		}
		if len(key) < prefix {
			a.fail(errStray("cursor of cut-off", string(key)))
			return limit
		}
		limit, next.Member = a.compactGrant(&next, string(key[prefix:]), next.Member, limit)
		next.Cursor = key
		if next.Member != nil {
			next.Compacted = false
			break
		}
	}
	if next.Compacted {
		next.Cursor, next.Member = nil, nil
	}
	a.putCutoff(&next)
	return limit
}

// compactGrant turns the tokens of one grant that c covers into stubs. It returns the remaining
// limit, and the last digest if it stopped among the overflow tokens.
func (a *Applier) compactGrant(c *rows.Cutoff, id string, member []byte, limit int) (int, []byte) {
	limit--
	g, row := a.grant(id)
	if row == nil || g.Revoked != nil || !c.Matches(&g.Grant) {
		return limit, nil
	}
	ended := func(t *revoked.Token) bool { return c.Covers(&g.Grant, t, 0) }
	ev := a.endedTokens(&g.Grant, c.By, c.Reason)
	ev.ended = revoked.Moment{At: c.At, Index: c.Index}
	if len(member) == 0 {
		a.compactTokens(&g, g.Tokens, ended, ev)
		limit -= len(g.Tokens)
	}
	var next []byte
	if g.Overflows() {
		limit, next = a.compactMembers(&g, member, limit, ended, ev)
	}
	ev.send()
	return limit, next
}
