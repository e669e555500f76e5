package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
)

// maxIssuers bounds the issuers, with those that were deleted less than max_lifetime ago.
const maxIssuers = 256

// updateIssuer creates an issuer or replaces its record. The name and the iss of a deleted issuer
// stay taken while a token of it may live.
func (a *Applier) updateIssuer(actor *revoked.Client, m *command.PutIssuer) Result {
	if !actor.Has(revoked.RoleAdmin) {
		return Result{Err: errAdminOnly("issuers")}
	}
	next := &rows.Issuer{Issuer: *m.Issuer.Record()}
	old := a.issuer(next.Name)
	if m.IfVersion == 0 {
		if err := a.mayCreate(&next.Issuer); err != nil {
			return Result{Err: err}
		}
		old = &rows.Issuer{}
		next.CreatedAt, next.KeysVersion = a.Stamp, a.Index
	} else {
		if err := a.mayUpdate(old, &next.Issuer, m.IfVersion); err != nil {
			return Result{Err: err}
		}
		next.CreatedAt, next.KeysVersion = old.CreatedAt, old.KeysVersion
	}
	next.Version, next.DeletedAt = a.Index, 0
	a.limitLifetime(&old.Issuer, &next.Issuer)
	a.keepSkew(&old.Issuer, &next.Issuer)
	if err := a.keepMapping(&old.Issuer, &next.Issuer); err != nil {
		return Result{Err: err}
	}
	set := next.Keys
	if next.Keys = old.Keys; next.JWKSURI == "" {
		next.Keys = mergeKeys(old.Keys, set, a.Stamp, 0)
	}
	if len(next.Keys) > revoked.MaxIssuerKeys {
		return Result{Err: errTooManyKeys}
	}
	if next.JWKSURI != old.JWKSURI || !slices.EqualFunc(next.Keys, old.Keys, equalKeys) {
		next.KeysVersion = a.Index // a fetch from the old address comes too late
	}
	a.putIssuer(next)
	action := "changed"
	if next.Disabled != old.Disabled {
		action = map[bool]string{true: "disabled", false: "enabled"}[next.Disabled]
	}
	a.issuerEvent(actor.ID, &next.Issuer, action, "")
	a.keyEvents(actor.ID, &old.Issuer, &next.Issuer)
	return Result{}
}

// mayCreate returns ErrConflict if the name or the iss is taken. Two records with one iss could
// trust different keys for the same tokens.
func (a *Applier) mayCreate(next *revoked.Issuer) error {
	for _, v := range [...]*rows.Issuer{a.issuer(next.Name), a.issuerOf(next.Issuer)} {
		switch {
		case v == nil:
		case v.DeletedAt != 0:
			return fmt.Errorf("%w: issuer %q was deleted; its name and iss are free at %s", revoked.ErrConflict, v.Name,
				v.Due.Std().Format(time.RFC3339))
		default:
			return fmt.Errorf("%w: issuer %q exists, with iss %q", revoked.ErrConflict, v.Name, v.Issuer.Issuer)
		}
	}
	if n := len(stagedValues(a.mem.Issuers, a.issuers)); n >= maxIssuers {
		return fmt.Errorf("%w: %d issuers exist or were deleted less than max_lifetime ago, the maximum",
			revoked.ErrUnprocessable, n)
	}
	return nil
}

// mayUpdate returns an error unless next may replace old. The iss never changes: denials depend on
// it, and cached decisions too.
func (a *Applier) mayUpdate(old *rows.Issuer, next *revoked.Issuer, version uint64) error {
	switch {
	case old == nil || old.DeletedAt != 0:
		return fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, next.Name)
	case old.Issuer.Issuer != next.Issuer:
		return fmt.Errorf("%w: issuer: it never changes", revoked.ErrUnprocessable)
	case old.Version != version || old.Version == a.Index:
		return fmt.Errorf("%w: issuer %q has changed", revoked.ErrConflict, next.Name)
	}
	return nil
}

