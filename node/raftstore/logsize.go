package raftstore

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// The log is truncated by size, not by the number of entries: an entry has up to 1024 operations.
const (
	snapshotBytes = 64 << 20 // log growth after which a snapshot is taken
	trailingBytes = 16 << 20 // log kept after a snapshot, for followers that are a little behind
	maxTrailing   = 4096     // maximum number of entries kept after a snapshot
	minTrailing   = 128
)

// SnapshotBySize takes a snapshot whenever 64 MiB of log have been written since the last one. It
// blocks until ctx ends. A snapshot is only a marker for the durable state, so it costs one flush.
func (s *Store) SnapshotBySize(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		bytes, entries := s.written.bytes.Load(), s.written.entries.Load()
		if bytes < snapshotBytes {
			continue
		}
		average := max(1, bytes/max(1, entries))
		conf := s.raft.ReloadableConfig()
		conf.TrailingLogs = uint64(min(maxTrailing, max(minTrailing, trailingBytes/average)))
		if err := s.raft.ReloadConfig(conf); err != nil {
			s.cfg.Log.Warn("cannot set the number of trailing log entries", "error", err)
		}
		switch err := s.raft.Snapshot().Error(); {
		case err == nil, errors.Is(err, raft.ErrNothingNewToSnapshot):
			s.written.bytes.Add(-bytes)
			s.written.entries.Add(-entries)
		case ctx.Err() == nil:
			s.cfg.Log.Warn("cannot take snapshot; raft log grows", "error", err)
		}
	}
}
