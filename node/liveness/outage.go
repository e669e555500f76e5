package liveness

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// Bounds of the wait for a leader. An ordinary election takes less than a second, or two election
// timeouts on a slow network.
const (
	minGrace      = time.Second
	maxRetryAfter = 30 * time.Second
)

// An Outage decides when a request need not wait for a leader. Until the grace has passed, requests
// wait as usual. Afterwards they are refused immediately if this node reaches too few voters for an
// election. If it reaches enough voters, an election is in progress, and requests wait until
// maxWait has passed. Methods may be called concurrently.
type Outage struct {
	self    raft.ServerID
	grace   time.Duration // time without a leader during which every request waits
	silence time.Duration // time without a message after which a voter counts as unreachable
	maxWait time.Duration // time without a leader after which requests are refused in any case
	since   atomic.Pointer[time.Time]
}

// NewOutage returns an Outage that begins now, because no leader is known yet. Raft needs up to two
// election timeouts to elect a first leader, so a shorter time without one is normal.
func NewOutage(self raft.ServerID, electionTimeout, requestTimeout time.Duration) *Outage {
	grace := max(minGrace, 2*electionTimeout)
	o := &Outage{self: self, grace: grace, silence: grace + electionTimeout, maxWait: max(grace, requestTimeout)}
	o.Follow(false)
	return o
}

// Follow records whether Raft knows a leader.
func (o *Outage) Follow(known bool) {
	if known {
		o.since.Store(nil)
		return
	}
	now := time.Now()
	o.since.CompareAndSwap(nil, &now)
}

// Check returns an OutageError if waiting for a leader is useless, else nil. It calls conf and
// contact only after the grace has passed.
func (o *Outage) Check(conf func() (raft.Configuration, error), contact func(raft.ServerID) transport.Contact) error {
	since := o.since.Load()
	if since == nil || time.Since(*since) < o.grace {
		return nil
	}
	lasted := time.Since(*since)
	e := &revoked.OutageError{Since: *since, RetryAfter: time.Second}
	if c, err := conf(); err == nil {
		o.count(e, c, contact)
	}
	lost := e.Voters > 0 && e.Reachable < e.Quorum()
	if !lost && lasted < o.maxWait {
		return nil
	}
	if lost {
		e.RetryAfter = min(lasted, maxRetryAfter)
	}
	return e
}

// count sets Voters, Reachable and Silent in e. A non-voter requests no votes, so it cannot
// determine whether an election can succeed, and all three stay empty.
func (o *Outage) count(e *revoked.OutageError, conf raft.Configuration, contact func(raft.ServerID) transport.Contact) {
	votes := false
	for _, s := range conf.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		e.Voters++
		if s.ID == o.self {
			votes = true
			e.Reachable++
			continue
		}
		c := contact(s.ID)
		if c.Failing.IsZero() && time.Since(c.Heard) < o.silence {
			e.Reachable++
			continue
		}
		silent := revoked.SilentVoter{Since: e.Since}
		silent.NodeID, _, _ = strings.Cut(string(s.ID), "/")
		for _, t := range []time.Time{c.Heard, c.Failing} {
			if !t.IsZero() {
				silent.Since = t
			}
		}
		e.Silent = append(e.Silent, silent)
	}
	if !votes {
		e.Voters, e.Reachable, e.Silent = 0, 0, nil
	}
}