// limitLifetime sets EarlierLifetime and LifetimeSince. A raise of MaxLifetime must not make a
// token active that was inactive before: its denial may be over. A token that is affected by an
// earlier raise, and may still live, stays bound by the shortest of all.
func (a *Applier) limitLifetime(old, next *revoked.Issuer) {
	next.EarlierLifetime, next.LifetimeSince = old.EarlierLifetime, old.LifetimeSince
	skews := next.ClockSkew + a.currentSettings().MaxClockSkew
	if since := old.LifetimeSince; since != 0 && since.Add(next.MaxLifetime+skews) <= a.Stamp {
		next.EarlierLifetime, next.LifetimeSince = 0, 0
	}
	if old.Name == "" || next.MaxLifetime <= old.MaxLifetime {
		return
	}
	if next.EarlierLifetime = old.MaxLifetime; next.LifetimeSince != 0 {
		next.EarlierLifetime = min(old.MaxLifetime, old.EarlierLifetime)
	}
	next.LifetimeSince = a.Stamp.Add(max(old.ClockSkew, next.ClockSkew))
}

// keepSkew sets EarlierSkew and SkewSince. A lower ClockSkew must not make a token active that a
// cut-off has ended. Such a token was issued at most the skew after the cut-off that reaches
// furthest.
func (a *Applier) keepSkew(old, next *revoked.Issuer) {
	next.EarlierSkew, next.SkewSince = old.EarlierSkew, old.SkewSince
	ahead := a.currentSettings().MaxClockSkew
	if since := old.SkewSince; since != 0 && since.Add(next.MaxLifetime+ahead) <= a.Stamp {
		next.EarlierSkew, next.SkewSince = 0, 0
	}
	if next.ClockSkew < old.ClockSkew {
		next.EarlierSkew = max(next.EarlierSkew, old.ClockSkew)
		next.SkewSince = a.furthestCutoff(nil).Add(next.EarlierSkew)
	}
}

// deleteIssuer ends the tokens of an issuer. Its row stays while one of them may live, so that they
// can still be revoked. Its cut-off covers what was issued until now, and what another cut-off may
// have ended: a later record with the same iss may read other claims.
func (a *Applier) deleteIssuer(actor *revoked.Client, name string) Result {
	if !actor.Has(revoked.RoleAdmin) {
		return Result{Err: errAdminOnly("issuers")}
	}
	old := a.issuer(name)
	if old == nil {
		return Result{Err: fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, name)}
	}
	if old.DeletedAt != 0 {
		return Result{}
	}
	next := *old
	next.DeletedAt, next.Version = a.Stamp, a.Index
	a.putIssuer(&next)
	// That record may have another skew, too.
	before := max(a.Stamp, a.latestCutoff(nil)).Add(next.CutoffSkew(a.Stamp))
	a.addCutoff(&rows.Cutoff{Cutoff: revoked.Cutoff{
		Selector: revoked.Selector{Issuer: next.Issuer.Issuer}, IssuedBefore: before, By: actor.ID,
		Reason: "issuer deleted",
	}})
	a.issuerEvent(actor.ID, &next.Issuer, "deleted", "")
	return Result{}
}

// issuerEvent tells the feed that tokens of an issuer may have changed, so that resource servers
// drop what they cached.
func (a *Applier) issuerEvent(by string, i *revoked.Issuer, action, reason string) {
	a.event(revoked.Event{
		Kind: revoked.EventIssuer, Selector: revoked.Selector{Issuer: i.Issuer}, Action: action, Actor: by, Reason: reason,
	})
}

// jwtLifetime returns the time after which every JWT of i that exists now is over by every clock.
// An administrator may raise the clock skew meanwhile, but not beyond its bound.
func (a *access) jwtLifetime(i *revoked.Issuer) time.Duration {
	return i.MaxLifetime + revoked.MaxIssuerClockSkew + a.currentSettings().MaxClockSkew
}

// longestJWT returns the longest jwtLifetime of the issuers that exist, 0 without any.
func (a *access) longestJWT() (longest time.Duration) {
	for _, v := range a.issuers {
		if v != nil && v.DeletedAt == 0 {
			longest = max(longest, a.jwtLifetime(&v.Issuer))
		}
	}
	for name, v := range a.mem.Issuers {
		if _, changed := a.issuers[name]; !changed && v.DeletedAt == 0 {
			longest = max(longest, a.jwtLifetime(&v.Issuer))
		}
	}
	return longest
}

