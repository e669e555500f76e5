package lookup

import (
	"bytes"

	"revoked"
	"revoked/fsm/rows"
)

// A Reader reads committed rows.
type Reader interface {
	Get(key []byte) ([]byte, error)
	Scan(prefix, start []byte, fn func(key, val []byte) (bool, error)) error
}

// Token reads a committed token or stub. It reports false if the digest is not registered.
func Token(s Reader, d revoked.Digest) (revoked.Token, bool, error) {
	var key [33]byte
	row, err := s.Get(rows.DigestKey(key[:0], rows.FamilyToken, d))
	if err != nil || row == nil {
		return revoked.Token{}, false, err
	}
	t, err := rows.ParseToken(d, row)
	return t, err == nil, err
}

// AssertionUse reads the id of the request that used an assertion. The result used is false if the
// state does not record a use of the assertion.
func AssertionUse(s Reader, id revoked.Digest) (request [16]byte, used bool, err error) {
	key := rows.DigestKey(nil, rows.FamilyAssertion, id)
	row, err := s.Get(key)
	if err != nil || row == nil {
		return request, false, err
	}
	var v rows.Assertion
	err = rows.Parse(key, row, &v)
	return v.Request, err == nil, err
}

// Grant reads a committed grant. It reports false if the grant does not exist.
func Grant(s Reader, id string) (rows.Grant, bool, error) {
	row, err := s.Get(rows.Key(nil, rows.FamilyGrant, id))
	if err != nil || row == nil {
		return rows.Grant{}, false, err
	}
	g, err := rows.ParseGrant(id, row)
	return g, err == nil, err
}

// EachToken calls fn with every token of g, including stubs, until fn returns false. The inline
// tokens come first, in the order of registration, then the others, in the order of their digests.
func EachToken(s Reader, g *rows.Grant, fn func(*revoked.Token) bool) error {
	more := true
	one := func(d revoked.Digest) error {
		t, ok, err := Token(s, d)
		if ok {
			more = fn(&t)
		}
		return err
	}
	for _, d := range g.Tokens {
		if err := one(d); err != nil || !more {
			return err
		}
	}
	if !g.Overflows() {
		return nil
	}
	prefix := rows.MemberPrefix(nil, g.ID)
	return s.Scan(prefix, nil, func(key, _ []byte) (bool, error) {
		d, err := rows.ParseMemberKey(prefix, key)
		if err == nil {
			err = one(d)
		}
		return more, err
	})
}

// EachGrant calls fn with every grant that sel may match, starting after cursor (nil: with the
// first), until fn returns false. A cursor is the key that an earlier call to fn received.
func EachGrant(s Reader, sel *revoked.Selector, cursor []byte,
	fn func(key []byte, g *rows.Grant) (bool, error)) error {
	if sel.GrantID != "" {
		key := rows.Key(nil, rows.FamilyGrant, sel.GrantID)
		g, ok, err := Grant(s, sel.GrantID)
		if err != nil || !ok || bytes.Equal(cursor, key) {
			return err
		}
		_, err = fn(key, &g)
		return err
	}
	prefix := rows.SelectorPrefix(sel)
	start := prefix
	if cursor != nil {
		start = append(bytes.Clone(cursor), 0)
	}
	return s.Scan(prefix, start, func(key, val []byte) (bool, error) {
		id, ok := string(key[len(prefix):]), true
		var g rows.Grant
		var err error
		if key[0] == rows.FamilyGrant {
			g, err = rows.ParseGrant(id, val)
		} else {
			g, ok, err = Grant(s, id)
		}
		if err != nil || !ok {
			return err == nil, err
		}
		return fn(key, &g)
	})
}
