package fsm

import (
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
