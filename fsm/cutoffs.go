package fsm

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// makeCutoff ends everything that a selector names and that was issued at or before a moment.
func (t *tx) makeCutoff(who *revoked.Client, m *MakeCutoff) Result {
	if !who.Has(revoked.RoleAdmin) {
		return Result{Err: fmt.Errorf("%w: a cut-off needs an administrator", revoked.ErrForbidden)}
	}
	before := revoked.Time(m.IssuedBefore)
	if before == 0 {
		before = t.Stamp
	}
	if before > t.Stamp.Add(t.config().MaxClockSkew) {
		return Result{Err: fmt.Errorf("%w: issued_before is in the future", revoked.ErrUnprocessable)}
	}
	t.addCutoff(&cutoffRow{Cutoff: revoked.Cutoff{
		Selector: selectorOf(m.Selector), IssuedBefore: before, By: who.ID, Reason: m.Reason,
	}})
	return Result{}
}

// epoch ends everything where a leader opens the log of a recovered cluster.
func (t *tx) epoch(m *Epoch) {
	if m.EndsBefore <= 0 {
		return
	}
	reason := m.Reason
	if checkText("reason", reason, maxReason) != nil {
		reason = ""
	}
	t.endEverything(min(revoked.Time(m.EndsBefore), maxTime), reason)
}

// endEverything makes a cut-off over all grants: what was revoked and is lost must not come back.
func (t *tx) endEverything(before revoked.Time, reason string) {
	t.addCutoff(&cutoffRow{Cutoff: revoked.Cutoff{IssuedBefore: before, Reason: reason}, Whole: true})
}

// addCutoff stores c, made now. It takes the place of those with the same selector that it covers: so
// one selector holds at most a falling staircase of moments, and a repeat costs nothing lasting.
func (t *tx) addCutoff(c *cutoffRow) {
	c.At, c.Index, c.Seq = t.Stamp, t.Index, t.seq
	t.seq++
	c.Due = c.At.Add(t.config().CutoffRetention)
	for _, old := range t.cutoffsOf(&c.Selector) {
		if old.IssuedBefore <= c.IssuedBefore && (c.Whole || !old.Whole) {
			t.putCutoff(old, true)
		}
	}
	t.putCutoff(c, false)
	t.event(revoked.Event{
		Kind: revoked.EventCutoff, Selector: c.Selector, IssuedBefore: c.IssuedBefore, Actor: c.By, Reason: c.Reason,
	})
}

// cutoffsOf returns the cut-offs with exactly that selector, as this tx sees them.
func (t *tx) cutoffsOf(s *revoked.Selector) []*cutoffRow {
	var out []*cutoffRow
	for _, c := range t.mem.cutoffs.sameSelector(s) {
		if _, staged := t.cutoffs[string(c.key())]; !staged {
			out = append(out, c)
		}
	}
	for _, k := range t.order {
		if c := t.cutoffs[k]; c != nil && c.Selector == *s {
			out = append(out, c)
		}
	}
	return out
}

// A cutoffRow is a cut-off and how far Reap has come with it.
type cutoffRow struct {
	revoked.Cutoff
	Seq uint32 // among the cut-offs of one log entry
	// Whole: every grant that was there when it was made is over, whatever issued_at its tokens
	// claim. So a deleted client's tokens do not come back when its id is taken again.
	Whole  bool
	Due    revoked.Time
	Reaped bool
	// Cursor is the key of the last grant that Reap has finished with, Member the last of that
	// grant's further digests, when it stopped among them.
	Cursor []byte
	Member []byte
}

func (c *cutoffRow) key() []byte { return cutoffKey(nil, c.Index, c.Seq) }

// covers is Cutoff.Covers, and Whole.
func (c *cutoffRow) covers(g *revoked.Grant, tok *revoked.Token) bool {
	if c.Whole && g.CreatedIndex < c.Index && c.Matches(g) {
		return true
	}
	return c.Covers(g, tok)
}

func appendCutoff(b []byte, c *cutoffRow) []byte {
	b = append(b, 1)
	for _, s := range [...]string{c.ClientID, c.Subject, c.Session, c.GrantID, c.Issuer, c.By, c.Reason} {
		b = appendString(b, s)
	}
	b = appendTime(appendTime(appendTime(b, c.IssuedBefore), c.At), c.Due)
	var f byte
	if c.Whole {
		f |= 1
	}
	if c.Reaped {
		f |= 2
	}
	return appendBytes(appendBytes(append(b, f), c.Cursor), c.Member)
}

func parseCutoff(key, row []byte) (cutoffRow, error) {
	r := rowReader{b: row}
	if r.byte() != 1 || len(key) != 13 {
		return cutoffRow{}, fmt.Errorf("cut-off: %w", errRow)
	}
	var c cutoffRow
	c.Index, c.Seq = binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint32(key[9:])
	for _, s := range [...]*string{&c.ClientID, &c.Subject, &c.Session, &c.GrantID, &c.Issuer, &c.By, &c.Reason} {
		*s = r.string()
	}
	c.IssuedBefore, c.At, c.Due = r.time(), r.time(), r.time()
	f := r.byte()
	c.Whole, c.Reaped = f&1 != 0, f&2 != 0
	c.Cursor = append([]byte(nil), r.bytes()...)
	c.Member = append([]byte(nil), r.bytes()...)
	return c, wrapRow(r.end(), "cut-off", "")
}
