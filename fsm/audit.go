package fsm

import (
	"context"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// Audit returns the audit entries with an index in (after, upTo], in log order. It stops after
// limit entries, but never splits the entries of one index. It returns ErrGone if entries with an
// index greater than the argument after were dropped.
func (f *FSM) Audit(after uint64, limit int) (entries []revoked.AuditEntry, upTo uint64, err error) {
	return page(f, audit, after, limit, parseAudit)
}

// AuditAt returns the audit entries of one index, or an empty list. It returns ErrGone if they may
// have been dropped.
func (f *FSM) AuditAt(index uint64) (entries []revoked.AuditEntry, err error) {
	if index == 0 {
		return nil, nil
	}
	list, _, err := f.Audit(index-1, 1)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.Index == index {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func parseAudit(key, val []byte) (revoked.AuditEntry, error) {
	var e rows.Audit
	err := rows.Parse(key, val, &e)
	return e.AuditEntry, err
}

// WaitAudit blocks until the audit log may have an entry whose index is greater than the argument
// after. Log entries without an audit entry do not wake it. It may return nil without such an
// entry, once after Open and once after Restore. It returns the errors of Wait.
func (f *FSM) WaitAudit(ctx context.Context, after uint64) error {
	return waitAbove(ctx, &f.audits, after)
}

// Audits returns the number of audit entries.
func (f *FSM) Audits() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Applied.Audits
}

// AuditBefore returns an index that splits the audit log at a time, in whole seconds. Entries up to
// the index are from earlier seconds, and later entries are not. AuditBefore reads only a few rows,
// because stamps never decrease.
func (f *FSM) AuditBefore(at revoked.Time) (uint64, error) {
	s, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer s.Release()
	f.mu.RLock()
	low, high := f.mem.Applied.AuditsFloor, f.mem.Applied.Index
	f.mu.RUnlock()
	for low < high {
		mid := low + (high-low)/2
		next := high // index of the first entry after mid, used only if that entry is early
		early := false
		start := rows.SeqKey(nil, rows.FamilyAudit, mid+1, 0)
		err := s.Scan([]byte{rows.FamilyAudit}, start, func(key, val []byte) (bool, error) {
			e, err := parseAudit(key, val)
			next, early = e.Index, err == nil && e.Time.Unix() < at.Unix()
			return false, err
		})
		switch {
		case err != nil:
			return 0, err
		case early:
			low = min(next, high)
		default:
			high = mid
		}
	}
	return low, nil
}

// KnownObject returns o without the ids that the state does not contain. The first of these is
// replaced by its digest, because a caller may have sent a token or a secret in place of an id.
// isMember reports whether the configuration has a node.
func (f *FSM) KnownObject(o revoked.AuditObject, isMember func(node string) bool) revoked.AuditObject {
	_, isGrant, err := f.LookupGrant(o.GrantID)
	isGrant = isGrant && err == nil
	f.mu.RLock()
	defer f.mu.RUnlock()
	issuer := f.mem.Issuers[o.Name]
	for _, id := range [...]struct {
		text  *string
		known bool
	}{
		{&o.ClientID, f.mem.Clients[o.ClientID] != nil || f.mem.Deleted[o.ClientID] != nil},
		{&o.GrantID, isGrant},
		{&o.Name, issuer != nil},
		{&o.Thumbprint, issuer != nil && issuer.Key(o.Thumbprint) != nil},
		{&o.Issuer, f.mem.IssuersByID[o.Issuer] != nil},
		{&o.Node, isMember(o.Node) || f.mem.Admissions[o.Node] != nil},
		{&o.JoinToken, f.mem.JoinTokens[o.JoinToken] != nil},
	} {
		if *id.text == "" || id.known {
			continue
		}
		if o.Digest.IsZero() {
			o.Digest = revoked.DigestToken(*id.text)
		}
		*id.text = ""
	}
	return o
}

// NotedMembers returns the configuration recorded in the audit log, and the index of the operation
// that contained it. The index is 0 before the first such operation. The list must not be changed.
func (f *FSM) NotedMembers() (list []command.NotedMember, index uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Members.List, f.mem.Members.Index
}
