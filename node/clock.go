package node

import (
	"slices"
	"sync"
	"time"

	"revoked"
)

// A stampClock gives commands their time: the leader's clock corrected by the median of the voters'
// clocks. A lone wrong clock never moves it. It never goes back, and it stands still until a majority
// of the voters has been heard in this term. Safe for concurrent use.
type stampClock struct {
	now func() time.Time

	mu      sync.Mutex
	last    revoked.Time
	offsets map[string]time.Duration // voter's wall clock minus ours, by server id; our own is 0
	voters  map[string]bool
	self    string
}

func newStampClock(now func() time.Time, self string) *stampClock {
	return &stampClock{now: now, self: self, offsets: map[string]time.Duration{}, voters: map[string]bool{}}
}

// reset forgets what was heard: a new term has begun. The stamp continues from floor.
func (c *stampClock) reset(floor revoked.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets = map[string]time.Duration{}
	c.last = max(c.last, floor)
}

// setVoters tells who votes now.
func (c *stampClock) setVoters(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.voters = make(map[string]bool, len(ids))
	for _, id := range ids {
		c.voters[id] = true
	}
}

// observe notes a voter's wall clock, read at most one network delay ago.
func (c *stampClock) observe(id string, wall revoked.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets[id] = wall.Sub(revoked.TimeOf(c.now()))
}

// median returns the median offset of the voters, and false while no majority has been heard.
// With an even number the smaller of the middle two: expiry is decided late rather than early.
func (c *stampClock) median() (time.Duration, bool) {
	var heard []time.Duration
	for id := range c.voters {
		if id == c.self {
			heard = append(heard, 0)
		} else if off, ok := c.offsets[id]; ok {
			heard = append(heard, off)
		}
	}
	if len(heard) == 0 || len(heard) < len(c.voters)/2+1 {
		return 0, false
	}
	slices.Sort(heard)
	return heard[(len(heard)-1)/2], true
}

// settled reports whether a majority has been heard.
func (c *stampClock) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.median()
	return ok
}

// stamp returns the time for the next command.
func (c *stampClock) stamp() revoked.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off, ok := c.median(); ok {
		c.last = max(c.last, revoked.TimeOf(c.now().Add(off)))
	}
	return c.last
}
