package fsm

import (
	"fmt"
	"slices"
	"time"

	"revoked"
)

// updateClient creates a client or replaces its record.
func (t *tx) updateClient(who *revoked.Client, m *PutClient) Result {
	if !who.Has(revoked.RoleAdmin) {
		return Result{Err: fmt.Errorf("%w: clients are kept by administrators", revoked.ErrForbidden)}
	}
	c := clientOf(m.Client)
	old := t.client(c.ID)
	switch {
	case m.IfVersion == 0 && old != nil:
		return Result{Err: fmt.Errorf("%w: client %q exists", revoked.ErrConflict, c.ID)}
	case m.IfVersion != 0 && old == nil:
		return Result{Err: fmt.Errorf("%w: client %q", revoked.ErrNotFound, c.ID)}
	case old != nil && old.Version != m.IfVersion:
		return Result{Err: fmt.Errorf("%w: client %q has changed", revoked.ErrConflict, c.ID)}
	}
	if !t.leavesAdmin(c.ID, c) {
		return Result{Err: fmt.Errorf("%w: no administrator would be left", revoked.ErrUnprocessable)}
	}
	c.Version, c.CreatedAt = t.Index, t.Stamp
	if old != nil {
		c.CreatedAt = old.CreatedAt
		// Two updates of one client in one log entry: the second must not carry the version of the
		// first, or a third could replace it unseen. Versions are unique by refusing it.
		if old.Version == t.Index {
			return Result{Err: fmt.Errorf("%w: client %q has changed", revoked.ErrConflict, c.ID)}
		}
	}
	t.putClient(c)
	if was := old != nil && old.Disabled; was != c.Disabled {
		t.clientEvent(who, c.ID, map[bool]string{true: "disabled", false: "enabled"}[c.Disabled])
	}
	return Result{Client: c}
}

// leavesAdmin reports whether someone can still administer when client id becomes c (nil: is gone).
func (t *tx) leavesAdmin(id string, c *revoked.Client) bool {
	if c != nil && administers(c) {
		return true
	}
	for other, v := range t.clients {
		if other != id && v != nil && administers(v) {
			return true
		}
	}
	for other, v := range t.mem.clients {
		if _, staged := t.clients[other]; !staged && other != id && administers(v) {
			return true
		}
	}
	return false
}

func administers(c *revoked.Client) bool {
	return c.Has(revoked.RoleAdmin) && !c.Disabled && c.Type == revoked.Confidential &&
		slices.ContainsFunc(c.Secrets, func(s revoked.SecretHash) bool { return s.ExpiresAt == 0 })
}

// deleteClient removes a client and ends its tokens: those issued up to now by a cut-off, and every
// grant that is there whatever its tokens claim, so that they stay dead when the id is taken again.
func (t *tx) deleteClient(who *revoked.Client, m *DeleteClient) Result {
	if !who.Has(revoked.RoleAdmin) {
		return Result{Err: fmt.Errorf("%w: clients are kept by administrators", revoked.ErrForbidden)}
	}
	if t.client(m.ClientId) == nil {
		if _, was := t.deletedClient(m.ClientId); was {
			return Result{}
		}
		return Result{Err: fmt.Errorf("%w: client %q", revoked.ErrNotFound, m.ClientId)}
	}
	if !t.leavesAdmin(m.ClientId, nil) {
		return Result{Err: fmt.Errorf("%w: no administrator would be left", revoked.ErrUnprocessable)}
	}
	t.dropClient(m.ClientId)
	t.putDeleted(m.ClientId, &deletedRow{At: t.Stamp, Index: t.Index, Due: t.Stamp.Add(t.config().CutoffRetention)})
	t.addCutoff(&cutoffRow{
		Cutoff: revoked.Cutoff{
			Selector: revoked.Selector{ClientID: m.ClientId}, IssuedBefore: t.Stamp, By: who.ID, Reason: "client deleted",
		},
		Whole: true,
	})
	t.clientEvent(who, m.ClientId, "deleted")
	return Result{}
}

