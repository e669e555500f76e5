package fsm

import (
	"encoding/binary"
	"fmt"
	"time"

	"revoked"
)

// Bounds of the background commands that Backlog proposes, in rows touched, and of the feed.
const (
	expireLimit = 4000
	reapLimit   = 1000
	maxLimit    = 100_000 // what a command may ask for
	eventsKept  = 1_000_000
	// cutoffPatience is how long a cut-off that Reap has not finished is kept beyond its time.
	cutoffPatience = time.Minute
)

// expire looks at the rows whose time has come, oldest first, and drops what has outlived its use. It
// touches about limit rows: what is begun is finished.
func (t *tx) expire(before revoked.Time, limit int) {
	budget := min(max(limit, 1), maxLimit)
	before = min(before, t.Stamp)
	for _, e := range t.dueRows(before, budget) {
		if budget <= 0 || t.err != nil {
			break
		}
		switch e.row[0] {
		case famGrant:
			budget -= t.expireGrant(string(e.row[1:]), e.due, before, budget)
		case famToken:
			budget -= t.expireMember(e.row, e.due)
		case famTombstone:
			budget -= t.expireTombstone(e.row, e.due)
		case famCutoff:
			budget -= t.expireCutoff(e.row, e.due, before)
		case famDeleted:
			budget -= t.expireDeleted(string(e.row[1:]), e.due)
		default:
			t.fail(fmt.Errorf("queue names family %q: %w", e.row[0], errRow))
		}
	}
	t.trimEvents(before, budget)
}

type dueRow struct {
	due revoked.Time
	row []byte
}

// dueRows returns at most n entries of the queue up to before. The tx has written nothing yet.
func (t *tx) dueRows(before revoked.Time, n int) []dueRow {
	var out []dueRow
	low := before + 1
	start := queuePrefix(nil, max(t.mem.queueFloor, 0))
	err := t.s.scanFrom([]byte{famQueue}, start, func(key, _ []byte) (bool, error) {
		due, row, err := parseQueueKey(key)
		if err != nil {
			return false, err
		}
		if due > before || len(out) == n {
			low = due
			return false, nil
		}
		out = append(out, dueRow{due: due, row: append([]byte(nil), row...)})
		return true, nil
	})
	if err != nil {
		t.fail(err)
	}
	// Nothing below what this step takes stays in the queue, unless the step itself puts it there
	// (requeue lowers the mark again) or leaves it over.
	t.queueLow = low
	if len(out) > 0 {
		t.queueLow = min(low, out[0].due)
	}
	return out
}

// expireGrant makes the inline tokens that expired stubs, or drops the grant if it is over. It returns
// how many rows it touched.
func (t *tx) expireGrant(id string, due, before revoked.Time, budget int) int {
	g, row := t.grant(id)
	if row == nil || g.Due != due {
		t.fail(fmt.Errorf("queue entry of grant %q is stray: %w", id, errRow))
		return 1
	}
	over := t.overDue(&g.Grant)
	if g.Revoked != nil {
		over = t.revokedDue(&g.Grant)
	}
	if over != 0 && over <= before {
		return t.dropGrant(&g, row, budget)
	}
	cost, next := 1, over
	for _, d := range g.Tokens {
		tok, trow := t.token(d)
		if trow == nil || tok.State != revoked.Live || tok.ExpiresAt == 0 {
			continue
		}
		if tok.ExpiresAt <= before {
			t.bury(&tok, trow, revoked.Expired)
			cost++
		} else if next == 0 || tok.ExpiresAt < next {
			next = tok.ExpiresAt
		}
	}
	t.putGrant(row, &g, next)
	return cost
}

// dropGrant removes a grant and all that is left of its tokens; of a large one, at first only further
// tokens, as many as the budget allows: the grant stays in the queue until they are gone.
func (t *tx) dropGrant(g *grantRow, row []byte, budget int) int {
	cost := 1
	if g.overflow() {
		var gone []revoked.Digest
		prefix := memberPrefix(nil, g.ID)
		more := false
		err := t.s.scan(prefix, func(key, _ []byte) (bool, error) {
			if len(gone) >= budget {
				more = true
				return false, nil
			}
			d, err := memberOf(prefix, key)
			gone = append(gone, d)
			return true, err
		})
		if err != nil {
			t.fail(err)
			return cost
		}
		for _, d := range gone {
			key := memberKey(nil, g.ID, d)
			mrow := t.get(key)
			t.unqueueMember(d, mrow)
			t.del(key, mrow)
			t.dropToken(d)
		}
		cost += 2 * len(gone)
		if more {
			return cost
		}
		if rkey := reapKey(nil, g.ID); t.get(rkey) != nil {
			t.del(rkey, t.get(rkey))
			t.reaps--
		}
	}
	for _, d := range g.Tokens {
		t.dropToken(d)
	}
	t.eachIndex(&g.Grant, t.unset)
	if g.Revoked == nil {
		t.Grants--
	}
	key := grantKey(nil, g.ID)
	t.requeue(key, g.Due, 0)
	t.del(key, row)
	t.grantsChanged = append(t.grantsChanged, g.ID)
	return cost + len(g.Tokens)
}

