package fsm

import (
	"bytes"
	"slices"

	"revoked"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// History returns the stored history of the token with digest d. It reads rows before memory, so it
// misses no change that was applied before the call. It may miss a change that commits during the
// call, but such a change does not affect any time before the call.
func (f *FSM) History(d revoked.Digest) (h revoked.History, err error) {
	s, err := f.acquire()
	if err != nil {
		return h, err
	}
	defer s.Release()
	t, found, err := lookup.Token(s, d)
	if err != nil {
		return h, err
	}
	var g rows.Grant
	if found {
		g, found, err = lookup.Grant(s, t.GrantID)
	}
	if err == nil && found {
		h.Record = revoked.Record{Found: true, Token: t, Grant: g.Grant}
		h.GrantEnded = g.EndedAt()
		err = f.ofGrant(s, &h)
	} else if err == nil {
		err = ofUnregistered(s, d, &h)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	head := &f.mem.History
	h.Gaps, h.Reaped = slices.Clone(head.Gaps), head.Reaped
	if head.Since != 0 {
		h.Since = max(head.Since, head.Floor)
	}
	if r := &h.Record; r.Token.JTI != "" && r.Grant.Issuer != "" {
		switch {
		case r.Token.EndedIndex != 0:
			h.Undenied = r.Token.UndeniedAt
		case f.mem.IssuersByID[r.Grant.Issuer] != nil:
			h.Undenied = head.Undenied
		default:
			h.Undenied = head.Distrusted
		}
	}
	h.Client = revoked.StateOfClient(f.mem.Clients[h.Record.Grant.ClientID])
	if issued := h.Record.Token.IssuedAt; found && issued != 0 { // a stub of an older version has no issued_at
		for _, c := range f.mem.Cutoffs.Covering(&h.Record.Grant, &h.Record.Token) {
			h.Cutoffs = append(h.Cutoffs, revoked.Moment{At: c.At, Index: c.Index})
		}
	}
	return h, err
}

// ofGrant adds to h the replaced cut-offs that cover the token, the changes of the client, and the
// denial of the jti.
func (f *FSM) ofGrant(s *store.Store, h *revoked.History) error {
	r := &h.Record
	for _, prefix := range rows.PastCutoffPrefixes(&r.Grant) {
		err := s.Scan(prefix, nil, func(key, val []byte) (bool, error) {
			var c rows.PastCutoff
			err := rows.Parse(key, val, &c)
			if r.Token.IssuedAt != 0 && c.Covers(&r.Grant, &r.Token, 0) {
				h.Cutoffs = append(h.Cutoffs, revoked.Moment{At: c.At, Index: c.Index})
			}
			return true, err
		})
		if err != nil {
			return err
		}
	}
	prefix := rows.ClientChangePrefix(r.Grant.ClientID)
	err := s.Scan(prefix, nil, func(key, val []byte) (bool, error) {
		var v rows.ClientChange
		err := rows.Parse(key, val, &v)
		h.Changes = append(h.Changes, v.ClientChange)
		return true, err
	})
	if err == nil && r.Token.JTI != "" && f.trusts(r.Grant.Issuer) {
		h.Denied, err = lookup.DeniedSince(s.Get, jtiOf(r).DenialKeys())
	}
	if at := r.Token.DeniedAt; at != 0 && (h.Denied == nil || at < h.Denied.At) {
		h.Denied = &revoked.Moment{At: at, Index: r.Token.DeniedIndex}
	}
	return err
}

// trusts reports whether a record of the issuer exists.
func (f *FSM) trusts(issuer string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.IssuersByID[issuer] != nil
}

// ofUnregistered sets h.Ended to the entry that revoked a digest that is not registered.
func ofUnregistered(s *store.Store, d revoked.Digest, h *revoked.History) (err error) {
	j := revoked.JWT{Digests: []revoked.Digest{d}}
	if h.Ended, err = lookup.DeniedSince(s.Get, j.DenialKeys()); err != nil || h.Ended != nil {
		return err
	}
	tombstone, err := lookup.Denial(s.Get, &j, false)
	if err == nil && tombstone == nil {
		h.OneClient = true
		tombstone, err = lookup.Unknown(s.Get, d)
	}
	if tombstone != nil {
		h.Ended = &revoked.Moment{At: tombstone.At, Index: tombstone.Index}
	}
	return err
}

// AsOf reports whether a token was active at a given time. It also reports when the change that
// decided the answer became final.
func (f *FSM) AsOf(d revoked.Digest, at revoked.Time) (revoked.PastAnswer, error) {
	h, err := f.History(d)
	if err != nil {
		return revoked.PastAnswer{}, err
	}
	out := revoked.AsOf(&h, at)
	if out.Index == 0 {
		return out, nil
	}
	var before revoked.Time
	if out.Final, before, err = f.FinalAt(out.Index); out.State == revoked.PastInactive {
		out.FinalBefore = before
	}
	return out, err
}

// FinalAt returns the acknowledgement of the entry at index, or nil if the state has no record of
// it. Then the result before is an upper bound of its time, or 0 if no bound is known. The bound is
// the time at which a later entry was acknowledged, even in a later term: an acknowledgement covers
// all earlier entries.
func (f *FSM) FinalAt(index uint64) (exact *revoked.Acknowledgement, before revoked.Time, err error) {
	s, err := f.acquire()
	if err != nil {
		return nil, 0, err
	}
	defer s.Release()
	later := 0
	start := rows.SeqKey(nil, rows.FamilyFinal, index+1, 0)
	err = s.Scan([]byte{rows.FamilyFinal}, start, func(_, val []byte) (bool, error) {
		list, err := rows.ParseFinal(bytes.Clone(val))
		for i := range list {
			switch v := &list[i]; {
			case v.Index == index:
				exact = v
				return false, err
			case v.Index > index && (before == 0 || v.At < before):
				before = v.At
			}
		}
		if len(list) > 0 && list[0].Index > index {
			later++
		}
		return later < laterFinals, err
	})
	if exact != nil {
		before = 0
	}
	return exact, before, err
}

// laterFinals is the number of rows that FinalAt reads among those with only later entries. Two
// entries may be recorded in either order, so the record of the earlier one may be in the later
// row.
const laterFinals = 4

// KeepsHistory reports whether the state records the history that AsOf reads.
func (f *FSM) KeepsHistory() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.History.Since != 0
}
