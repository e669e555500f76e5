package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// maxIssuers is the maximum number of issuers, including those deleted less than max_lifetime ago.
const maxIssuers = 256

// updateIssuer creates an issuer or replaces its record. The name and the iss of a deleted issuer
// stay reserved until all of its tokens have expired.
func (a *Applier) updateIssuer(actor *revoked.Client, m *command.PutIssuer) Result {
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
		next.KeysVersion = a.Index // so that a fetch from the old address is refused
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
			return fmt.Errorf("%w: issuer %q was deleted; its name and iss are reserved until %s", revoked.ErrConflict, v.Name,
				v.Due.Std().Format(time.RFC3339))
		default:
			return fmt.Errorf("%w: issuer %q already exists with iss %q", revoked.ErrConflict, v.Name, v.Issuer.Issuer)
		}
	}
	if n := len(stagedValues(a.mem.Issuers, a.issuers)); n >= maxIssuers {
		return fmt.Errorf("%w: too many issuers: %d exist or were deleted less than max_lifetime ago",
			revoked.ErrUnprocessable, n)
	}
	return nil
}

// mayUpdate returns an error unless next may replace old. The iss never changes, because denials
// and cached decisions depend on it.
func (a *Applier) mayUpdate(old *rows.Issuer, next *revoked.Issuer, version uint64) error {
	switch {
	case old == nil || old.DeletedAt != 0:
		return fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, next.Name)
	case old.Issuer.Issuer != next.Issuer:
		return fmt.Errorf("%w: issuer cannot be changed", revoked.ErrUnprocessable)
	case old.Version != version || old.Version == a.Index:
		return fmt.Errorf("%w: issuer %q has changed", revoked.ErrConflict, next.Name)
	}
	return nil
}

// deleteIssuer revokes the tokens of an issuer. Its row stays until all of them have expired, so
// that they can still be revoked. The cut-off covers all tokens issued until now, and those that
// another cut-off may have ended. A later record with the same iss may map other claims, and then
// the other cut-off may not match.
func (a *Applier) deleteIssuer(actor *revoked.Client, name string) Result {
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
	// A later record with the same iss may also have another clock_skew.
	before := max(a.Stamp, a.latestCutoff(nil)).Add(next.CutoffSkew(a.Stamp))
	a.addCutoff(&rows.Cutoff{Cutoff: revoked.Cutoff{
		Selector: revoked.Selector{Issuer: next.Issuer.Issuer}, IssuedBefore: before, By: actor.ID,
		Reason: "issuer deleted",
	}})
	a.issuerEvent(actor.ID, &next.Issuer, "deleted", "")
	return Result{}
}

// updateKeys stores a set of keys that the leader has fetched. If the record or its keys have
// changed since the fetch began, KeysVersion differs and updateKeys returns ErrConflict.
func (a *Applier) updateKeys(m *command.PutIssuerKeys) Result {
	old := a.issuer(m.Name)
	switch {
	case old == nil || old.DeletedAt != 0:
		return Result{Err: fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, m.Name)}
	case old.JWKSURI == "" || old.KeysVersion != m.KeysVersion:
		return Result{Err: fmt.Errorf("%w: the keys of issuer %q have changed", revoked.ErrConflict, m.Name)}
	}
	next := *old
	set := (&command.IssuerRecord{Keys: m.Keys}).Record().Keys
	next.Keys = mergeKeys(old.Keys, set, a.Stamp, keyGrace)
	if len(next.Keys) > revoked.MaxIssuerKeys {
		return Result{Err: errTooManyKeys}
	}
	if slices.EqualFunc(next.Keys, old.Keys, equalKeys) {
		return Result{}
	}
	a.putKeys("", old, &next)
	return Result{}
}

// banKey bans a key permanently. No key set that is stored later makes the key active again. So an
// administrator can ban a leaked key while the issuer still publishes it.
func (a *Applier) banKey(actor *revoked.Client, m *command.BanIssuerKey) Result {
	old := a.issuer(m.Name)
	if old == nil || old.Key(m.Thumbprint) == nil {
		return Result{Err: fmt.Errorf("%w: key %q of issuer %q", revoked.ErrNotFound, m.Thumbprint, m.Name)}
	}
	if old.Key(m.Thumbprint).State == revoked.KeyBanned {
		return Result{}
	}
	next := *old
	next.Keys = slices.Clone(old.Keys)
	k := next.Key(m.Thumbprint)
	k.State, k.EndedAt = revoked.KeyBanned, a.Stamp
	a.putKeys(actor.ID, old, &next)
	return Result{}
}

