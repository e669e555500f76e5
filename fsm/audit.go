package fsm

import (
	"context"

	"revoked"
	"revoked/fsm/rows"
)

// Audit returns audit entries with an index above after, in log order, as Events returns events: it
// never splits the entries of one index, and the result has every entry with an index in (after,
// upTo]. It returns ErrGone if entries above after were dropped.
func (f *FSM) Audit(after uint64, limit int) (entries []revoked.AuditEntry, upTo uint64, err error) {
	return page(f, audit, after, limit, parseAudit)
}

// AuditAt returns the audit entries of one index, which may be none. It returns ErrGone if they may
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

// WaitAudit blocks until the audit may have an entry with an index above after. Other entries of
// the log wake no caller. It returns nil too early once after Open and after Restore. Its errors
// are those of Wait.
func (f *FSM) WaitAudit(ctx context.Context, after uint64) error {
	return waitAbove(ctx, &f.audits, after)
}

// Audits returns the number of audit entries.
func (f *FSM) Audits() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Applied.Audits
}
