package rules

import (
	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// makeCutoff ends all selected tokens that were issued at or before a moment. A moment of 0 stands
// for the stamp of the entry. CheckIssuedBefore bounds the moment: one far in the future would end
// tokens for years.
func (a *Applier) makeCutoff(actor *revoked.Client, m *command.MakeCutoff) Result {
	before := revoked.Time(m.IssuedBefore)
	if before == 0 {
		before = a.Stamp
	}
	settings := a.currentSettings()
	if err := settings.CheckIssuedBefore(before, a.Stamp); err != nil {
		return Result{Err: err}
	}
	a.addCutoff(&rows.Cutoff{Cutoff: revoked.Cutoff{
		Selector: m.Selector.Selector(), IssuedBefore: before, By: actor.ID, Reason: m.Reason,
	}})
	return Result{}
}

// addCutoff stores c as of the current entry. It replaces the cut-offs with the same selector that
// c covers. So among those that remain, a newer one has an earlier IssuedBefore.
func (a *Applier) addCutoff(c *rows.Cutoff) {
	c.At, c.Index, c.Seq = a.Stamp, a.Index, a.seq
	a.seq++
	c.Due = c.At.Add(a.currentSettings().CutoffRetention)
	for _, old := range a.cutoffsOf(&c.Selector) {
		if old.IssuedBefore <= c.IssuedBefore && (c.Whole || !old.Whole) {
			a.dropCutoff(old)
		}
	}
	a.putCutoff(c)
	a.event(revoked.Event{
		Kind: revoked.EventCutoff, Selector: c.Selector, IssuedBefore: c.IssuedBefore, Actor: c.By, Reason: c.Reason,
	})
}
