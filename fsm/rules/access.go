package rules

import (
	"fmt"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
)

// access reads and writes typed rows through a unit, and maintains their queue entries. Its read
// methods return the row along with the decoded value: pass the row to the put method of the same
// kind. The methods return no errors. unit keeps the first error, and the commit then fails as a
// whole. This keeps error handling out of the rules.
type access struct {
	unit
	mem *memory.State
	staged
	dropped
}

// token returns a token or its stub. row is nil if the digest is not registered.
func (a *access) token(d revoked.Digest) (t revoked.Token, row []byte) {
	a.keyBuf = rows.DigestKey(a.keyBuf[:0], rows.FamilyToken, d)
	if row = a.get(a.keyBuf); row == nil {
		return t, nil
	}
	t, err := rows.ParseToken(d, row)
	if err != nil {
		a.fail(err)
	}
	return t, row
}

// putToken writes t. The commit passes its digest to Changes.
func (a *access) putToken(old []byte, t *revoked.Token) {
	a.keyBuf = rows.DigestKey(a.keyBuf[:0], rows.FamilyToken, t.Digest)
	a.rowBuf = rows.AppendToken(a.rowBuf[:0], t)
	a.put(a.keyBuf, old, a.keep(a.rowBuf))
	a.tokensChanged = append(a.tokensChanged, t.Digest)
}

// toStub replaces the row of a token with a stub in the given state. It records the current entry
// as the one that ended the token, unless EndedAt is already set.
func (a *access) toStub(t *revoked.Token, row []byte, state revoked.TokenState) {
	t.State = state
	a.recordEnd(t)
	a.putToken(row, t)
	if t.JTI != "" && (state == revoked.Revoked || !a.keepsHistory()) {
		a.unindexJTI(t)
	}
	a.Tokens--
}

// indexJTI adds a new token of a grant of issuer to the index of jtis.
func (a *access) indexJTI(issuer string, t *revoked.Token) {
	key := rows.JTIKey(a.keyBuf[:0], issuer, t)
	if key == nil || a.dry {
		return
	}
	a.set(key, nil)
	id := revoked.Digest(key[1:])
	put(&a.jtis, id, append(a.jtis[id], t.Digest))
}

// unindexJTI removes a token from the index of jtis. The index need not contain the token.
func (a *access) unindexJTI(t *revoked.Token) {
	g, _ := a.grant(t.GrantID)
	live := revoked.Token{Digest: t.Digest, JTI: t.JTI, State: revoked.Live}
	if key := rows.JTIKey(nil, g.Issuer, &live); key != nil {
		a.unset(key)
	}
}

// dropToken deletes a token or its stub. It keeps the row of the grant, which only dropGrant
// deletes.
func (a *access) dropToken(d revoked.Digest) {
	t, row := a.token(d)
	if row == nil {
		return
	}
	if t.JTI != "" {
		a.unindexJTI(&t)
	}
	if t.State == revoked.Live {
		a.Tokens--
	}
	a.del(rows.DigestKey(nil, rows.FamilyToken, d), row)
	a.tokensChanged = append(a.tokensChanged, d)
}

// grant returns a grant. row is nil if the grant does not exist.
func (a *access) grant(id string) (g rows.Grant, row []byte) {
	a.keyBuf = rows.Key(a.keyBuf[:0], rows.FamilyGrant, id)
	if row = a.get(a.keyBuf); row == nil {
		return g, nil
	}
	g, err := rows.ParseGrant(id, row)
	if err != nil {
		a.fail(err)
	}
	return g, row
}

// putGrant writes g and moves its queue entry to due. A due of 0 means never.
func (a *access) putGrant(old []byte, g *rows.Grant, due revoked.Time) {
	key := rows.Key(nil, rows.FamilyGrant, g.ID)
	a.requeue(key, g.Due, due)
	g.Due = due
	a.rowBuf = rows.AppendGrant(a.rowBuf[:0], g)
	a.put(key, old, a.keep(a.rowBuf))
	a.grantsChanged = append(a.grantsChanged, g.ID)
}

