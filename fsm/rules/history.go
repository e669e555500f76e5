package rules

import (
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// MaxFinals is the number of Acknowledge operations that the state keeps.
const MaxFinals = 100_000

// dropped records which rows that AsOf may need were dropped by the current command.
type dropped struct {
	reaped     bool // the row of a token, a denial or a tombstone was dropped
	undenied   bool // a denial was dropped whose registered grants had not been revoked
	distrusted bool // the record of an issuer was dropped
}

// currentHistory returns the head row of the history. It must not be changed.
func (a *access) currentHistory() *rows.History {
	if a.history != nil {
		return a.history
	}
	return &a.mem.History
}

// keepsHistory reports whether rows record the history that AsOf reads. It depends only on the
// state. A member of an older version stops at the operation that begins the history, so it never
// reads such rows.
func (a *access) keepsHistory() bool { return a.currentHistory().Since != 0 }

// putHistory writes the head row of the history.
func (a *access) putHistory(h rows.History) {
	key := rows.HistoryKey()
	a.put(key, a.get(key), rows.Append(nil, &h))
	if !a.dry {
		a.history = &h
	}
}

// recordEnd marks a token that is about to become a stub as ended by the current entry. It also
// records since when the jti of the token was denied, or may have been denied.
func (a *access) recordEnd(t *revoked.Token) {
	if !a.keepsHistory() {
		return
	}
	if t.EndedIndex == 0 {
		t.EndedAt, t.EndedIndex = a.Stamp, a.Index
	}
	if t.JTI == "" {
		return
	}
	g, row := a.grant(t.GrantID)
	if row == nil || g.Issuer == "" {
		return
	}
	head := a.historyNow()
	if t.UndeniedAt = head.Distrusted; a.issuerOf(g.Issuer) == nil {
		return
	}
	t.UndeniedAt = head.Undenied
	if v, row := a.denial(revoked.DenialKey(revoked.DenyJTI, g.Issuer, t.JTI)); row != nil {
		began := v.Began()
		t.DeniedAt, t.DeniedIndex = began.At, began.Index
	}
}

// historyRetention returns the time for which the rows of the history stay. They stay at least as
// long as cut-offs and as audit entries, which record the same changes.
func (a *access) historyRetention() time.Duration {
	s := a.currentSettings()
	return max(s.CutoffRetention, s.AuditRetention)
}

// recordClient records a change of a client between enabled, disabled and absent. c is the new
// record, or nil if the client is deleted. Call it before the change.
func (a *access) recordClient(id string, c *revoked.Client) {
	v := rows.ClientChange{Due: a.Stamp.Add(a.historyRetention())}
	v.Moment = revoked.Moment{At: a.Stamp, Index: a.Index}
	v.Was, v.Is = revoked.StateOfClient(a.client(id)), revoked.StateOfClient(c)
	if !a.keepsHistory() || v.Was == v.Is {
		return
	}
	key := rows.ClientChangeKey(id, a.Index)
	old := a.get(key)
	if old != nil { // an earlier operation of the same entry changed the client
		var first rows.ClientChange
		if err := rows.Parse(key, old, &first); err != nil {
			a.fail(err)
		}
		v.Was = first.Was
	}
	a.requeue(key, 0, v.Due)
	a.put(key, old, rows.Append(nil, &v))
}

// recordReplaced keeps a copy of a cut-off that the current entry replaces, because the old cut-off
// revoked its tokens before the time of the new one.
func (a *access) recordReplaced(c *rows.Cutoff) {
	if !a.keepsHistory() {
		return
	}
	v := rows.PastCutoff{Cutoff: *c, ReplacedAt: a.Stamp}
	v.Due = a.Stamp.Add(a.historyRetention())
	key := rows.PastCutoffKey(c)
	a.requeue(key, 0, v.Due)
	a.put(key, nil, rows.Append(nil, &v))
}

// historyNow returns the head row of the history, including what the current command has dropped so
// far.
func (a *access) historyNow() rows.History {
	h := *a.currentHistory()
	for _, v := range [...]struct {
		is bool
		at *revoked.Time
	}{{a.reaped, &h.Reaped}, {a.undenied, &h.Undenied}, {a.distrusted, &h.Distrusted}} {
		if v.is {
			*v.at = a.Stamp
		}
	}
	return h
}

// recordDropped records in the head row of the history what the current command has dropped.
func (a *Applier) recordDropped() {
	if a.dropped != (dropped{}) && a.keepsHistory() {
		a.putHistory(a.historyNow())
	}
	a.dropped = dropped{}
}

// expireHistory drops a row of the history after its retention, and raises the floor.
func (a *Applier) expireHistory(key []byte, due, before revoked.Time) {
	row := a.get(key)
	if row == nil {
		a.fail(errStray("history", string(key)))
		return
	}
	v, err := rows.ParsePast(key, row)
	if err != nil || *v.DueAt() != due {
		a.fail(errStray("history", string(key)))
		return
	}
	if kept := v.End().Add(a.historyRetention()); kept > before {
		*v.DueAt() = kept
		a.requeue(key, due, kept)
		a.put(key, row, rows.Append(nil, v))
		return
	}
	a.requeue(key, due, 0)
	a.del(key, row)
	if h := *a.currentHistory(); h.Floor < v.End() {
		h.Floor = v.End()
		a.putHistory(h)
	}
}

// acknowledge records when entries became final. The first such operation of a log begins the
// history.
func (a *Applier) acknowledge(m *command.Acknowledge) Result {
	if !a.keepsHistory() {
		a.putHistory(rows.History{Since: a.Stamp})
	}
	if len(m.Index) == 0 {
		return Result{}
	}
	row, err := rows.AppendFinal(nil, m)
	if err != nil {
		a.fail(err)
		return Result{}
	}
	key := rows.SeqKey(nil, rows.FamilyFinal, a.Index, a.seq)
	a.seq++
	a.put(key, nil, row)
	a.finals++
	return Result{}
}

// trimFinals drops at most limit of the oldest rows of acknowledgements: rows beyond MaxFinals, and
// rows that are older than historyRetention.
func (a *Applier) trimFinals(before revoked.Time, limit int) {
	if limit <= 0 || a.mem.Finals == 0 || a.err != nil {
		return
	}
	type row struct{ key, val []byte }
	var old []row
	oldest := before.Add(-a.historyRetention())
	err := a.store.Scan([]byte{rows.FamilyFinal}, nil, func(key, val []byte) (bool, error) {
		if len(old) >= limit {
			return false, nil
		}
		if a.mem.Finals-len(old) <= MaxFinals {
			list, err := rows.ParseFinal(val)
			if err != nil || len(list) == 0 || list[len(list)-1].At >= oldest {
				return false, err
			}
		}
		old = append(old, row{append([]byte(nil), key...), append([]byte(nil), val...)})
		return true, nil
	})
	if err != nil {
		a.fail(err)
		return
	}
	for _, r := range old {
		a.del(r.key, r.val)
		a.finals--
	}
}
