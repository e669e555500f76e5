package fsm

import (
	"time"

	"revoked"
	"revoked/fsm/lookup"
)

// jtiOf returns a JWT with only the issuer and the jti of a registered token. Denials of the
// token's other claims do not apply, because a registration takes precedence over the claims of a
// JWT.
func jtiOf(r *revoked.Record) *revoked.JWT {
	return &revoked.JWT{Issuer: r.Grant.Issuer, JTI: r.Token.JTI}
}

// Ending returns the revocation or the cut-off that ended the token with digest d and status st.
// For an unknown token, it returns the denial or the tombstone, if one exists.
func (f *FSM) Ending(st *revoked.TokenStatus, d revoked.Digest) (end revoked.Ending, err error) {
	s, err := f.acquire()
	if err != nil {
		return end, err
	}
	defer s.Release()
	switch {
	case st.Verdict == revoked.Unknown:
		end.Revoked, err = lookup.Unknown(s.Get, d)
	case st.Reason == revoked.ReasonRevoked:
		end.Revoked = st.Record.Grant.Revoked
	case st.Reason == revoked.ReasonCutOff:
		end.Cutoff = f.cutoffOf(st)
	case st.Reason == revoked.ReasonDenied && st.JWT != nil:
		end.Revoked, err = lookup.Denial(s.Get, st.JWT, !st.Foreign)
	case st.Reason == revoked.ReasonDenied:
		end.Revoked, err = lookup.Denial(s.Get, jtiOf(&st.Record), false)
	}
	return end, err
}

// cutoffOf returns the cut-off that revoked a token, or nil. A stub does not record when its token
// was issued. Then cutoffOf returns the cut-off with the latest IssuedBefore: if any cut-off covers
// the token, this one does.
func (f *FSM) cutoffOf(st *revoked.TokenStatus) *revoked.Cutoff {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var skew time.Duration
	if v := f.mem.IssuersByID[st.Record.Grant.Issuer]; v != nil && st.JWT != nil {
		skew = v.CutoffSkew(st.Record.Token.IssuedAt)
	}
	find := f.mem.Cutoffs.Find
	if st.Record.Token.State != revoked.Live {
		find = f.mem.Cutoffs.Furthest
	}
	c := find(&st.Record.Grant, &st.Record.Token, skew)
	for i := 0; c == nil && i < len(st.Record.Earlier); i++ {
		c = find(&st.Record.Earlier[i], &st.Record.Token, skew)
	}
	if c == nil {
		return nil
	}
	out := c.Cutoff
	return &out
}

// IsDenied reports whether the state revokes j, apart from cut-offs. The state may revoke j by a
// denial, by a tombstone of its digests, or by the registered grant that j claims. Set own if the
// client ids of the issuer are those of this cluster.
//
// Its result is current until Changes receives TokenChanged for one of the digests or of
// revoked.JWT.DenialKeys, or the record of the issuer changes.
func (f *FSM) IsDenied(j *revoked.JWT, own bool) (bool, error) {
	s, err := f.acquire()
	if err != nil {
		return false, err
	}
	defer s.Release()
	denial, err := lookup.Denial(s.Get, j, own)
	return denial != nil || err != nil, err
}