// deleteGrantRow deletes the row of g, its queue entry and its index keys.
func (a *access) deleteGrantRow(old []byte, g *rows.Grant) {
	rows.EachIndexKey(a.keyBuf, &g.Grant, a.unset)
	key := rows.Key(nil, rows.FamilyGrant, g.ID)
	a.requeue(key, g.Due, 0)
	a.del(key, old)
	a.grantsChanged = append(a.grantsChanged, g.ID)
}

// indexGrant writes the index keys of a new grant. The keys never change afterwards, because the
// properties of a grant never change.
func (a *access) indexGrant(g *revoked.Grant) {
	rows.EachIndexKey(a.keyBuf, g, func(key []byte) { a.set(key, nil) })
}

// dropMember deletes an overflow token of a grant: its row and its member row.
func (a *access) dropMember(id string, d revoked.Digest) {
	key := rows.MemberKey(nil, id, d)
	row := a.get(key)
	due, err := rows.ParseMember(row)
	if err != nil {
		a.fail(err)
	}
	a.requeue(rows.DigestKey(nil, rows.FamilyToken, d), due, 0)
	a.del(key, row)
	a.dropToken(d)
}

// putCursor records that Compact must continue with grant id after cursor. A nil cursor removes the
// row.
func (a *access) putCursor(id string, cursor []byte) {
	key := rows.Key(nil, rows.FamilyCompact, id)
	old := a.get(key)
	switch {
	case cursor != nil:
		a.put(key, old, cursor)
		if old == nil {
			a.compactions++
		}
	case old != nil:
		a.del(key, old)
		a.compactions--
	}
}

// event appends an event of the current entry to the feed. seq numbers the events of one entry, so
// their order is the order of the calls on every member.
func (a *access) event(e revoked.Event) {
	e.Index, e.Time = a.Index, a.Stamp
	a.keyBuf = rows.SeqKey(a.keyBuf[:0], rows.FamilyEvent, a.Index, a.seq)
	a.rowBuf = rows.Append(a.rowBuf[:0], &rows.Event{Event: e})
	a.put(a.keyBuf, nil, a.keep(a.rowBuf))
	a.seq++
	a.Events++
	a.lastEvent = a.Index
}

// requeue moves the queue entry of the row with that key from old to due. 0 means no entry. An
// earlier due lowers queueFloor, so that the next scan starts early enough.
func (a *access) requeue(row []byte, old, due revoked.Time) {
	if old == due {
		return
	}
	if old != 0 {
		a.keyBuf = rows.QueueKey(a.keyBuf[:0], old, row)
		a.unset(a.keyBuf)
	}
	if due != 0 {
		a.keyBuf = rows.QueueKey(a.keyBuf[:0], due, row)
		a.set(a.keyBuf, nil)
		a.queueFloor = min(a.queueFloor, due)
	}
}

// prefetch loads the rows that the registrations of a batch will read. It reads them in key order,
// in which Pebble's iterator only moves forward. A malformed digest is skipped here and refused
// later.
func (a *access) prefetch(ops []*command.Op) {
	var keys [][]byte
	for _, op := range ops {
		r := op.GetRegister()
		if r == nil {
			continue
		}
		a.keyBuf = rows.Key(a.keyBuf[:0], rows.FamilyGrant, r.GrantId)
		keys = append(keys, a.keep(a.keyBuf))
		for _, s := range r.Tokens {
			if len(s.GetDigest()) == len(revoked.Digest{}) {
				a.keyBuf = rows.DigestKey(a.keyBuf[:0], rows.FamilyToken, revoked.Digest(s.Digest))
				keys = append(keys, a.keep(a.keyBuf))
			}
		}
	}
	a.load(keys)
}

// errStray reports a queue entry or a cursor whose row is missing or does not match.
func errStray(kind, id string) error {
	return fmt.Errorf("%s %q: queue entry or cursor does not match its row: %w", kind, id, rows.ErrRow)
}

// errOrphan reports a broken invariant: every token has a grant.
func errOrphan(t *revoked.Token) error {
	return fmt.Errorf("token %s: grant %q is missing", t.Digest.Prefix(), t.GrantID)
}
