package rows

import (
	"fmt"

	"revoked"
)

// Derive calls put with the index and queue keys that follow from a row of the state. It returns an
// error for a malformed row, and the first error of put. put must not retain the key.
func Derive(key, val []byte, put func(key []byte) error) error {
	var due revoked.Time
	var err error
	row := key
	switch key[0] {
	case FamilyGrant:
		var g Grant
		if g, err = ParseGrant(string(key[1:]), val); err == nil {
			EachIndexKey(nil, &g.Grant, func(k []byte) {
				if err == nil {
					err = put(k)
				}
			})
		}
		due = g.Due
	case FamilyMember:
		if len(key) < 33 {
			return fmt.Errorf("grant token: %w", ErrRow)
		}
		due, err = ParseMember(val)
		row = DigestKey(nil, FamilyToken, revoked.Digest(key[len(key)-32:]))
	case FamilyTombstone:
		var t Tombstone
		err = Parse(key, val, &t)
		due = t.Due
	case FamilyCutoff:
		var c Cutoff
		err = Parse(key, val, &c)
		due = c.Due
	case FamilyDeleted:
		var d Deleted
		err = Parse(key, val, &d)
		due = d.Due
	case FamilyAdmission:
		var v Admission
		err = Parse(key, val, &v)
		due = v.Due()
	case FamilyJoinToken:
		var v JoinToken
		err = Parse(key, val, &v)
		due = v.Due()
	case FamilyAssertion:
		var v Assertion
		err = Parse(key, val, &v)
		due = v.Due
	case FamilyDenial:
		var v Denial
		err = Parse(key, val, &v)
		due = v.Until
	case FamilyIssuer:
		var v *Issuer
		if v, err = ParseIssuer(string(key[1:]), val); err == nil {
			due = v.Due
		}
	case FamilyHistory:
		due, err = historyDue(key, val)
	case FamilyFinal:
		_, err = ParseFinal(val)
	}
	if err != nil || due == 0 {
		return err
	}
	return put(QueueKey(nil, due, row))
}
