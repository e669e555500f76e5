package fsm

import (
	"cmp"
	"slices"

	"revoked"
)

// Issuers returns the trusted issuers in the order of their names, including deleted ones whose
// tokens can still be revoked. The caller must not change them.
func (f *FSM) Issuers() []*revoked.Issuer {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]*revoked.Issuer, 0, len(f.mem.Issuers))
	for _, v := range f.mem.Issuers {
		list = append(list, &v.Issuer)
	}
	slices.SortFunc(list, func(a, b *revoked.Issuer) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Issuer returns the issuer with that iss, even a deleted one whose tokens can still be revoked, or
// nil. The caller must not change it.
func (f *FSM) Issuer(iss string) *revoked.Issuer {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if v := f.mem.IssuersByID[iss]; v != nil {
		return &v.Issuer
	}
	return nil
}

// Denials returns the number of denials in the state. Expired ones count until Expire drops them.
func (f *FSM) Denials() (n uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, count := range f.mem.Denials {
		n += count
	}
	return n
}
