package nodetest

import (
	"context"
	"time"
)

// LongStop bounds every wait of the kit. It is long, because a busy machine may pause a process for
// a minute. A test that passes never waits for it.
const LongStop = 2 * time.Minute

// Until polls ok until ok returns true, and ends the test as failed after LongStop. The failure
// text contains what, the expected condition.
func (c *Cluster) Until(what string, ok func() bool) {
	c.T.Helper()
	if !c.Await(what, ok) {
		c.T.FailNow()
	}
}

// Await is like Until, but may be called by goroutines other than the test's. It only marks the
// test as failed, because only the test's own goroutine may call FailNow. It reports whether ok
// returned true.
func (c *Cluster) Await(what string, ok func() bool) bool {
	c.T.Helper()
	deadline := time.Now().Add(LongStop)
	for !ok() {
		if time.Now().After(deadline) {
			c.T.Errorf("got no success after %v, want: %s", LongStop, what)
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// WaitReady waits until every running node can answer and revoke. A node may lose its lease right
// afterwards, so a test that needs one must still expect 503.
func (c *Cluster) WaitReady() {
	c.T.Helper()
	for _, m := range c.Members {
		if m.Node != nil {
			c.Until(m.ID+" is ready", func() bool { return m.Node.Readiness(context.Background()).CanAnswer })
		}
	}
}
