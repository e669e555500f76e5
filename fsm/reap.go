package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
)

// maxEventDigests is how many digests one event of the feed lists at most.
const maxEventDigests = 256

// reap makes stubs of live rows that a revocation or a cut-off has ended already: first the further
// tokens of large revoked grants, then what the oldest unfinished cut-off covers. It looks at about
// limit rows and notes how far it came.
func (t *tx) reap(limit int) {
	budget := min(max(limit, 1), maxLimit)
	if t.mem.reaps > 0 {
		budget = t.reapGrants(budget)
	}
	for _, c := range t.mem.unfinished() {
		if budget <= 0 || t.err != nil {
			return
		}
		budget = t.reapCutoff(c, budget)
	}
}

// reapGrants works on the grants that reap rows name.
func (t *tx) reapGrants(budget int) int {
	type job struct {
		id     string
		cursor []byte
	}
	var jobs []job
	err := t.s.scan([]byte{famReap}, func(key, val []byte) (bool, error) {
		jobs = append(jobs, job{string(key[1:]), append([]byte(nil), val...)})
		return len(jobs) < budget, nil
	})
	if err != nil {
		t.fail(err)
	}
	for _, j := range jobs {
		if budget <= 0 || t.err != nil {
			return budget
		}
		budget--
		g, row := t.grant(j.id)
		if row == nil || g.Revoked == nil {
			t.fail(fmt.Errorf("reap row of grant %q is stray: %w", j.id, errRow))
			return budget
		}
		gone := t.newEvent(&g.Grant, g.Revoked.By, g.Revoked.Reason)
		cursor := j.cursor
		budget, cursor = t.buryMembers(&g, cursor, budget, func(*revoked.Token) bool { return true }, gone)
		gone.send()
		key := reapKey(nil, j.id)
		if cursor == nil {
			t.del(key, t.get(key))
			t.reaps--
		} else {
			t.put(key, t.get(key), cursor)
		}
	}
	return budget
}

// buryMembers makes stubs of the live tokens of g beyond the inline ones for which ended says so,
// from the first after cursor. It returns what is left of the budget, and the new cursor: nil when it
// came to the end.
func (t *tx) buryMembers(g *grantRow, cursor []byte, budget int, ended func(*revoked.Token) bool, gone *goneTokens) (int, []byte) {
	prefix := memberPrefix(nil, g.ID)
	start := append(append([]byte(nil), prefix...), cursor...)
	if len(cursor) > 0 {
		start = append(start, 0)
	}
	var found []revoked.Digest
	more := false
	err := t.s.scanFrom(prefix, start, func(key, _ []byte) (bool, error) {
		if len(found) >= max(budget, 1) {
			more = true
			return false, nil
		}
		d, err := memberOf(prefix, key)
		found = append(found, d)
		return true, err
	})
	if err != nil {
		t.fail(err)
	}
	for _, d := range found {
		if tok, row := t.token(d); row != nil && tok.State == revoked.Live && ended(&tok) {
			gone.add(&tok)
			t.bury(&tok, row, revoked.Revoked)
		}
	}
	budget -= len(found)
	if more {
		return budget, found[len(found)-1][:]
	}
	return budget, nil
}

// reapCutoff works on one cut-off.
func (t *tx) reapCutoff(c *cutoffRow, budget int) int {
	now := *c
	now.Reaped = true
	type candidate struct {
		key []byte
		id  string
	}
	var grants []candidate
	take := func(key []byte, g *grantRow) (bool, error) {
		if len(grants) >= budget {
			now.Reaped = false
			return false, nil
		}
		grants = append(grants, candidate{append([]byte(nil), key...), g.ID})
		return true, nil
	}
	if len(c.Member) > 0 { // it stopped inside a grant: that one again, first
		id, err := grantOfCursor(&c.Selector, c.Cursor)
		if err != nil {
			t.fail(err)
			return budget
		}
		grants = append(grants, candidate{c.Cursor, id})
	}
	if err := t.s.matching(&c.Selector, c.Cursor, take); err != nil {
		t.fail(err)
		return budget
	}
	for _, v := range grants {
		if budget <= 0 || t.err != nil {
			now.Reaped = false
			break
		}
		var member []byte
		budget, member = t.reapGrant(&now, v.id, now.Member, budget)
		now.Cursor, now.Member = v.key, member
		if member != nil {
			now.Reaped = false
			break
		}
	}
	if now.Reaped {
		now.Cursor, now.Member = nil, nil
	}
	t.putCutoff(&now, false)
	return budget
}

