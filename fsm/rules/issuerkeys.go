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

// keyGrace is the time between two fetches without a key that retire the key.
const keyGrace = 30 * time.Second

// updateKeys stores a set of keys that the leader has fetched. KeysVersion refuses a fetch that
// began before the record or its keys changed.
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

var errTooManyKeys = fmt.Errorf("%w: more than %d keys, with those that are retired or banned",
	revoked.ErrUnprocessable, revoked.MaxIssuerKeys)

// banKey bans a key for good. No later set brings it back, so an administrator need not wait until
// the issuer stops publishing a key that leaked.
func (a *Applier) banKey(actor *revoked.Client, m *command.BanIssuerKey) Result {
	if !actor.Has(revoked.RoleAdmin) {
		return Result{Err: errAdminOnly("issuers")}
	}
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

// mergeKeys returns the keys after set has replaced a set at now. A key that is missing from set
// for grace is retired. A key that is retired or banned stays so, also if set has it. Both lists
// are in the order of their thumbprints. The result depends on stamps only, so every member retires
// a key at the same entry.
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

// equalKeys compares keys with the same thumbprint, which stands for Public.
func equalKeys(a, b revoked.IssuerKey) bool {
	a.Public, b.Public = nil, nil
	return a.KeyID == b.KeyID && a.Thumbprint == b.Thumbprint && a.Algorithm == b.Algorithm && a.State == b.State &&
		a.MissingSince == b.MissingSince && a.EndedAt == b.EndedAt
}

// keyDue returns the time from which a key serves nothing, 0 for never. A fetch must not bring back
// a key that is banned, or retired and still published.
func (a *access) keyDue(i *revoked.Issuer, k *revoked.IssuerKey) revoked.Time {
	if k.State != revoked.KeyRetired || k.MissingSince == 0 {
		return 0
	}
	return max(k.EndedAt, k.MissingSince).Add(a.jwtLifetime(i))
}
