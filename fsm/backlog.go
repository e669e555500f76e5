package fsm

import (
	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
	"revoked/fsm/rules"
	"revoked/fsm/store"
)

// Limits of the background commands that Backlog returns, in rows.
const (
	expireLimit  = 4000
	compactLimit = 1000
)

// OldestDue returns a time before which no entry of the queue is due, or 0 if Expire has not read
// the queue since Open. Only Expire moves this time forward.
func (f *FSM) OldestDue() revoked.Time {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return max(f.mem.QueueFloor, 0)
}

// Background is a command that changes a limited number of rows.
type Background interface {
	command.Command
	GetLimit() uint32
}

// Backlog returns the next background command with stamp now, or nil if none is due. Compact is due
// while revoked tokens are not stubs yet. Expire is due once an entry of the queue is overdue by
// max_clock_skew, or the feed or the audit log exceeds its limits. Backlog reads at most two rows,
// so it may be called every second. The function size receives the largest limit of the command and
// returns the limit to use, in rows.
func (f *FSM) Backlog(now revoked.Time, size func(limit int) int) Background {
	s, err := f.acquire()
	if err != nil {
		return nil
	}
	defer s.Release()
	f.mu.RLock()
	stamp, skew := f.mem.Applied.Stamp, f.mem.Settings.MaxClockSkew
	floor, compactions := f.mem.QueueFloor, f.mem.Compactions+len(f.mem.Uncompacted)
	due := f.mem.Applied.Events > rules.MaxEvents+rules.MaxEvents/100
	most := uint64(f.mem.Settings.AuditMaxEntries)
	due = due || f.mem.Applied.Audits > most+most/1000
	f.mu.RUnlock()
	if compactions > 0 {
		return &command.Compact{Stamp: int64(now), Limit: uint32(size(compactLimit))}
	}
	before := min(now, stamp).Add(-skew)
	start := rows.QueueKey(nil, max(floor, 0), nil)
	err = s.Scan([]byte{rows.FamilyQueue}, start, func(key, _ []byte) (bool, error) {
		at, _, err := rows.ParseQueueKey(key)
		due = due || (err == nil && at <= before)
		return false, err
	})
	if err == nil && !due {
		due, err = f.hasOldAudit(s, before)
	}
	if err != nil {
		f.failed.report(err)
		return nil
	}
	if !due || before <= 0 {
		return nil
	}
	return &command.Expire{Stamp: int64(now), Before: int64(before), Limit: uint32(size(expireLimit))}
}

// hasOldAudit reports whether the oldest audit entry is older than audit_retention.
func (f *FSM) hasOldAudit(s *store.Store, before revoked.Time) (old bool, err error) {
	f.mu.RLock()
	n, floor, keep := f.mem.Applied.Audits, f.mem.Applied.AuditsFloor, f.mem.Settings.AuditRetention
	f.mu.RUnlock()
	if n == 0 {
		return false, nil
	}
	start := rows.SeqKey(nil, rows.FamilyAudit, floor, 0)
	err = s.Scan([]byte{rows.FamilyAudit}, start, func(key, val []byte) (bool, error) {
		e, err := parseAudit(key, val)
		old = e.Time < before.Add(-keep)
		return false, err
	})
	return old, err
}
