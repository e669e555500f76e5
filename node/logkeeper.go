package node

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// The log is cut by size, not by number of entries: an entry holds up to a thousand operations.
const (
	snapshotBytes = 64 << 20 // of log since the last snapshot
	trailingBytes = 16 << 20 // kept for followers that are a little behind
	maxTrailing   = 4096     // entries
	minTrailing   = 128
)

// keepLog snapshots when enough log has come together. A snapshot is a marker beside the durable
// state, so it costs a flush.
func (n *Node) keepLog(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		bytes, entries := n.meter.written()
		if bytes < snapshotBytes {
			continue
		}
		average := max(1, bytes/max(1, entries))
		trailing := min(maxTrailing, max(minTrailing, trailingBytes/average))
		conf := n.raft.ReloadableConfig()
		conf.TrailingLogs = uint64(trailing)
		if err := n.raft.ReloadConfig(conf); err != nil {
			n.log.Warn("could not set how much log is kept", "error", err)
		}
		switch err := n.raft.Snapshot().Error(); {
		case err == nil, errors.Is(err, raft.ErrNothingNewToSnapshot):
			n.meter.forget(bytes, entries)
		case ctx.Err() == nil:
			n.log.Warn("snapshot failed; the log grows until one succeeds", "error", err)
		}
	}
}
