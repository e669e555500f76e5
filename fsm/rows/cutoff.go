package rows

import (
	"time"

	"revoked"
)

// A Cutoff is a cut-off and the position up to which Compact has applied it.
type Cutoff struct {
	revoked.Cutoff
	Seq uint32 // position among the events and cut-offs of its log entry
	// Whole makes the cut-off revoke every selected grant that is older than it, whatever the
	// issued_at of the tokens. So the tokens of a deleted client stay revoked when its id is used
	// again.
	Whole     bool
	Due       revoked.Time
	Compacted bool
	// Cursor is the key of the last grant that Compact examined. If Compact stopped among the overflow
	// tokens of that grant, Member is the digest of the last one that it examined.
	Cursor []byte
	Member []byte
}

// Key returns the key of c.
func (c *Cutoff) Key() []byte { return SeqKey(nil, FamilyCutoff, c.Index, c.Seq) }

// Covers is like revoked.Cutoff.Covers, but also applies Whole.
func (c *Cutoff) Covers(g *revoked.Grant, t *revoked.Token, skew time.Duration) bool {
	if c.Whole && g.CreatedIndex < c.Index && c.Matches(g) {
		return true
	}
	return c.Cutoff.Covers(g, t, skew)
}

func (v *Cutoff) code(c *coder) {
	c.seqKey(&v.Index, &v.Seq)
	c.version()
	c.string(&v.ClientID, &v.Subject, &v.Session, &v.GrantID, &v.Issuer, &v.By, &v.Reason)
	c.time(&v.IssuedBefore, &v.At, &v.Due)
	var f byte
	if v.Whole {
		f |= 1
	}
	if v.Compacted {
		f |= 2
	}
	c.byte(&f)
	if c.decoding {
		v.Whole, v.Compacted = f&1 != 0, f&2 != 0
	}
	c.bytes(&v.Cursor, &v.Member)
}
