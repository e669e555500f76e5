package rows

import "revoked"

// Flags in the row of a token in state Live.
const (
	hasExpiry = 1 << iota
	hasNotBefore
	notBeforeIsIssued
	hasScope
	hasUsername
	hasAudience
	hasJTI
	hasCNF
)

// hasPast, in the first byte of a token's row, means that the row has the fields that AsOf needs. A
// token in state Live has RegisteredAt and RegisteredIndex, a stub all its times and the JTI.
const hasPast = 0x40

// kindMask selects the kind from the upper half of the first byte.
const kindMask = 0x03

// isAhead, in the first byte of the row of a token in state Live, means that the row has
// RegisteredAt. It is set if the token's issued_at was later than its registration.
const isAhead = 0x08

// AppendToken appends the row of a token:
//
//	byte 0      state, isAhead, kind << 4, hasPast
//	            grant id
//	stub:       expiry; if hasPast: issued at, registered at, its index, not before, JTI, ended at,
//	            its index; if it has a JTI: denied at, its index, undenied at
//	live:       flags, issued at, registered at (if isAhead or hasPast), its index (if hasPast), then
//	            the fields that the flags name
func AppendToken(b []byte, t *revoked.Token) []byte {
	c := coder{b: b}
	c.token(t)
	return c.b
}

// IsLiveToken reports whether the row is that of a token in state Live, not a stub.
func IsLiveToken(row []byte) bool {
	return len(row) > 0 && revoked.TokenState(row[0]&0x07) == revoked.Live
}

// ParseToken is the inverse of AppendToken.
func ParseToken(d revoked.Digest, row []byte) (revoked.Token, error) {
	t := revoked.Token{Digest: d}
	c := coder{b: row, decoding: true}
	c.token(&t)
	if c.bad || len(c.b) > 0 {
		return t, c.end("token " + d.Prefix())
	}
	return t, nil
}

// token lists the fields of a token. Fields that are empty or follow from others take no bytes.
func (c *coder) token(t *revoked.Token) {
	head := byte(t.State) | byte(t.Kind)<<4
	switch {
	case t.RegisteredIndex != 0 || t.State != revoked.Live && t.EndedIndex != 0:
		head |= hasPast
	case t.State == revoked.Live && t.RegisteredAt != 0:
		head |= isAhead
	}
	c.byte(&head)
	if c.decoding {
		t.State, t.Kind = revoked.TokenState(head&0x07), revoked.TokenKind(head>>4&kindMask)
		if head&0x80 != 0 || head&hasPast != 0 && head&isAhead != 0 {
			c.fail()
		}
		if t.State < revoked.Live || t.State > revoked.Expired ||
			(t.Kind != revoked.AccessToken && t.Kind != revoked.RefreshToken) {
			c.fail()
			return
		}
	}
	c.string(&t.GrantID)
	if t.State != revoked.Live {
		c.time(&t.ExpiresAt)
		if head&hasPast != 0 {
			c.time(&t.IssuedAt, &t.RegisteredAt)
			c.uvarint(&t.RegisteredIndex)
			c.time(&t.NotBefore)
			c.string(&t.JTI)
			c.time(&t.EndedAt)
			c.uvarint(&t.EndedIndex)
			if t.JTI != "" {
				c.time(&t.DeniedAt)
				c.uvarint(&t.DeniedIndex)
				c.time(&t.UndeniedAt)
			}
		}
		return
	}
	f := tokenFlags(t)
	c.byte(&f)
	c.time(&t.IssuedAt)
	if head&(isAhead|hasPast) != 0 {
		c.time(&t.RegisteredAt)
	}
	if head&hasPast != 0 {
		c.uvarint(&t.RegisteredIndex)
	}
	if f&hasExpiry != 0 {
		c.time(&t.ExpiresAt)
	}
	if f&hasNotBefore != 0 {
		c.time(&t.NotBefore)
	}
	if f&notBeforeIsIssued != 0 && c.decoding {
		t.NotBefore = t.IssuedAt
	}
	if f&hasScope != 0 {
		c.string(&t.Scope)
	}
	if f&hasUsername != 0 {
		c.string(&t.Username)
	}
	if f&hasAudience != 0 {
		c.strings(&t.Audience)
	}
	if f&hasJTI != 0 {
		c.string(&t.JTI)
	}
	if f&hasCNF != 0 {
		c.bytes(&t.CNF)
	}
}

// tokenFlags returns the flags that name the fields of t. The order of the list is the order of the
// bits.
func tokenFlags(t *revoked.Token) byte {
	return byte(bitsOf(
		t.ExpiresAt != 0, t.NotBefore != 0 && t.NotBefore != t.IssuedAt, t.NotBefore != 0 && t.NotBefore == t.IssuedAt,
		t.Scope != "", t.Username != "", len(t.Audience) > 0, t.JTI != "", len(t.CNF) > 0,
	))
}

// A member row belongs to an overflow token. It contains the time of the token's queue entry, or 0
// without one.

// AppendMember appends a member row.
func AppendMember(b []byte, due revoked.Time) []byte { return appendTime(b, due) }

// ParseMember is the inverse of AppendMember.
func ParseMember(row []byte) (due revoked.Time, err error) {
	c := coder{b: row, decoding: true}
	c.time(&due)
	return due, c.end("overflow token of a grant")
}
