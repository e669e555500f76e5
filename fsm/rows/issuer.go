package rows

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
)

// An Issuer is a trusted issuer with the fields that only the state machine needs.
type Issuer struct {
	revoked.Issuer
	Due revoked.Time // time of the row's queue entry, or 0 without one
}

// AppendIssuer appends the row of v: an IssuerRecord.
func AppendIssuer(b []byte, v *Issuer) ([]byte, error) {
	m := command.IssuerMessage(&v.Issuer)
	m.Due = int64(v.Due)
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
}

// ParseIssuer is the inverse of AppendIssuer.
func ParseIssuer(name string, row []byte) (*Issuer, error) {
	var rec command.IssuerRecord
	if err := parseRecord("issuer "+name, row, &rec); err != nil {
		return nil, err
	}
	if rec.Name != name {
		return nil, fmt.Errorf("issuer %s: %w: got the name %q", name, ErrRow, rec.Name)
	}
	return &Issuer{Issuer: *rec.Record(), Due: revoked.Time(rec.Due)}, nil
}

// A Denial is the row of a denial. Its key contains the revoked.DenialKey.
type Denial struct {
	revoked.Denial
	// First is the entry that created the denial. It is set only if a later entry extended the denial
	// and the state keeps its history.
	First revoked.Moment
}

// Began returns the entry that created the denial or, if First is not set, the entry that wrote the
// row.
func (v *Denial) Began() revoked.Moment {
	if v.First.Index != 0 {
		return v.First
	}
	return revoked.Moment{At: v.At, Index: v.Index}
}

func (v *Denial) code(c *coder) {
	c.version()
	c.time(&v.Until, &v.At)
	c.string(&v.By, &v.Reason)
	c.uvarint(&v.Index)
	if c.decoding && len(c.b) > 0 || !c.decoding && v.First.Index != 0 {
		c.moment(&v.First)
	}
}

// Denials is the row with the number of denials in the state that a client has written. A client
// without denials has no row.
type Denials struct{ Count uint64 }

func (v *Denials) code(c *coder) {
	c.version()
	c.uvarint(&v.Count)
}
