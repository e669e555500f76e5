package rules

import (
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/rows"
)

// MaxEvents is the number of events that the feed keeps.
const MaxEvents = 1_000_000

const (
	maxLimit = 100_000 // upper bound, in rows, for the limit of a background command
	// cutoffExtension is the time for which Expire keeps a cut-off that Compact has not finished.
	cutoffExtension = time.Minute
)

// clampLimit returns the limit of a command, but at least 1 and at most maxLimit.
func clampLimit(n uint32) int { return int(min(max(n, 1), maxLimit)) }

// expire examines the rows that are due, earliest first, and drops those that are no longer needed.
// It stops once it has touched about limit rows.
//
// Each family has its own rule, but every rule counts the rows that it touches. So the cost of a
// command depends on its limit, not on the number of due rows.
func (a *Applier) expire(before revoked.Time, limit int) {
	before = min(before, a.Stamp)
	for _, e := range a.dueRows(before, limit) {
		if limit <= 0 || a.err != nil {
			break
		}
		touched := 1
		switch id := string(e.row[1:]); e.row[0] {
		case rows.FamilyGrant:
			touched = a.expireGrant(id, e.due, before, limit)
		case rows.FamilyToken:
			touched = a.expireMember(revoked.Digest(e.row[1:]), e.due)
		case rows.FamilyTombstone:
			a.expireTombstone(revoked.Digest(e.row[1:]), e.due)
		case rows.FamilyCutoff:
			a.expireCutoff(string(e.row), e.due, before)
		case rows.FamilyDeleted:
			a.expireDeleted(id, e.due)
		case rows.FamilyAdmission:
			a.expireAdmission(id, e.due)
		case rows.FamilyJoinToken:
			a.expireJoinToken(id, e.due)
		case rows.FamilyAssertion:
			a.expireAssertion(revoked.Digest(e.row[1:]), e.due)
		case rows.FamilyDenial:
			touched = a.expireDenial(revoked.Digest(e.row[1:]), e.due)
		case rows.FamilyIssuer:
			a.expireIssuer(id, e.due, before)
		case rows.FamilyHistory:
			a.expireHistory(e.row, e.due, before)
		default:
			a.fail(fmt.Errorf("queue entry of family %q: %w", e.row[0], rows.ErrRow))
		}
		limit -= touched
	}
	a.recordDropped()
	a.trimFinals(before, limit)
	a.trim(before, limit)
}

// A dueRow is an entry of the queue.
type dueRow struct {
	due revoked.Time
	row []byte // key of the due row
}

// dueRows returns the first n entries of the queue that are due no later than the time before. It
// reads committed rows only.
func (a *Applier) dueRows(before revoked.Time, n int) []dueRow {
	var out []dueRow
	floor := before + 1
	start := rows.QueueKey(nil, max(a.mem.QueueFloor, 0), nil)
	err := a.store.Scan([]byte{rows.FamilyQueue}, start, func(key, _ []byte) (bool, error) {
		due, row, err := rows.ParseQueueKey(key)
		if err != nil {
			return false, err
		}
		if due > before || len(out) == n {
			floor = due
			return false, nil
		}
		out = append(out, dueRow{due: due, row: append([]byte(nil), row...)})
		return true, nil
	})
	if err != nil {
		a.fail(err)
	}
	// Invariant: no entry of the queue is due before queueFloor. requeue lowers the floor for
	// entries that this command adds. Entries that the command does not reach are due no earlier
	// than the first one.
	a.queueFloor = floor
	if len(out) > 0 {
		a.queueFloor = min(floor, out[0].due)
	}
	return out
}

// expireGrant replaces the expired inline tokens of a grant with stubs. It drops the grant if all
// of its tokens have expired. It returns the number of touched rows. If the queue entry of a
// revoked grant is earlier than revokedDue, expireGrant only moves the entry, see endGrant.
func (a *Applier) expireGrant(id string, due, before revoked.Time, limit int) int {
	g, row := a.grant(id)
	if row == nil || g.Due != due {
		a.fail(errStray("grant", id))
		return 1
	}
	over := a.overDue(&g.Grant)
	if g.Revoked != nil {
		over = a.revokedDue(&g.Grant)
	}
	if over != 0 && over <= before {
		return a.dropGrant(&g, row, limit)
	}
	touched, next := 1, over
	for _, d := range g.Tokens {
		t, tokenRow := a.token(d)
		if tokenRow == nil || t.State != revoked.Live || t.ExpiresAt == 0 {
			continue
		}
		if t.ExpiresAt <= before {
			a.toStub(&t, tokenRow, revoked.Expired)
			touched++
		} else if next == 0 || t.ExpiresAt < next {
			next = t.ExpiresAt
		}
	}
	a.putGrant(row, &g, next)
	return touched
}

// dropGrant deletes a grant and its tokens. From a large grant it first deletes up to limit
// overflow tokens. The grant stays in the queue until all of them are deleted. Until then, its Due
// does not change, so the next command continues with it.
func (a *Applier) dropGrant(g *rows.Grant, row []byte, limit int) int {
	touched := 1
	if g.Overflows() {
		digests, more := a.members(g.ID, nil, limit)
		a.reaped = true
		for _, d := range digests {
			a.dropMember(g.ID, d)
		}
		if touched += 2 * len(digests); more || a.err != nil {
			return touched
		}
		a.putCursor(g.ID, nil)
	}
	a.reaped = true
	for _, d := range g.Tokens {
		a.dropToken(d)
	}
	if g.Revoked == nil {
		a.Grants--
	}
	a.deleteGrantRow(row, g)
	return touched + len(g.Tokens)
}