func (t *tx) clientEvent(who *revoked.Client, id, action string) {
	t.event(revoked.Event{
		Kind: revoked.EventClient, Selector: revoked.Selector{ClientID: id}, Action: action, Actor: who.ID,
	})
}

// updateSettings replaces the settings.
func (t *tx) updateSettings(who *revoked.Client, m *PutSettings) Result {
	if !who.Has(revoked.RoleAdmin) {
		return Result{Err: fmt.Errorf("%w: settings are kept by administrators", revoked.ErrForbidden)}
	}
	if now := t.config().Version; now != m.IfVersion {
		return Result{Err: fmt.Errorf("%w: the settings have changed", revoked.ErrConflict)}
	}
	if t.config().Version == t.Index {
		return Result{Err: fmt.Errorf("%w: the settings have changed", revoked.ErrConflict)}
	}
	s := settingsOf(m.Settings)
	if err := checkSettings(s); err != nil {
		return Result{Err: err}
	}
	s.Version = t.Index
	next := t.withCeiling(s)
	t.putSettings(next)
	return Result{Settings: next.at(t.Stamp)}
}

// ceilingPatience is how long LeaseCeiling is remembered after a decrease: far more than the longest
// lease, for the stamp is not the clock that leases run on.
const ceilingPatience = time.Hour

// withCeiling sets what Apply alone sets: the longest lease that was granted under earlier settings
// and may still be in force.
func (t *tx) withCeiling(s revoked.Settings) settingsRow {
	was := t.config()
	longest := max(was.LeaseDuration, was.LeaseCeiling)
	if longest <= s.LeaseDuration {
		s.LeaseCeiling = 0
		return settingsRow{Settings: s}
	}
	s.LeaseCeiling = longest
	return settingsRow{Settings: s, CeilingUntil: t.Stamp.Add(ceilingPatience)}
}

// checkSettings returns ErrUnprocessable for settings under which the promise could not be kept, or the
// cluster not be used.
func checkSettings(s revoked.Settings) error {
	for _, b := range [...]struct {
		name          string
		v, least, max time.Duration
	}{
		{"lease_duration", s.LeaseDuration, 200 * time.Millisecond, time.Minute},
		{"late_registration_window", s.LateRegistrationWindow, time.Second, 90 * 24 * time.Hour},
		{"cutoff_retention", s.CutoffRetention, time.Minute, 20 * 366 * 24 * time.Hour},
		{"max_clock_skew", s.MaxClockSkew, 10 * time.Millisecond, 5 * time.Minute},
		{"secret_grace", s.SecretGrace, 0, 366 * 24 * time.Hour},
	} {
		if b.v < b.least || b.v > b.max {
			return fmt.Errorf("%w: %s must be between %s and %s", revoked.ErrUnprocessable, b.name, b.least, b.max)
		}
	}
	if s.CutoffRetention < s.LateRegistrationWindow {
		return fmt.Errorf("%w: cutoff_retention must not be shorter than late_registration_window", revoked.ErrUnprocessable)
	}
	return nil
}

// bootstrap gives a new cluster its id, settings and first clients. What is malformed is left out: the
// program checks its files before it proposes them.
func (t *tx) bootstrap(m *Bootstrap) {
	if t.clusterID() != "" || m.ClusterId == "" {
		return
	}
	t.putClusterID(m.ClusterId)
	s := revoked.DefaultSettings()
	if m.Settings != nil && checkSettings(settingsOf(m.Settings)) == nil {
		s = settingsOf(m.Settings)
	}
	s.Version, s.LeaseCeiling = t.Index, 0
	t.putSettings(settingsRow{Settings: s})
	for _, rec := range m.Clients {
		if t.client(rec.GetId()) != nil || checkClient(rec) != nil {
			continue
		}
		c := clientOf(rec)
		c.Version = t.Index
		if c.CreatedAt == 0 {
			c.CreatedAt = t.Stamp
		}
		t.putClient(c)
	}
}
