package rows

import "revoked"

// InlineTokens is the maximum number of digests in the row of a grant. A revocation turns these
// tokens into stubs in the same log entry. Each overflow token has a member row.
const InlineTokens = 64

// A Grant is a grant with the fields that only the state machine needs.
type Grant struct {
	revoked.Grant
	// Due is the time of the grant's queue entry, or 0 without one.
	Due revoked.Time
	// Ended is the entry that ended the tokens of a revoked grant. It is set only if the revocation
	// is older: one of the tokens was revoked before it was registered.
	Ended revoked.Moment
	// Tokens are the first InlineTokens digests registered in the grant, including stubs.
	Tokens []revoked.Digest
}

// Overflows reports whether the grant has tokens beyond the inline ones.
func (g *Grant) Overflows() bool { return g.TokenCount > len(g.Tokens) }

// AppendGrant appends the row of g.
func AppendGrant(b []byte, g *Grant) []byte {
	c := coder{b: b}
	c.grant(g)
	return c.b
}

// ParseGrant is the inverse of AppendGrant.
func ParseGrant(id string, row []byte) (Grant, error) {
	g := Grant{Grant: revoked.Grant{ID: id}}
	c := coder{b: row, decoding: true}
	c.grant(&g)
	if c.bad || len(c.b) > 0 {
		return Grant{}, c.end("grant " + id)
	}
	return g, nil
}

// grant lists the fields of a grant: strings, times, counts, a position, the revocation, the inline
// digests. The position is that of the active refresh token among the inline digests. It takes 31
// bytes less than the digest.
func (c *coder) grant(g *Grant) {
	c.version()
	c.string(&g.ClientID, &g.Subject, &g.Session, &g.Issuer, &g.RegisteredBy)
	c.time(&g.CreatedAt)
	c.uvarint(&g.CreatedIndex)
	c.time(&g.LatestExpiry)
	count := uint64(g.TokenCount)
	c.uvarint(&count)
	c.time(&g.RefreshIat, &g.Due)
	refresh := g.refreshPosition()
	if c.byte(&refresh); refresh == spelledOut {
		c.digest(&g.LiveRefresh)
	}
	c.revocation(g)
	n := byte(len(g.Tokens))
	c.byte(&n)
	if c.decoding {
		g.TokenCount = int(min(count, revoked.MaxGrantTokens+1))
		if int(n) > min(InlineTokens, g.TokenCount, len(c.b)/len(revoked.Digest{})) ||
			refresh > n && refresh < spelledOut {
			c.fail()
			return
		}
		g.Tokens = make([]revoked.Digest, n, n+2)
	}
	for i := range g.Tokens {
		c.digest(&g.Tokens[i])
	}
	if c.decoding && refresh > 0 && refresh < spelledOut {
		g.LiveRefresh = g.Tokens[refresh-1]
	}
}

// spelledOut is the position of an active refresh token that is not among the inline digests.
const spelledOut = InlineTokens + 1

// refreshPosition returns the position of the active refresh token among the inline digests,
// counted from 1. It is 0 without an active refresh token.
func (g *Grant) refreshPosition() byte {
	if g.LiveRefresh.IsZero() {
		return 0
	}
	for i := range g.Tokens {
		if g.Tokens[i] == g.LiveRefresh {
			return byte(i + 1)
		}
	}
	return spelledOut
}

// revocation encodes the byte 0 if the grant is not revoked, or 1 and the fields of the revocation.
// If Ended is set, it encodes 2, these fields and Ended.
func (c *coder) revocation(g *Grant) {
	r := &g.Revoked
	var present byte
	if *r != nil {
		present = 1
		if g.Ended.Index != 0 {
			present = 2
		}
	}
	if c.byte(&present); present > 2 {
		c.fail()
	}
	if present == 0 || c.bad {
		return
	}
	if c.decoding {
		*r = new(revoked.Revocation)
	}
	c.time(&(*r).At)
	c.string(&(*r).By, &(*r).Reason)
	c.uvarint(&(*r).Index)
	if present == 2 {
		c.moment(&g.Ended)
	}
}

// moment encodes the time and the index of a log entry.
func (c *coder) moment(m *revoked.Moment) {
	c.time(&m.At)
	c.uvarint(&m.Index)
}

// EndedAt returns the entry that ended the tokens of a revoked grant.
func (g *Grant) EndedAt() revoked.Moment {
	if g.Revoked == nil || g.Ended.Index != 0 {
		return g.Ended
	}
	return revoked.Moment{At: g.Revoked.At, Index: g.Revoked.Index}
}
