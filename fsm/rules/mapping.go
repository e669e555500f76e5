package rules

import (
	"fmt"
	"slices"
	"time"

	"revoked"
)

// keepMapping sets Earlier and MappingVersion. A change of the mapping must not make a token active
// that has ended by its client, session or grant. Such a token was active, or was cut off, by the
// mapping that next replaces. So it was issued at most a skew after this entry, or after the
// cut-off that reaches furthest. It returns ErrUnprocessable while too many mappings apply.
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
		return fmt.Errorf("%w: client_claim, session_claim, grant_claim, own_clients: tokens of %d earlier values may live; "+
			"another change is possible at %s", revoked.ErrUnprocessable, len(next.Earlier), due.Std().Format(time.RFC3339))
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

// mappingDue returns the time at which every token of i that was seen under m is over by every
// clock, or too long-lived to become active again. See limitLifetime.
func (a *access) mappingDue(i *revoked.Issuer, m *revoked.EarlierMapping) revoked.Time {
	return m.Until.Add(a.jwtLifetime(i))
}

// furthestCutoff returns the latest moment that a cut-off reaches, or that one of this stamp may
// reach. counts selects the cut-offs; nil selects all.
func (a *access) furthestCutoff(counts func(*revoked.Cutoff) bool) revoked.Time {
	return max(a.Stamp.Add(a.currentSettings().MaxClockSkew), a.latestCutoff(counts))
}

// latestCutoff returns the latest moment that a cut-off reaches, or an earlier one that is before
// the stamp. counts selects the cut-offs; nil selects all.
func (a *access) latestCutoff(counts func(*revoked.Cutoff) bool) revoked.Time {
	latest := a.mem.Cutoffs.Latest(counts)
	for _, k := range a.cutoffOrder {
		if c := a.cutoffs[k]; c != nil && (counts == nil || counts(&c.Cutoff)) {
			latest = max(latest, c.IssuedBefore)
		}
	}
	return latest
}
