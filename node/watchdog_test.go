package node_test

import (
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// A leader whose disk hangs goes on with its heartbeats, so nobody else would ever be elected: it must
// end, and at once, as nothing of it can be stopped in order.
func TestALeaderWhoseDiskHangsEnds(t *testing.T) {
	crashed := make(chan error, 1)
	settings := revoked.DefaultSettings()
	settings.LeaseDuration = 500 * time.Millisecond
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.Defaults = settings
		conf.Crash = func(err error) {
			select {
			case crashed <- err:
			default:
			}
		}
	}})
	release := c.Leader().Node.HangDisk()
	defer release() // else it cannot be stopped
	select {
	case err := <-crashed:
		if !strings.Contains(err.Error(), "disk") {
			t.Errorf("got %q, want it to name the disk", err)
		}
	case <-time.After(nodetest.LongStop):
		t.Fatal("it leads on and commits nothing")
	}
}