// members returns at most n committed digests of a grant's overflow tokens after cursor (nil: from
// the first). It also reports whether more exist.
func (a *Applier) members(id string, cursor []byte, n int) (digests []revoked.Digest, more bool) {
	prefix := rows.MemberPrefix(nil, id)
	start := prefix
	if len(cursor) > 0 {
		start = append(append(append([]byte(nil), prefix...), cursor...), 0)
	}
	err := a.store.Scan(prefix, start, func(key, _ []byte) (bool, error) {
		if len(digests) >= n {
			more = true
			return false, nil
		}
		d, err := rows.ParseMemberKey(prefix, key)
		digests = append(digests, d)
		return true, err
	})
	if err != nil {
		a.fail(err)
	}
	return digests, more
}

// expireMember replaces an expired overflow token with a stub. The member row stays, without a
// queue entry, because a scan of the grant finds the stub through it.
func (a *Applier) expireMember(d revoked.Digest, due revoked.Time) int {
	t, row := a.token(d)
	a.requeue(rows.DigestKey(nil, rows.FamilyToken, d), due, 0)
	if row == nil { // this command dropped its grant
		return 1
	}
	key := rows.MemberKey(nil, t.GrantID, d)
	a.put(key, a.get(key), rows.AppendMember(nil, 0))
	if t.State == revoked.Live {
		a.toStub(&t, row, revoked.Expired)
	}
	return 2
}

// expireTombstone drops a tombstone whose queue entry is due. That time is the latest Until of its
// bindings.
func (a *Applier) expireTombstone(d revoked.Digest, due revoked.Time) {
	t, row := a.tombstone(d)
	if row == nil || t.Due != due {
		a.fail(errStray("tombstone", d.Prefix()))
		return
	}
	a.reaped = true
	a.deleteTombstone(d, row, &t)
	a.tokensChanged = append(a.tokensChanged, d)
}

// expireCutoff drops a cut-off after its retention, but neither before Compact has finished it nor
// before every JWT that it covers has expired.
func (a *Applier) expireCutoff(key string, due, before revoked.Time) {
	c := a.mem.Cutoffs.ByKey(key)
	if c == nil || c.Due != due {
		a.fail(errStray("cut-off", key))
		return
	}
	later := *c
	keep := max(a.currentSettings().CutoffRetention, a.longestJWT())
	if c.Selector == (revoked.Selector{Issuer: c.Issuer}) && c.Issuer != "" {
		// An issuer that was deleted may be created again, with a longer max_lifetime.
		keep = max(keep, a.longestLifetime())
	}
	switch over := c.At.Add(keep); {
	case over > before:
		later.Due = over
	case !c.Compacted:
		later.Due = before.Add(cutoffExtension)
	default:
		a.dropCutoff(c)
		return
	}
	a.putCutoff(&later)
}

// expireDeleted removes the record of a deleted client. From then on a repeated deletion gets
// ErrNotFound.
func (a *Applier) expireDeleted(id string, due revoked.Time) {
	if d := a.deletedClient(id); d == nil || d.Due != due {
		a.fail(errStray("deleted client", id))
		return
	}
	a.putDeleted(id, nil)
}

// trim drops the oldest rows of the feed and of the audit log, at most limit rows. It stops at the
// first row that must stay.
func (a *Applier) trim(before revoked.Time, limit int) {
	s := a.currentSettings()
	limit = a.trimSequence(&sequence{
		family: rows.FamilyEvent, rows: &a.Events, floor: &a.EventsFloor, most: MaxEvents,
		oldest: before.Add(-s.CutoffRetention),
		timeOf: func(key, val []byte) (revoked.Time, error) {
			var e rows.Event
			err := rows.Parse(key, val, &e)
			return e.Time, err
		},
	}, limit)
	a.trimSequence(&sequence{
		family: rows.FamilyAudit, rows: &a.Audits, floor: &a.AuditsFloor, most: uint64(s.AuditMaxEntries),
		oldest: before.Add(-s.AuditRetention),
		timeOf: func(key, val []byte) (revoked.Time, error) {
			var e rows.Audit
			err := rows.Parse(key, val, &e)
			return e.Time, err
		},
	}, limit)
}

// A sequence is a family of rows in log order that Expire trims from its beginning.
type sequence struct {
	family byte
	rows   *uint64      // number of rows
	floor  *uint64      // highest index dropped
	most   uint64       // maximum number of rows
	oldest revoked.Time // rows before this time are dropped
	timeOf func(key, val []byte) (revoked.Time, error)
}

// trimSequence drops the oldest rows of q, at most limit rows: those beyond q.most, and those
// before q.oldest. It raises the floor to the newest dropped index, so that a reader behind the
// floor gets ErrGone instead of a gap. It returns the remaining limit.
func (a *Applier) trimSequence(q *sequence, limit int) int {
	if limit <= 0 || *q.rows == 0 || a.err != nil {
		return limit
	}
	type row struct{ key, val []byte }
	var old []row
	start := rows.SeqKey(nil, q.family, *q.floor, 0)
	err := a.store.Scan([]byte{q.family}, start, func(key, val []byte) (bool, error) {
		if len(old) >= limit {
			return false, nil
		}
		if *q.rows-uint64(len(old)) <= q.most {
			if at, err := q.timeOf(key, val); err != nil || at >= q.oldest {
				return false, err
			}
		}
		old = append(old, row{append([]byte(nil), key...), append([]byte(nil), val...)})
		return true, nil
	})
	if err != nil {
		a.fail(err)
		return 0
	}
	for _, e := range old {
		a.del(e.key, e.val)
		*q.rows--
		*q.floor = rows.KeyIndex(e.key)
	}
	return limit - len(old)
}
