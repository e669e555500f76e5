package fsm

import (
	"revoked"
	"revoked/fsm/rows"
)

// SetAssertionQuota replaces the quota of used assertions of one client. Call it before Apply.
func (f *FSM) SetAssertionQuota(n int) { f.rules.AssertionQuota = n }

// SetDenialQuota replaces the quota of denials of one client. Call it before Apply.
func (f *FSM) SetDenialQuota(n uint64) { f.rules.DenialQuota = n }

// FilteredRows returns the number of rows of the filtered families, and the first one that the
// filter lacks although the store has it, or nil.
func (f *FSM) FilteredRows() (n int, lacked []byte, err error) {
	s, err := f.acquire()
	if err != nil {
		return 0, nil, err
	}
	defer s.Release()
	for _, family := range filteredFamilies {
		err = s.Scan([]byte{family}, nil, func(key, _ []byte) (bool, error) {
			n++
			if s.Lacks(key) {
				lacked = append([]byte(nil), key...)
			}
			return lacked == nil, nil
		})
		if err != nil || lacked != nil {
			break
		}
	}
	return n, lacked, err
}

// LacksDenial reports whether the filter shows, without a read, that no denial has that key.
func (f *FSM) LacksDenial(id revoked.Digest) (bool, error) {
	s, err := f.acquire()
	if err != nil {
		return false, err
	}
	defer s.Release()
	return s.Lacks(rows.DigestKey(nil, rows.FamilyDenial, id)), nil
}
