//go:build system

package systemtest

import "testing"

// Each round kills the leader and then a follower with kill -9 under load and restarts them. Two
// rounds kill all nodes at the same time. No revoked token is active again, no acknowledged
// registration is lost, and all nodes end with the same log and state.
func TestKillRounds_LoseNothing(t *testing.T) {
	rounds := number(t, "REVOKED_ROUNDS", 10)
	c := startCluster(t, 3)
	l := startLoad(t, c, 8, 60)
	for round := range rounds {
		leader := c.leader(t)
		leader.proc.Kill()
		next := c.leader(t) // the survivors have a leader and are ready
		c.start(t, leader)
		c.awaitReady(t, leader)
		for _, m := range c.Nodes {
			if m != next && m != leader {
				m.proc.Kill()
				c.mustRevoke(t, next, "revoked-while-one-is-away")
				c.start(t, m)
				c.awaitReady(t, m)
			}
		}
		if round == rounds/3 || round == 2*rounds/3 {
			for _, m := range c.Nodes {
				m.proc.Kill()
			}
			c.startAll(t)
			c.awaitReady(t, c.Nodes...)
		}
		l.check(t)
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}
