package propose

import (
	"slices"
	"sync"
	"time"

	"revoked"
)

// A Clock stamps commands with the leader's wall clock, corrected by the median of the voters'
// clocks. So a single wrong clock never changes the stamps. Its time never goes back, and does not
// advance until a majority of the voters has reported in this term. All methods may be called
// concurrently.
type Clock struct {
	now  func() time.Time
	self string

	mu      sync.Mutex
	last    revoked.Time
	offsets map[string]time.Duration // each member's wall clock minus this node's, by server id
	voters  map[string]bool
}

// NewClock returns a clock that reads the wall clock with now. self is the server id of this node.
func NewClock(now func() time.Time, self string) *Clock {
	return &Clock{now: now, self: self, offsets: map[string]time.Duration{}, voters: map[string]bool{}}
}

// Reset starts a term: it drops all offsets, and stamps continue from floor.
func (c *Clock) Reset(floor revoked.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets = map[string]time.Duration{}
	c.last = max(c.last, floor)
}

// SetVoters replaces the set of voters.
func (c *Clock) SetVoters(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.voters = make(map[string]bool, len(ids))
	for _, id := range ids {
		c.voters[id] = true
	}
}

// Observe records the wall clock of a member, which was read at most one network delay ago.
func (c *Clock) Observe(id string, wall revoked.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets[id] = wall.Sub(revoked.TimeOf(c.now()))
}

// median returns the median offset of the voters, or false before a majority has reported. For an
// even number of offsets it returns the lower of the two in the middle: tokens expire late rather
// than early.
func (c *Clock) median() (time.Duration, bool) {
	var known []time.Duration
	for id := range c.voters {
		if id == c.self {
			known = append(known, 0)
		} else if off, ok := c.offsets[id]; ok {
			known = append(known, off)
		}
	}
	if len(known) == 0 || len(known) < len(c.voters)/2+1 {
		return 0, false
	}
	slices.Sort(known)
	return known[(len(known)-1)/2], true
}

// HasMajority reports whether a majority of the voters has reported, so that the clock runs.
func (c *Clock) HasMajority() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.median()
	return ok
}

// Stamp returns the time for the next command.
func (c *Clock) Stamp() revoked.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off, ok := c.median(); ok {
		c.last = max(c.last, revoked.TimeOf(c.now().Add(off)))
	}
	return c.last
}
