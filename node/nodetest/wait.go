package nodetest

import (
	"context"
	"time"
)

// LongStop bounds every wait of the kit.
const LongStop = 2 * time.Minute

// Until polls ok until it returns true, and ends the test as failed after LongStop.
func (c *Cluster) Until(what string, ok func() bool) {
	c.T.Helper()
	if !c.Await(what, ok) {
		c.T.FailNow()
	}
}

// Await is Until for goroutines other than the test's: it only marks the test as failed. It reports
// whether ok returned true.
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

// WaitReady waits until every running node can answer and revoke.
func (c *Cluster) WaitReady() {
	c.T.Helper()
	for _, m := range c.Members {
		if m.Node != nil {
			c.Until(m.ID+" is ready", func() bool { return m.Node.Readiness(context.Background()).CanAnswer })
		}
	}
}
