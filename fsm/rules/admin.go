package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// updateClient creates a client or replaces its record. IfVersion is 0 for a new client, and
// otherwise the version that the caller has seen. So two administrators never overwrite each
// other's change.
func (a *Applier) updateClient(actor *revoked.Client, m *command.PutClient) Result {
	c := m.Client.Client()
	old := a.client(c.ID)
	switch {
	case m.IfVersion == 0 && old != nil:
		return Result{Err: fmt.Errorf("%w: client %q exists", revoked.ErrConflict, c.ID)}
	case m.IfVersion != 0 && old == nil:
		return Result{Err: fmt.Errorf("%w: client %q", revoked.ErrNotFound, c.ID)}
	case old != nil && (old.Version != m.IfVersion || old.Version == a.Index):
		// A second update in one log entry would get the same version as the first.
		return Result{Err: fmt.Errorf("%w: client %q has changed", revoked.ErrConflict, c.ID)}
	}
	// A record that an older bootstrap accepted may stay invalid: see DESIGN.md.
	if err := revoked.ValidateClient(c); err != nil && (old == nil || revoked.ValidateClient(old) == nil) {
		return Result{Err: err}
	}
	if !a.leavesAdmin(c.ID, c) {
		return Result{Err: errLastAdmin}
	}
	c.Version, c.CreatedAt = a.Index, a.Stamp
	wasDisabled := false
	if old != nil {
		c.CreatedAt, wasDisabled = old.CreatedAt, old.Disabled
	}
	a.putClient(c)
	if c.Disabled != wasDisabled {
		a.clientEvent(actor, c.ID, map[bool]string{true: "disabled", false: "enabled"}[c.Disabled])
	}
	return Result{}
}

// errLastAdmin refuses a change that would leave the cluster without an administrator. Only a
// restore could undo such a change.
var errLastAdmin = fmt.Errorf("%w: no administrator would be left", revoked.ErrUnprocessable)

// leavesAdmin reports whether an administrator remains after the client with this id is replaced
// with c, or deleted if c is nil.
func (a *Applier) leavesAdmin(id string, c *revoked.Client) bool {
	if isAdmin(c) {
		return true
	}
	for other, v := range a.clients {
		if other != id && isAdmin(v) {
			return true
		}
	}
	for other, v := range a.mem.Clients {
		if _, changed := a.clients[other]; !changed && other != id && isAdmin(v) {
			return true
		}
	}
	return false
}

// isAdmin reports whether c is an enabled administrator with a secret that never expires, or with a
// key. Secrets that expire do not count, because the cluster would later be left without an
// administrator. A certificate from a CA does not count either: it expires and needs a setting of
// the node.
func isAdmin(c *revoked.Client) bool {
	if c == nil || !c.Has(revoked.RoleAdmin) || c.Disabled || c.Type != revoked.Confidential {
		return false
	}
	lasts := func(s revoked.SecretHash) bool { return s.ExpiresAt == 0 }
	return slices.ContainsFunc(c.Secrets, lasts) && c.UsesSecret() || len(c.Keys) > 0 && c.MayUse(revoked.AuthPrivateKey)
}

// deleteClient removes a client and revokes its tokens with a Whole cut-off, so that they stay
// revoked if the id is used again. A second deletion succeeds while the record of the first exists,
// for cutoff_retention.
func (a *Applier) deleteClient(actor *revoked.Client, m *command.DeleteClient) Result {
	if a.client(m.ClientId) == nil {
		if a.deletedClient(m.ClientId) != nil {
			return Result{}
		}
		return Result{Err: fmt.Errorf("%w: client %q", revoked.ErrNotFound, m.ClientId)}
	}
	if !a.leavesAdmin(m.ClientId, nil) {
		return Result{Err: errLastAdmin}
	}
	a.dropClient(m.ClientId)
	due := a.Stamp.Add(a.currentSettings().CutoffRetention)
	a.putDeleted(m.ClientId, &rows.Deleted{At: a.Stamp, Index: a.Index, Due: due})
	a.addCutoff(&rows.Cutoff{Whole: true, Cutoff: revoked.Cutoff{
		Selector: revoked.Selector{ClientID: m.ClientId}, IssuedBefore: a.Stamp, By: actor.ID,
		Reason: "client deleted",
	}})
	a.clientEvent(actor, m.ClientId, "deleted")
	return Result{}
}

// clientEvent adds a client event to the feed, so that readers of the feed invalidate their caches.
func (a *Applier) clientEvent(actor *revoked.Client, id, action string) {
	a.event(revoked.Event{
		Kind: revoked.EventClient, Selector: revoked.Selector{ClientID: id}, Action: action, Actor: actor.ID,
	})
}

// updateSettings replaces the settings. They apply from the next operation of the same entry.
func (a *Applier) updateSettings(m *command.PutSettings) Result {
	if v := a.currentSettings().Version; v != m.IfVersion || v == a.Index {
		return Result{Err: fmt.Errorf("%w: the settings have changed", revoked.ErrConflict)}
	}
	s := m.Settings.Settings()
	s.Version = a.Index
	next := a.withCeiling(s)
	a.putSettings(&next)
	return Result{}
}

// ceilingRetention is the time for which a LeaseCeiling applies. It is far longer than the longest
// lease, because stamps and leases use different clocks.
const ceilingRetention = time.Hour

// withCeiling returns s with LeaseCeiling set to the longest lease of earlier settings that may
// still be in force. A new leader waits for that long at most, so a shorter lease must not shorten
// its wait immediately.
func (a *Applier) withCeiling(s revoked.Settings) rows.Settings {
	was := a.currentSettings()
	longest := max(was.LeaseDuration, was.LeaseCeiling)
	if longest <= s.LeaseDuration {
		s.LeaseCeiling = 0
		return rows.Settings{Settings: s}
	}
	s.LeaseCeiling = longest
	return rows.Settings{Settings: s, CeilingUntil: a.Stamp.Add(ceilingRetention)}
}

// makeCutoff revokes all selected tokens that were issued at or before a time. 0 means the stamp of
// the entry. CheckIssuedBefore limits the time: a cut-off far in the future would revoke new tokens
// for years.
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

// addCutoff stores c as of the current entry. It drops an old cut-off with the same selector if c
// revokes everything that the old one revokes. So among the remaining cut-offs with this selector,
// a newer one has an earlier IssuedBefore, unless an older one is Whole.
func (a *Applier) addCutoff(c *rows.Cutoff) {
	c.At, c.Index, c.Seq = a.Stamp, a.Index, a.seq
	a.seq++
	c.Due = c.At.Add(a.currentSettings().CutoffRetention)
	for _, old := range a.cutoffsOf(&c.Selector) {
		if old.IssuedBefore <= c.IssuedBefore && (c.Whole || !old.Whole) {
			a.recordReplaced(old)
			a.dropCutoff(old)
		}
	}
	a.putCutoff(c)
	a.event(revoked.Event{
		Kind: revoked.EventCutoff, Selector: c.Selector, IssuedBefore: c.IssuedBefore, Actor: c.By, Reason: c.Reason,
	})
}
