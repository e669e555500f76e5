package rows

import "revoked"

// An Event is an event of the feed.
type Event struct{ revoked.Event }

func (e *Event) code(c *coder) {
	c.seqKey(&e.Index, new(uint32))
	c.version()
	c.time(&e.Time)
	s := &e.Selector
	c.string((*string)(&e.Kind), &s.ClientID, &s.Subject, &s.Session, &s.GrantID, &s.Issuer)
	c.string(&e.Action, &e.Actor, &e.Reason)
	c.time(&e.IssuedBefore)
	if e.Kind == revoked.EventJWT {
		c.string(&e.JTI)
	}
	n := c.length(len(e.Digests), len(revoked.Digest{}))
	for i := 0; i < n && !c.bad; i++ {
		if c.decoding {
			e.Digests, e.Audiences = append(e.Digests, revoked.Digest{}), append(e.Audiences, nil)
		}
		c.digest(&e.Digests[i])
		c.strings(&e.Audiences[i])
	}
}
