package rows

import (
	"slices"

	"revoked"
)

// An Audit is the row of an audit entry:
//
//	byte 0      version
//	byte 1      kind: its position among revoked.AuditKinds
//	byte 2      flags
//	            time, actor, version of the actor, node, request id
//	            bits of the fields of the object, then these fields
//	            reason and detail, if the flags name them
type Audit struct{ revoked.AuditEntry }

// Flags of an audit row.
const (
	auditRefused = 1 << iota
	auditHasReason
	auditHasDetail
	auditFlags
)

// Bits of the other fields of an object. They follow the bits of the texts.
const (
	objectDigest = 1 << (iota + objectTexts)
	objectIssuedBefore
	objectCount
	objectBits
)

// objectTexts is the number of texts of an object.
const objectTexts = 10

// texts returns the texts of an object in the order of their bits.
func texts(o *revoked.AuditObject) [objectTexts]*string {
	return [...]*string{
		&o.ClientID, &o.GrantID, &o.Subject, &o.Session, &o.Issuer, &o.JTI, &o.Name, &o.Thumbprint, &o.Node, &o.JoinToken,
	}
}

func (a *Audit) code(c *coder) {
	c.seqKey(&a.Index, new(uint32))
	c.version()
	kinds := revoked.AuditKinds()
	kind := byte(slices.Index(kinds, a.Kind)) // Apply writes known kinds only
	if c.byte(&kind); int(kind) >= len(kinds) {
		c.fail()
		return
	}
	flags := a.flags()
	if c.byte(&flags); flags >= auditFlags {
		c.fail()
	}
	if c.decoding {
		a.Kind, a.Refused = kinds[kind], flags&auditRefused != 0
	}
	c.time(&a.Time)
	c.string(&a.Actor)
	c.uvarint(&a.ActorVersion)
	c.string(&a.Node, &a.RequestID)
	c.object(&a.Object)
	if flags&auditHasReason != 0 {
		c.string(&a.Reason)
	}
	if flags&auditHasDetail != 0 {
		c.string(&a.Detail)
	}
}

// flags returns the flags of a. The order of the arguments is the order of the bits.
func (a *Audit) flags() byte { return byte(bitsOf(a.Refused, a.Reason != "", a.Detail != "")) }

// object encodes the fields of o that are set.
func (c *coder) object(o *revoked.AuditObject) {
	var bits uint64
	for i, text := range texts(o) {
		if *text != "" {
			bits |= 1 << i
		}
	}
	bits |= bitsOf(!o.Digest.IsZero(), o.IssuedBefore != 0, o.Count != 0) << objectTexts
	if c.uvarint(&bits); bits >= objectBits {
		c.fail()
	}
	for i, text := range texts(o) {
		if bits&(1<<i) != 0 {
			c.string(text)
		}
	}
	if bits&objectDigest != 0 {
		c.digest(&o.Digest)
	}
	if bits&objectIssuedBefore != 0 {
		c.time(&o.IssuedBefore)
	}
	if bits&objectCount != 0 {
		c.uvarint(&o.Count)
	}
}