func (t *tx) unqueueMember(d revoked.Digest, row []byte) {
	r := rowReader{b: row}
	if queued := r.time(); queued != 0 {
		t.requeue(tokenKey(nil, d), queued, 0)
	}
}

func (t *tx) dropToken(d revoked.Digest) {
	tok, row := t.token(d)
	if row == nil {
		return
	}
	if tok.State == revoked.Live {
		t.Tokens--
	}
	t.del(tokenKey(nil, d), row)
	t.tokensChanged = append(t.tokensChanged, d)
}

// expireMember makes one token beyond the inline ones a stub.
func (t *tx) expireMember(key []byte, due revoked.Time) int {
	tok, row := t.token(revoked.Digest(key[1:]))
	t.requeue(key, due, 0)
	if row == nil { // its grant was dropped in this very step
		return 1
	}
	mkey := memberKey(nil, tok.GrantID, tok.Digest)
	t.put(mkey, t.get(mkey), appendTime(nil, 0))
	if tok.State == revoked.Live {
		t.bury(&tok, row, revoked.Expired)
	}
	return 2
}

func (t *tx) expireTombstone(key []byte, due revoked.Time) int {
	row := t.get(key)
	if row == nil {
		t.fail(fmt.Errorf("queue entry of a tombstone is stray: %w", errRow))
		return 1
	}
	stone, err := parseTombstone(row)
	if err != nil || stone.Due != due {
		t.fail(fmt.Errorf("tombstone: %w", errRow))
		return 1
	}
	t.dropTombstone(key, row, &stone)
	t.tokensChanged = append(t.tokensChanged, revoked.Digest(key[1:]))
	return 1
}

// expireCutoff forgets a cut-off after its retention, but never before Reap has made stubs of
// everything it covers.
func (t *tx) expireCutoff(key []byte, due, before revoked.Time) int {
	c := t.mem.cutoffs.byKey[string(key)]
	if c == nil || c.Due != due {
		t.fail(fmt.Errorf("queue entry of a cut-off is stray: %w", errRow))
		return 1
	}
	later := *c
	switch over := c.At.Add(t.config().CutoffRetention); {
	case over > before:
		later.Due = over
	case !c.Reaped:
		later.Due = before.Add(cutoffPatience)
	default:
		t.putCutoff(c, true)
		return 1
	}
	t.putCutoff(&later, false)
	return 1
}

func (t *tx) expireDeleted(id string, due revoked.Time) int {
	if d, ok := t.deletedClient(id); !ok || d.Due != due {
		t.fail(fmt.Errorf("queue entry of deleted client %q is stray: %w", id, errRow))
		return 1
	}
	t.putDeleted(id, nil)
	return 1
}

// trimEvents drops the oldest events of the feed: beyond the newest eventsKept, and older than
// cutoff_retention.
func (t *tx) trimEvents(before revoked.Time, budget int) {
	if budget <= 0 || t.Events == 0 || t.err != nil {
		return
	}
	type row struct{ key, val []byte }
	var gone []row
	oldest := before.Add(-t.config().CutoffRetention)
	start := eventKey(nil, t.EventsFloor, 0)
	err := t.s.scanFrom([]byte{famEvent}, start, func(key, val []byte) (bool, error) {
		if len(gone) >= budget {
			return false, nil
		}
		if t.Events-uint64(len(gone)) <= eventsKept {
			e, err := parseEvent(key, val)
			if err != nil || e.Time >= oldest {
				return false, err
			}
		}
		gone = append(gone, row{append([]byte(nil), key...), append([]byte(nil), val...)})
		return true, nil
	})
	if err != nil {
		t.fail(err)
		return
	}
	for _, r := range gone {
		t.del(r.key, r.val)
		t.Events--
		t.EventsFloor = binary.BigEndian.Uint64(r.key[1:])
	}
}
