package node_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// A leader whose disk hangs keeps sending heartbeats, so no other node is ever elected. It must end
// its process immediately, since a clean shutdown would wait for the disk.
func TestWatchdog_DiskHangs_ProcessExits(t *testing.T) {
	t.Parallel()
	crashed := make(chan error, 1)
	disks := make([]sync.Mutex, 3)
	settings := revoked.DefaultSettings()
	settings.LeaseDuration = 500 * time.Millisecond
	c := nodetest.Start(t, nodetest.Options{Node: func(i int, conf *node.Config) {
		conf.HangDisk(&disks[i])
		conf.Defaults = settings
		conf.Crash = func(err error) {
			select {
			case crashed <- err:
			default:
			}
		}
	}})
	var err error
	c.Until("the process of a leader that commits nothing ends", func() bool {
		leader := c.Leader()
		disk := &disks[slices.Index(c.Members, leader)]
		disk.Lock()
		defer disk.Unlock()                                      // otherwise the node cannot stop
		for leads := true; leads; leads = c.Leader() == leader { // on a busy machine it may lose its term first
			select {
			case err = <-crashed:
				return true
			case <-time.After(100 * time.Millisecond):
			}
		}
		return false
	})
	if !strings.Contains(err.Error(), "disk") {
		t.Errorf("got %q, want an error that mentions the disk", err)
	}
}