// reapGrant makes stubs of the tokens of one grant that c covers.
func (t *tx) reapGrant(c *cutoffRow, id string, cursor []byte, budget int) (int, []byte) {
	budget--
	g, row := t.grant(id)
	if row == nil || g.Revoked != nil || !c.Matches(&g.Grant) {
		return budget, nil
	}
	ended := func(tok *revoked.Token) bool { return c.covers(&g.Grant, tok) }
	gone := t.newEvent(&g.Grant, c.By, c.Reason)
	if len(cursor) == 0 {
		for _, d := range g.Tokens {
			if tok, trow := t.token(d); trow != nil && tok.State == revoked.Live && ended(&tok) {
				gone.add(&tok)
				t.bury(&tok, trow, revoked.Revoked)
			}
		}
		budget -= len(g.Tokens)
	}
	var member []byte
	if g.overflow() {
		budget, member = t.buryMembers(&g, cursor, budget, ended, gone)
	}
	gone.send()
	return budget, member
}

// grantOfCursor returns the grant id at the end of an index key.
func grantOfCursor(sel *revoked.Selector, cursor []byte) (string, error) {
	prefix := []byte{famGrant}
	switch {
	case sel.GrantID != "":
	case sel.Session != "":
		prefix = indexPrefix(nil, bySession, sel.Session)
	case sel.Subject != "":
		prefix = indexPrefix(nil, bySubject, sel.Subject)
	case sel.ClientID != "":
		prefix = indexPrefix(nil, byClient, sel.ClientID)
	}
	if len(cursor) < len(prefix) {
		return "", fmt.Errorf("cut-off's cursor: %w", errRow)
	}
	return string(cursor[len(prefix):]), nil
}

// goneTokens gathers tokens of one grant for the feed.
type goneTokens struct {
	t  *tx
	ev revoked.Event
}

func (t *tx) newEvent(g *revoked.Grant, by, reason string) *goneTokens {
	return &goneTokens{t: t, ev: revoked.Event{
		Kind: revoked.EventGrant, Selector: revoked.Selector{GrantID: g.ID}, Actor: by, Reason: reason,
	}}
}

func (g *goneTokens) add(tok *revoked.Token) {
	g.ev.Digests = append(g.ev.Digests, tok.Digest)
	g.ev.Audiences = append(g.ev.Audiences, tok.Audience)
	if len(g.ev.Digests) == maxEventDigests {
		g.send()
	}
}

func (g *goneTokens) send() {
	if len(g.ev.Digests) > 0 {
		g.t.event(g.ev)
		g.ev.Digests, g.ev.Audiences = nil, nil
	}
}

// Backlog returns the background command that is due, if any: Expire when a row's time came at
// max_clock_skew before now, Reap when rows of what has ended remain. It looks at one key and may be
// asked every second. The caller sets the stamp.
func (f *FSM) Backlog(now revoked.Time) (Type, proto.Message, bool) {
	s, err := f.acquire()
	if err != nil {
		return 0, nil, false
	}
	defer s.release()
	f.mu.RLock()
	stamp, skew := f.mem.applied.Stamp, f.mem.settings.MaxClockSkew
	floor, reaps := f.mem.queueFloor, f.mem.reaps+len(f.mem.unreaped)
	over := f.mem.applied.Events > eventsKept+eventsKept/100
	f.mu.RUnlock()
	if reaps > 0 {
		return TypeReap, &Reap{Limit: reapLimit}, true
	}
	before := min(now, stamp).Add(-skew)
	due := over
	err = s.scanFrom([]byte{famQueue}, queuePrefix(nil, max(floor, 0)), func(key, _ []byte) (bool, error) {
		at, _, err := parseQueueKey(key)
		due = due || (err == nil && at <= before)
		return false, err
	})
	if err != nil {
		f.failed.report(err)
		return 0, nil, false
	}
	if !due || before <= 0 {
		return 0, nil, false
	}
	return TypeExpire, &Expire{Before: int64(before), Limit: expireLimit}, true
}
