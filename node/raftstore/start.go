package raftstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/hashilog"
)

// StartRaft starts Raft on the store. It sets the fields of conf that depend on the store: the
// logger, the length of the log, and when snapshots are taken and restored. On an error Raft does
// not run.
func (s *Store) StartRaft(conf *raft.Config, trans raft.Transport) (*raft.Raft, error) {
	durable, err := s.cfg.FSM.DurableIndex()
	if err != nil {
		return nil, err
	}
	index, _ := s.snapshots.newest()
	conf.Logger = hashilog.NewFor(hashilog.NewElections(hashilog.Sink{Log: s.cfg.Log}), "raft")
	conf.SnapshotThreshold = 1 << 40 // SnapshotBySize takes the snapshots instead
	conf.SnapshotInterval = time.Hour
	conf.TrailingLogs = maxTrailing
	// The state machine is durable: only a newer snapshot is restored.
	conf.NoSnapshotRestoreOnStart = durable >= index
	r, err := startRaft(s.cfg.Dir, func() (*raft.Raft, error) {
		return raft.NewRaft(conf, s.snapshots, s.log, s.stable, s.snapshots, trans)
	})
	newest := err == nil && r.Stats()["last_snapshot_index"] == strconv.FormatUint(index, 10)
	if err := s.snapshots.startError(s.cfg.Dir, newest, err); err != nil {
		if r != nil {
			err = errors.Join(err, r.Shutdown().Error())
		}
		return nil, err
	}
	s.raft = r
	s.atStart = s.End()
	return r, nil
}

// startRaft runs start, in which Raft reads the log above its newest snapshot. If Raft panics
// because it cannot read an entry, startRaft returns the cause as an error.
func startRaft(dir string, start func() (*raft.Raft, error)) (r *raft.Raft, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		cause, ok := p.(error)
		var bug runtime.Error
		if !ok || errors.As(cause, &bug) {
			panic(p)
		}
		if errors.Is(cause, raft.ErrLogNotFound) {
			cause = Damaged(filepath.Join(dir, SnapshotDir),
				fmt.Errorf("the log in %s begins after the newest readable snapshot; "+
					"a snapshot or its meta.json is missing or damaged",
					filepath.Join(dir, LogFile)))
		}
		err = cause
	}()
	return start()
}
