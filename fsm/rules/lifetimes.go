package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
)

// jwtLifetime returns the time after which every JWT of i that exists now has expired according to
// every clock. An administrator may increase clock_skew before then, but not beyond
// MaxIssuerClockSkew.
func (a *access) jwtLifetime(i *revoked.Issuer) time.Duration {
	return i.MaxLifetime + revoked.MaxIssuerClockSkew + a.currentSettings().MaxClockSkew
}

// longestJWT returns the longest jwtLifetime of the issuers that exist, or 0 without issuers.
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

// longestLifetime returns the time after which a JWT that exists now has expired, even if the
// records of issuers change.
func (a *access) longestLifetime() time.Duration {
	return revoked.MaxIssuerLifetime + revoked.MaxIssuerClockSkew + a.currentSettings().MaxClockSkew
}

// keyDue returns the time from which a key is no longer needed, or 0 for never. A banned key, and a
// retired key that is still published, stay in the state. Otherwise a fetch would make them active
// again.
func (a *access) keyDue(i *revoked.Issuer, k *revoked.IssuerKey) revoked.Time {
	if k.State != revoked.KeyRetired || k.MissingSince == 0 {
		return 0
	}
	return max(k.EndedAt, k.MissingSince).Add(a.jwtLifetime(i))
}

// mappingDue returns when the mapping m of issuer i is no longer needed. By then, each token whose
// claims were read under m has expired according to every clock, or is too long-lived to become
// active again. See limitLifetime.
func (a *access) mappingDue(i *revoked.Issuer, m *revoked.EarlierMapping) revoked.Time {
	return m.Until.Add(a.jwtLifetime(i))
}

// limitLifetime sets EarlierLifetime and LifetimeSince. An increase of MaxLifetime must not make an
// inactive token active: its denial may have expired. For a token that was issued before an earlier
// increase, and may still be valid, the smallest earlier MaxLifetime remains the limit.
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

// keepSkew sets EarlierSkew and SkewSince. If ClockSkew is lowered, a token that a cut-off has
// ended must not become active. Such a token was issued at most the skew after the latest cut-off.
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

// keepMapping sets Earlier and MappingVersion. After a change of the mapping, a token that was
// revoked through its client, session or grant must not become active. Such a token was active, or
// was cut off, under the mapping that next replaces. So it was issued at most a skew after this
// entry, or after the latest cut-off. keepMapping returns ErrUnprocessable while too many mappings
// apply.
func (a *Applier) keepMapping(old, next *revoked.Issuer) error {
	next.MappingVersion = old.MappingVersion
	mapping := next.Mapping()
	next.Earlier = slices.DeleteFunc(slices.Clone(old.Earlier), func(m revoked.EarlierMapping) bool {
		return m.ClaimMapping == mapping || a.mappingDue(next, &m) <= a.Stamp
	})
	if old.Name == "" || old.Mapping() == mapping {
		return nil
	}
	if len(next.Earlier) == revoked.MaxEarlierMappings {
		due := a.mappingDue(next, &next.Earlier[0])
		for i := range next.Earlier {
			due = min(due, a.mappingDue(next, &next.Earlier[i]))
		}
		return fmt.Errorf("%w: client_claim, session_claim, grant_claim and own_clients cannot change yet: "+
			"tokens issued under %d earlier settings may still be valid; retry after %s",
			revoked.ErrUnprocessable, len(next.Earlier), due.Std().Format(time.RFC3339))
	}
	next.MappingVersion = a.Index
	until := a.furthestCutoff(func(c *revoked.Cutoff) bool {
		return c.ClientID != "" || c.Session != "" || c.GrantID != ""
	})
	next.Earlier = append(next.Earlier, revoked.EarlierMapping{
		ClaimMapping: old.Mapping(), Until: until.Add(max(old.CutoffSkew(a.Stamp), next.ClockSkew)),
	})
	return nil
}

// furthestCutoff returns the latest IssuedBefore that an existing cut-off has, or that a new
// cut-off may have at this stamp. It considers the existing cut-offs for which counts returns true;
// nil means all.
func (a *access) furthestCutoff(counts func(*revoked.Cutoff) bool) revoked.Time {
	return max(a.Stamp.Add(a.currentSettings().MaxClockSkew), a.latestCutoff(counts))
}

// latestCutoff returns the latest IssuedBefore of the cut-offs. If that time is before the stamp,
// latestCutoff may return an earlier time. It considers the cut-offs for which counts returns true;
// nil means all.
func (a *access) latestCutoff(counts func(*revoked.Cutoff) bool) revoked.Time {
	latest := a.mem.Cutoffs.Latest(counts)
	for _, k := range a.cutoffOrder {
		if c := a.cutoffs[k]; c != nil && (counts == nil || counts(&c.Cutoff)) {
			latest = max(latest, c.IssuedBefore)
		}
	}
	return latest
}