// putKeys writes next, whose keys differ from those of old.
func (a *Applier) putKeys(by string, old, next *rows.Issuer) {
	next.Version, next.KeysVersion = a.Index, a.Index
	a.putIssuer(next)
	a.keyEvents(by, &old.Issuer, &next.Issuer)
}

// expireIssuer drops a deleted issuer, or the keys that were retired long ago and the mappings that
// were replaced long ago.
func (a *Applier) expireIssuer(name string, due, before revoked.Time) {
	old := a.issuer(name)
	if old == nil || old.Due != due {
		a.fail(errStray("issuer", name))
		return
	}
	next := *old
	if next.DeletedAt != 0 && a.issuerDue(&next.Issuer) <= before {
		a.dropIssuer(old)
		a.distrusted = true
		return
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
}

// issuerDue returns the time at which expireIssuer must examine i, or 0 for never.
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

// keyGrace is the minimum time between two fetches that lack a key before the key is retired.
const keyGrace = 30 * time.Second

var errTooManyKeys = fmt.Errorf("%w: more than %d keys, including retired and banned ones",
	revoked.ErrUnprocessable, revoked.MaxIssuerKeys)

// keyEvents adds an event for each key that stopped being active, and one if a key is new.
func (a *Applier) keyEvents(by string, old, next *revoked.Issuer) {
	isNew := false
	for i := range next.Keys {
		k := &next.Keys[i]
		was := old.Key(k.Thumbprint)
		switch {
		case was == nil:
			isNew = true
		case was.State != k.State && k.State == revoked.KeyRetired:
			a.issuerEvent(by, next, "key_retired", "key "+k.Thumbprint)
		case was.State != k.State && k.State == revoked.KeyBanned:
			a.issuerEvent(by, next, "key_banned", "key "+k.Thumbprint)
		}
	}
	if isNew && old.Version != 0 && next.JWKSURI != "" {
		a.issuerEvent(by, next, "changed", "new key")
	}
}

// mergeKeys returns the keys of an issuer after its key set has become set at the time now. A key
// that has been missing from the key set for at least grace is retired. A key that is retired or
// banned stays so, even if set contains it. Both lists are in the order of their thumbprints. The
// result depends on stamps only, so every member retires a key at the same entry.
func mergeKeys(old, set []revoked.IssuerKey, now revoked.Time, grace time.Duration) []revoked.IssuerKey {
	byThumbprint := func(a, b revoked.IssuerKey) int { return cmp.Compare(a.Thumbprint, b.Thumbprint) }
	var merged []revoked.IssuerKey
	for _, k := range old {
		if i, found := slices.BinarySearchFunc(set, k, byThumbprint); found {
			k.KeyID, k.Algorithm, k.MissingSince = set[i].KeyID, set[i].Algorithm, 0
		} else {
			k.MissingSince = cmp.Or(k.MissingSince, now)
			if k.State == revoked.KeyActive && now.Sub(k.MissingSince) >= grace {
				k.State, k.EndedAt = revoked.KeyRetired, now
			}
		}
		merged = append(merged, k)
	}
	for _, k := range set {
		if _, found := slices.BinarySearchFunc(old, k, byThumbprint); !found {
			k.State, k.MissingSince, k.EndedAt = revoked.KeyActive, 0, 0
			merged = append(merged, k)
		}
	}
	slices.SortFunc(merged, byThumbprint)
	return merged
}

// equalKeys compares keys with the same thumbprint, which identifies Public.
func equalKeys(a, b revoked.IssuerKey) bool {
	a.Public, b.Public = nil, nil
	return a.KeyID == b.KeyID && a.Thumbprint == b.Thumbprint && a.Algorithm == b.Algorithm && a.State == b.State &&
		a.MissingSince == b.MissingSince && a.EndedAt == b.EndedAt
}
