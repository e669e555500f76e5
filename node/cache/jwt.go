package cache

import (
	"fmt"
	"sync/atomic"

	"revoked"
)

// A JWT is a verified token that is not registered. It is immutable once it is in the cache.
type JWT struct {
	revoked.JWT
	// Issuer is the record with which the token was verified. The entry is current only while the
	// state machine returns the same record.
	Issuer *revoked.Issuer
	Key    revoked.KeyState // state of the key that verified the token
	Denied bool             // set by Add
	marks  []mark
}

// A mark is an epoch that was read before the rows of a JWT, and its value at that time.
type mark struct {
	now *atomic.Uint64
	was uint64
}

// current reports whether the rows that can end j are unchanged.
func (j *JWT) current() bool {
	for i := range j.marks {
		if j.marks[i].now.Load() != j.marks[i].was {
			return false
		}
	}
	return true
}

// Add stores j and returns the record of its claims. If one of the digests of j is registered, Add
// returns the registered record and false instead.
//
// Add reads the epochs of all rows that can end j before it reads the rows. These are the rows of
// j's digests, of the denials that can cover j, and of the grants that j claims. The epoch of a
// digest also advances when a token with that digest is registered or becomes a tombstone.
func (c *Cache) Add(j *JWT) (r *revoked.Record, isJWT bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return nil, false, fmt.Errorf("%w: record cache", revoked.ErrClosed)
	}
	e := &entry{digest: j.Digests[0], record: j.Record(), jwt: j}
	e.checked.Store(c.epochs.all.Load()) // read before the other epochs
	e.generation = c.epochs.generation.Load()
	e.token = c.epochs.token(e.digest).Load()
	for _, d := range append(j.DenialKeys(), j.Digests[1:]...) {
		now := c.epochs.token(d)
		j.marks = append(j.marks, mark{now, now.Load()})
	}
	c.markGrant(j, j.GrantID)
	for i := range j.Earlier {
		c.markGrant(j, j.Earlier[i].GrantID)
	}
	for _, d := range j.Digests {
		registered, err := c.read(d)
		if err != nil {
			return nil, false, err
		}
		if registered != nil {
			return &registered.record, false, nil
		}
	}
	if j.Denied, err = c.source.IsDenied(&j.JWT, j.Issuer.OwnClients); err != nil {
		return nil, false, fmt.Errorf("look up denials: %w", err)
	}
	c.entries.Set(c.key(e.digest), e, e.cost())
	return &e.record, true, nil
}

// markGrant adds the epoch of a grant that j claims.
func (c *Cache) markGrant(j *JWT, id string) {
	if id != "" {
		now := c.epochs.grant(id)
		j.marks = append(j.marks, mark{now, now.Load()})
	}
}
