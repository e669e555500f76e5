package fsm

import (
	"time"

	"revoked"
	"revoked/fsm/rows"
)

// jtiOf returns the only property of a registered token by which a denial ends it. A registration
// wins over the other claims of a JWT.
func jtiOf(r *revoked.Record) *revoked.JWT {
	return &revoked.JWT{Issuer: r.Grant.Issuer, JTI: r.Token.JTI}
}

// Ending returns what ended the token with digest d and that status. An unknown token may have a
// denial or a tombstone.
func (f *FSM) Ending(st *revoked.TokenStatus, d revoked.Digest) (end revoked.Ending, err error) {
	s, err := f.acquire()
	if err != nil {
		return end, err
	}
	defer s.Release()
	switch {
	case st.Verdict == revoked.Unknown:
		end.Revoked, err = findUnknown(s.Get, d)
	case st.Reason == revoked.ReasonRevoked:
		end.Revoked = st.Record.Grant.Revoked
	case st.Reason == revoked.ReasonCutOff:
		end.Cutoff = f.cutoffOf(st)
	case st.Reason == revoked.ReasonDenied && st.JWT != nil:
		end.Revoked, err = findDenial(s.Get, st.JWT, !st.Foreign)
	case st.Reason == revoked.ReasonDenied:
		end.Revoked, err = findDenial(s.Get, jtiOf(&st.Record), false)
	}
	return end, err
}

// cutoffOf returns the cut-off that ended a token, or nil. A stub does not record when its token
// was issued. Then it is the cut-off that reaches furthest: it covers the token if any does.
func (f *FSM) cutoffOf(st *revoked.TokenStatus) *revoked.Cutoff {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var skew time.Duration
	if v := f.mem.issuersByID[st.Record.Grant.Issuer]; v != nil && st.JWT != nil {
		skew = v.CutoffSkew(st.Record.Token.IssuedAt)
	}
	find := f.mem.cutoffs.find
	if st.Record.Token.State != revoked.Live {
		find = f.mem.cutoffs.furthest
	}
	c := find(&st.Record.Grant, &st.Record.Token, skew)
	if c == nil {
		return nil
	}
	out := c.Cutoff
	return &out
}

// IsDenied reports whether the state ends j, apart from cut-offs: by a denial, by a tombstone of
// its digests, or by the registered grant that it claims. own reports that the client ids of its
// issuer are those of the cluster.
//
// Its result is current until Changes receives TokenChanged for one of the digests or of
// revoked.JWT.DenialKeys, or the record of the issuer changes.
func (f *FSM) IsDenied(j *revoked.JWT, own bool) (bool, error) {
	s, err := f.acquire()
	if err != nil {
		return false, err
	}
	defer s.Release()
	denial, err := findDenial(s.Get, j, own)
	return denial != nil || err != nil, err
}

// findDenial returns what ends j apart from cut-offs, or nil, see IsDenied.
func findDenial(
	get func(key []byte) ([]byte, error), j *revoked.JWT, own bool,
) (*revoked.Revocation, error) {
	for _, id := range j.DenialKeys() {
		key := rows.DigestKey(nil, rows.FamilyDenial, id)
		row, err := get(key)
		if err != nil {
			return nil, err
		}
		if row != nil {
			var v rows.Denial
			err := rows.Parse(key, row, &v)
			return &revoked.Revocation{At: v.At, By: v.By, Reason: v.Reason, Index: v.Index}, err
		}
	}
	for i := range j.Digests {
		t, err := readTombstone(get, j.Digests[i])
		if err != nil {
			return nil, err
		}
		if b := t.BindingTo(""); b != nil {
			return revocationOf(b), nil
		}
		if b := t.BindingTo(j.ClientID); own && b != nil {
			return revocationOf(b), nil
		}
	}
	if j.GrantID == "" {
		return nil, nil
	}
	row, err := get(rows.Key(nil, rows.FamilyGrant, j.GrantID))
	if err != nil || row == nil {
		return nil, err
	}
	g, err := rows.ParseGrant(j.GrantID, row)
	if err != nil || g.Issuer != j.Issuer {
		return nil, err
	}
	return g.Revoked, nil
}

// readTombstone returns the tombstone of a token. It has no bindings if there is none.
func readTombstone(get func(key []byte) ([]byte, error), d revoked.Digest) (t rows.Tombstone, err error) {
	key := rows.DigestKey(nil, rows.FamilyTombstone, d)
	row, err := get(key)
	if err == nil && row != nil {
		err = rows.Parse(key, row, &t)
	}
	return t, err
}

// findUnknown returns the denial of an unknown token or its tombstone, which may bind one client
// only, or nil.
func findUnknown(get func(key []byte) ([]byte, error), d revoked.Digest) (*revoked.Revocation, error) {
	denial, err := findDenial(get, &revoked.JWT{Digests: []revoked.Digest{d}}, false)
	if err != nil || denial != nil {
		return denial, err
	}
	t, err := readTombstone(get, d)
	if err != nil || len(t.Bindings) == 0 {
		return nil, err
	}
	return revocationOf(&t.Bindings[0]), nil
}

func revocationOf(b *rows.Binding) *revoked.Revocation {
	return &revoked.Revocation{At: b.At, By: b.By, Reason: b.Reason, Index: b.Index}
}
