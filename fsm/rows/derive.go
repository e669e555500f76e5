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
			return fmt.Errorf("overflow token of a grant: %w", ErrRow)
		}
		due, err = ParseMember(val)
		row = DigestKey(nil, FamilyToken, revoked.Digest(key[len(key)-32:]))
	case FamilyTombstone:
		due, err = dueOf(key, val, new(Tombstone), func(v *Tombstone) revoked.Time { return v.Due })
	case FamilyCutoff:
		due, err = dueOf(key, val, new(Cutoff), func(v *Cutoff) revoked.Time { return v.Due })
	case FamilyDeleted:
		due, err = dueOf(key, val, new(Deleted), func(v *Deleted) revoked.Time { return v.Due })
	case FamilyAdmission:
		due, err = dueOf(key, val, new(Admission), (*Admission).Due)
	case FamilyJoinToken:
		due, err = dueOf(key, val, new(JoinToken), (*JoinToken).Due)
	case FamilyAssertion:
		due, err = dueOf(key, val, new(Assertion), func(v *Assertion) revoked.Time { return v.Due })
	case FamilyDenial:
		due, err = dueOf(key, val, new(Denial), func(v *Denial) revoked.Time { return v.Until })
	case FamilyIssuer:
		var v *Issuer
		if v, err = ParseIssuer(string(key[1:]), val); err == nil {
			due = v.Due
		}
	case FamilyHistory:
		due, err = historyDue(key, val)
	case FamilyFinal:
		_, err = ParseFinal(val)
	case FamilyMembers:
		err = Parse(key, val, &Members{})
	}
	if err != nil || due == 0 {
		return err
	}
	return put(QueueKey(nil, due, row))
}

// dueOf decodes a row into v, which must be zero, and returns the time of its queue entry.
func dueOf[R Row](key, val []byte, v R, due func(R) revoked.Time) (revoked.Time, error) {
	err := Parse(key, val, v)
	return due(v), err
}
