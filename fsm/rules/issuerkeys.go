package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"revoked"
)

// keyGrace is the time between two fetches without a key that retire the key.
const keyGrace = 30 * time.Second

var errTooManyKeys = fmt.Errorf("%w: more than %d keys, with those that are retired or banned",
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

// mergeKeys returns the keys after set has replaced a set at now. A key that is missing from set
// for grace is retired. A key that is retired or banned stays so, even if set contains it. Both
// lists are in the order of their thumbprints. The result depends on stamps only, so every member
// retires a key at the same entry.
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
