package rows

import (
	"slices"

	"revoked"
)

// A Binding names the client whose registrations a tombstone revokes. An empty ClientID means any
// client.
type Binding struct {
	ClientID string
	By       string // client whose quota counts the binding
	At       revoked.Time
	Until    revoked.Time
	Index    uint64
	Reason   string
}

// A Tombstone records the revocation of an unknown token. Due is the latest Until.
type Tombstone struct {
	Due      revoked.Time
	Bindings []Binding
}

// Binds returns the first binding that revokes a registration for client, or nil.
func (t *Tombstone) Binds(client string) *Binding {
	return t.find(func(b Binding) bool { return b.ClientID == "" || b.ClientID == client })
}

// BindingTo returns the binding to exactly that client, or nil.
func (t *Tombstone) BindingTo(client string) *Binding {
	return t.find(func(b Binding) bool { return b.ClientID == client })
}

func (t *Tombstone) find(match func(Binding) bool) *Binding {
	if i := slices.IndexFunc(t.Bindings, match); i >= 0 {
		return &t.Bindings[i]
	}
	return nil
}

// An Assertion records the use of a client's assertion. The row stays until Due, when every node
// rejects the assertion as expired.
type Assertion struct {
	Due      revoked.Time
	ClientID string // client whose quota counts the use
	Request  [16]byte
}

func (v *Assertion) code(c *coder) {
	c.version()
	c.time(&v.Due)
	c.string(&v.ClientID)
	if !c.decoding {
		c.b = append(c.b, v.Request[:]...)
		return
	}
	copy(v.Request[:], c.take(uint64(len(v.Request))))
}

func (t *Tombstone) code(c *coder) {
	c.version()
	c.time(&t.Due)
	n := c.length(len(t.Bindings), 1)
	for i := 0; i < n && !c.bad; i++ {
		if c.decoding {
			t.Bindings = append(t.Bindings, Binding{})
		}
		v := &t.Bindings[i]
		c.string(&v.ClientID, &v.By)
		c.time(&v.At, &v.Until)
		c.uvarint(&v.Index)
		c.string(&v.Reason)
	}
}
