package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/hashilog"
)

const (
	keptSnapshots = 2
	cachedEntries = 512
	keyInstalled  = "Installed"
)

// Config configures Open. Dir, FSM and Fatal are required.
type Config struct {
	Dir string
	FSM *fsm.FSM
	// Fatal receives the error of the first failed write or damaged entry. It is called at most once
	// and must not write to the store.
	Fatal func(error)
	// Crash ends the process after the current term could not be stored. If it is nil or returns,
	// Raft panics.
	Crash func(error)
	// Took is called before entries are stored, with their lowest and highest term. Before the state
	// is restored from a received snapshot, it is called with 0 and the term of the snapshot. It must
	// not block.
	Took  func(low, high uint64)
	Log   *slog.Logger // nil: no logging
	Hooks Hooks
}

// Hooks replace the disk and the state machine in tests. With zero values the store uses the files
// in Config.Dir.
type Hooks struct {
	Log       raft.LogStore
	Stable    raft.StableStore // required with Log; reports missing keys as raftboltdb.ErrKeyNotFound
	Snapshots raft.SnapshotStore
	// Front wraps the outermost log and stable store.
	Front func(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore)
	// State wraps the state machine that Raft applies entries to.
	State func(raft.BatchingFSM) raft.BatchingFSM
}

// Store is Raft's log, votes and snapshots in one data directory. All methods may be called
// concurrently, but StartRaft must return before SnapshotBySize is called.
type Store struct {
	cfg       Config
	failStop  *failStop
	written   *failStopLog
	log       raft.LogStore
	marks     *markedLog
	stable    raft.StableStore
	snapshots *snapshotTracker
	installed atomic.Uint64
	raft      *raft.Raft
	atStart   uint64 // result of End when Raft started

	disk    func() error // closes the log file
	closing sync.Once
	closed  error
}

// Open opens or creates the store in cfg.Dir and removes log entries that contradict the newest
// snapshot. It fails within a second if another process has the log open, and with
// revoked.ErrDamaged if a file has changed since it was written.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Took == nil {
		cfg.Took = func(uint64, uint64) {}
	}
	s := &Store{cfg: cfg, failStop: &failStop{fatal: cfg.Fatal}, disk: func() error { return nil }}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open() error {
	log, stable, snapshots := s.cfg.Hooks.Log, s.cfg.Hooks.Stable, s.cfg.Hooks.Snapshots
	if log == nil {
		bolt, err := openLogFile(s.cfg.Dir, s.cfg.Log)
		if err != nil {
			return err
		}
		s.disk, log, stable = bolt.Close, bolt, bolt
	}
	if snapshots == nil {
		files, err := raft.NewFileSnapshotStoreWithLogger(s.cfg.Dir, keptSnapshots, hashilog.New(s.cfg.Log, "raft"))
		if err != nil {
			return fmt.Errorf("open snapshots: %w", err)
		}
		snapshots = files
	}
	var err error
	snapshots = fsm.NewSnapshotStore(snapshots, s.cfg.FSM)
	state := raft.BatchingFSM(s.cfg.FSM)
	if wrap := s.cfg.Hooks.State; wrap != nil {
		state = wrap(state)
	}
	if s.snapshots, err = newSnapshotTracker(snapshots, state, s.cfg.Took); err != nil {
		return err
	}
	if err := s.stack(log, stable, s.snapshots.newest); err != nil {
		return err
	}
	if front := s.cfg.Hooks.Front; front != nil {
		s.log, s.stable = front(s.log, s.stable)
	}
	installed, err := s.stable.GetUint64([]byte(keyInstalled))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return fmt.Errorf("read %s: %w", keyInstalled, err)
	}
	s.installed.Store(installed)
	return nil
}

// stack builds the layers on a log and a stable store.
func (s *Store) stack(log raft.LogStore, stable raft.StableStore, newest func() (index, term uint64)) error {
	s.written = &failStopLog{store: log, failStop: s.failStop, path: s.Path()}
	cache, err := raft.NewLogCache(cachedEntries, s.written)
	if err != nil {
		return fmt.Errorf("log cache: %w", err)
	}
	if s.stable, err = newVoteStore(stable, s.failStop, s.crash); err != nil {
		return fmt.Errorf("open %s: %w", s.Path(), err)
	}
	if s.marks, err = newMarkedLog(cache, s.stable); err != nil {
		return err
	}
	checked, err := newSnapshotCheckedLog(s.marks, newest)
	s.log = intakeLog{checked, s.cfg.Took}
	return err
}

func (s *Store) crash(err error) {
	if s.cfg.Crash != nil {
		s.cfg.Crash(err)
	}
}

// ReviewAppend removes the entries that the newest snapshot contains from a received AppendEntries
// request. See reviewAppend.
func (s *Store) ReviewAppend(req *raft.AppendEntriesRequest) {
	index, term := s.snapshots.newest()
	reviewAppend(req, index, term)
}

// SetInstalled records that the state is about to be replaced with a received state at index. The
// record is durable on return. The state must be replaced only after that.
//
// A leader streams its current state, which is newer than the snapshot that Raft requested. Until
// the log has reached index, the node has applied more than its log contains. The record
// distinguishes such a node from one whose disk was rolled back, even after a restart. The record
// is in the log file, so an older copy of the log has an older record.
func (s *Store) SetInstalled(index uint64) error {
	if err := s.stable.SetUint64([]byte(keyInstalled), index); err != nil {
		return fmt.Errorf("record installed state: %w", err)
	}
	s.installed.Store(index)
	return nil
}

// Installed returns the index of the last received state, or 0.
func (s *Store) Installed() uint64 { return s.installed.Load() }

// End returns the last index of the log, or of a received state that the log has not reached yet.
// It never falls below an index that this node has applied, in any process, unless the disk was
// rolled back. Raft must have been started.
func (s *Store) End() uint64 {
	return max(s.raft.LastIndex(), min(s.Installed(), s.cfg.FSM.Applied()))
}

// EndAtStart returns the result of End from the time when Raft started, before the first message of
// a peer.
func (s *Store) EndAtStart() uint64 { return s.atStart }

// Mark returns the highest progress of a server that leaders have recorded in this log, or nil. It
// survives restarts, snapshots and truncations. The caller must not change the mark.
func (s *Store) Mark(server raft.ServerID) *command.Mark { return s.marks.mark(server) }

// Path returns the path of the log file.
func (s *Store) Path() string { return filepath.Join(s.cfg.Dir, LogFile) }

// Size returns the size of the log file in bytes, or 0 if it is unknown.
func (s *Store) Size() int64 {
	info, err := os.Stat(s.Path())
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close closes the log file. Raft must have been shut down. Later writes fail with
// revoked.ErrClosed and are not fatal. Close is safe to call twice.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.failStop.close()
		s.closed = s.disk()
	})
	return s.closed
}
