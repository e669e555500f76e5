package node

import (
	"context"
	"fmt"
	"time"
)

// A watchdog ends a leadership whose entries do not commit. A leader whose disk hangs goes on with its
// heartbeats (hashicorp/raft#503), so nobody else would stand for election.
type watchdog struct {
	n   *Node
	fed chan struct{}
}

func newWatchdog(n *Node) *watchdog { return &watchdog{n: n, fed: make(chan struct{}, 1)} }

// feed says that an entry has been committed.
func (w *watchdog) feed() {
	select {
	case w.fed <- struct{}{}:
	default:
	}
}

// run watches until ctx, one leadership, ends. What is late by two leases is handed over, if anybody can
// take it. Where Raft does not even take that up it waits for its disk, and so would every orderly end:
// the process ends at once.
func (w *watchdog) run(ctx context.Context) {
	const patience = 16 // looks, a quarter of a lease apart: a pause of the process is one look, however long
	n := w.n
	last, next := time.Now(), time.Now()
	var handing chan error // of the attempt under way
	looks := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.fed:
			last, looks = time.Now(), 0
			continue
		case err := <-handing:
			handing = nil
			next = time.Now().Add(2 * n.Settings().LeaseDuration)
			if err != nil {
				n.log.Warn("leadership was not handed over", "error", err)
			}
			continue
		case <-time.After(n.renewEvery()):
		}
		stalled := time.Since(last)
		if stalled <= 2*n.Settings().LeaseDuration || handing == nil && time.Now().Before(next) {
			continue
		}
		if handing == nil {
			n.log.Error("entries do not commit: handing leadership over", "for", stalled)
			handing, looks = make(chan error, 1), 0
			go func(done chan<- error) { done <- n.transferAway() }(handing) // Raft may never answer it
		}
		if looks++; looks > patience {
			n.crash(fmt.Errorf("entries do not commit for %v and Raft stands still: the disk of %s hangs", stalled, n.stores.path))
			return
		}
	}
}