// longestLifetime returns the time after which a JWT that exists now is over, whatever the records
// of issuers become.
func (a *access) longestLifetime() time.Duration {
	return revoked.MaxIssuerLifetime + revoked.MaxIssuerClockSkew + a.currentSettings().MaxClockSkew
}

// expireIssuer drops a deleted issuer, or the keys that were retired long ago and the mappings that
// were replaced long ago.
func (a *Applier) expireIssuer(name string, due, before revoked.Time) int {
	old := a.issuer(name)
	if old == nil || old.Due != due {
		a.fail(errStray("issuer", name))
		return 1
	}
	next := *old
	if next.DeletedAt != 0 && a.issuerDue(&next.Issuer) <= before {
		a.dropIssuer(old)
		return 1
	}
	next.Keys = slices.DeleteFunc(slices.Clone(old.Keys), func(k revoked.IssuerKey) bool {
		end := a.keyDue(&old.Issuer, &k)
		return end != 0 && end <= before
	})
	if len(next.Keys) != len(old.Keys) {
		next.Version, next.KeysVersion = a.Index, a.Index
	}
	next.Earlier = slices.DeleteFunc(slices.Clone(old.Earlier), func(m revoked.EarlierMapping) bool {
		return a.mappingDue(&old.Issuer, &m) <= before
	})
	a.putIssuer(&next)
	return 1
}

// issuerDue returns the time at which expireIssuer must look at i, 0 for never.
func (a *access) issuerDue(i *revoked.Issuer) (due revoked.Time) {
	if i.DeletedAt != 0 {
		return i.DeletedAt.Add(a.jwtLifetime(i))
	}
	for n := range i.Keys {
		if end := a.keyDue(i, &i.Keys[n]); end != 0 && (due == 0 || end < due) {
			due = end
		}
	}
	for n := range i.Earlier {
		if end := a.mappingDue(i, &i.Earlier[n]); due == 0 || end < due {
			due = end
		}
	}
	return due
}

// issuer returns an issuer, or nil. The caller must not change it.
func (a *access) issuer(name string) *rows.Issuer {
	if v, ok := a.issuers[name]; ok {
		return v
	}
	return a.mem.Issuers[name]
}

// issuerOf returns the issuer with that iss, or nil.
func (a *access) issuerOf(iss string) *rows.Issuer {
	for _, v := range a.issuers {
		if v != nil && v.Issuer.Issuer == iss {
			return v
		}
	}
	if v := a.mem.IssuersByID[iss]; v != nil && a.issuer(v.Name) == v {
		return v
	}
	return nil
}

// putIssuer writes v, which must not change afterwards, and moves its queue entry.
func (a *access) putIssuer(v *rows.Issuer) {
	var was revoked.Time
	if old := a.issuer(v.Name); old != nil {
		was = old.Due
	}
	v.Due = a.issuerDue(&v.Issuer)
	row, err := rows.AppendIssuer(nil, v)
	if err != nil {
		a.fail(fmt.Errorf("encode issuer: %w", err))
		return
	}
	key := rows.Key(nil, rows.FamilyIssuer, v.Name)
	a.requeue(key, was, v.Due)
	a.put(key, a.get(key), row)
	put(&a.issuers, v.Name, v)
}

func (a *access) dropIssuer(v *rows.Issuer) {
	key := rows.Key(nil, rows.FamilyIssuer, v.Name)
	a.requeue(key, v.Due, 0)
	a.del(key, a.get(key))
	put(&a.issuers, v.Name, nil)
}

// publishIssuers moves staged issuers into memory.
func publishIssuers(m *memory.State, staged map[string]*rows.Issuer) {
	for name := range staged {
		if old := m.Issuers[name]; old != nil {
			delete(m.IssuersByID, old.Issuer.Issuer)
		}
	}
	for _, v := range staged { // a deleted issuer may give its iss to another name
		if v != nil {
			m.IssuersByID[v.Issuer.Issuer] = v
		}
	}
	publishMap(m.Issuers, staged)
}
