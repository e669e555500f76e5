package lookup

import (
	"revoked"
	"revoked/fsm/rows"
)

// Get returns the row with that key, or nil. The caller must not change it.
type Get = func(key []byte) ([]byte, error)

// Denial returns the revocation of j by a denial, by a tombstone of its digests, or by the
// registered grant that it claims. It ignores cut-offs, and returns nil if no such revocation
// exists. The argument own reports that the client ids of the issuer are those of this cluster.
//
// A registration takes precedence over the claims of a JWT, so the caller passes only the jti of a
// registered token. Denial reads up to seven rows, most of them absent.
func Denial(get Get, j *revoked.JWT, own bool) (*revoked.Revocation, error) {
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
		t, err := tombstone(get, j.Digests[i])
		if err != nil {
			return nil, err
		}
		if b := bindingTo(&t, j, own); b != nil {
			return revocationOf(b), nil
		}
	}
	r, err := revocationOfGrant(get, j.GrantID, j.Issuer)
	for i := 0; err == nil && r == nil && i < len(j.Earlier); i++ {
		r, err = revocationOfGrant(get, j.Earlier[i].GrantID, j.Issuer)
	}
	return r, err
}

// DeniedSince returns the entry that wrote the earliest of the denials with these keys, or nil.
func DeniedSince(get Get, keys []revoked.Digest) (first *revoked.Moment, err error) {
	for _, id := range keys {
		key := rows.DigestKey(nil, rows.FamilyDenial, id)
		row, err := get(key)
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		var v rows.Denial
		if err := rows.Parse(key, row, &v); err != nil {
			return nil, err
		}
		if began := v.Began(); first == nil || began.At < first.At {
			first = &began
		}
	}
	return first, nil
}

// bindingTo returns the binding of a tombstone that revokes j, or nil. The argument own reports
// that, under the mapping in force, the client of j is one of this cluster.
func bindingTo(t *rows.Tombstone, j *revoked.JWT, own bool) *rows.Binding {
	if b := t.BindingTo(""); b != nil {
		return b
	}
	if b := t.BindingTo(j.ClientID); own && b != nil {
		return b
	}
	for i := range j.Earlier {
		if b := t.BindingTo(j.Earlier[i].ClientID); j.Earlier[i].OwnClients && b != nil {
			return b
		}
	}
	return nil
}

// revocationOfGrant returns the revocation of a registered grant of that issuer, or nil.
func revocationOfGrant(get func(key []byte) ([]byte, error), id, issuer string) (*revoked.Revocation, error) {
	if id == "" {
		return nil, nil
	}
	row, err := get(rows.Key(nil, rows.FamilyGrant, id))
	if err != nil || row == nil {
		return nil, err
	}
	g, err := rows.ParseGrant(id, row)
	if err != nil || g.Issuer != issuer {
		return nil, err
	}
	return g.Revoked, nil
}

// tombstone returns the tombstone of a token. If the token has no tombstone, the result has no
// bindings.
func tombstone(get Get, d revoked.Digest) (t rows.Tombstone, err error) {
	key := rows.DigestKey(nil, rows.FamilyTombstone, d)
	row, err := get(key)
	if err == nil && row != nil {
		err = rows.Parse(key, row, &t)
	}
	return t, err
}

// Unknown returns the denial or the tombstone of an unknown token, or nil. The tombstone may apply
// to one client only. So use the result only to show it to administrators, not to decide whether
// the token is active.
func Unknown(get Get, d revoked.Digest) (*revoked.Revocation, error) {
	denial, err := Denial(get, &revoked.JWT{Digests: []revoked.Digest{d}}, false)
	if err != nil || denial != nil {
		return denial, err
	}
	t, err := tombstone(get, d)
	if err != nil || len(t.Bindings) == 0 {
		return nil, err
	}
	return revocationOf(&t.Bindings[0]), nil
}

func revocationOf(b *rows.Binding) *revoked.Revocation {
	return &revoked.Revocation{At: b.At, By: b.By, Reason: b.Reason, Index: b.Index}
}
