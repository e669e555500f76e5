package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"revoked"
)

const (
	raftFile   = "raft.db"
	lockWait   = time.Second
	cachedLogs = 512
)

// stores are Raft's log and stable store in one bbolt file.
//
// Asked top down, log is: anchoredLog (what the snapshot says goes before what the log says), then
// raft.LogCache, then guard (a write error is the end), then bolt. The cache is below anchoredLog
// and not above it: it may hold the very entry that anchoredLog must hide.
type stores struct {
	bolt   *raftboltdb.BoltStore // nil where tests bring another store
	log    raft.LogStore
	stable raft.StableStore

	path     string
	guard    *guard
	anchored *anchoredLog
	closing  sync.Once
	closed   error
}

// openStores opens dir/raft.db, or makes it. It fails within a second when another process has it
// open. The first write or sync error, of either store, is given to fatal, once; from then on every
// write is refused untried. useSnapshots must be called before Raft starts.
func openStores(dir string, fatal func(error), log *slog.Logger) (*stores, error) {
	path := filepath.Join(dir, raftFile)
	opened := time.Now()
	err := checkLogFile(path)
	var bolt *raftboltdb.BoltStore
	if err == nil {
		err = guarded(path, func() error {
			bolt, err = openBolt(path)
			return err
		})
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: in use by another process; a data directory belongs to one node: "+
			"stop the other process or give this one another directory: %w", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, damaged(path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &stores{bolt: bolt, path: path, guard: &guard{fatal: fatal}}
	// bbolt syncs the file it makes but not its name: a node that lost it would have forgotten its votes.
	if err := errors.Join(syncDir(dir), s.assemble(bolt, bolt)); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), bolt.Close())
	}
	log.Info("opened the Raft log", "path", path, "bytes", s.Size(), "took", time.Since(opened))
	return s, nil
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockWait,
			// The free list is not written with every commit, where it would come to dominate after
			// a burst; it is rebuilt at the next opening.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
}

// assemble puts the layers over a log store and a stable store.
func (s *stores) assemble(log raft.LogStore, stable raft.StableStore) error {
	cache, err := raft.NewLogCache(cachedLogs, &guardedLog{store: log, guard: s.guard, path: s.path})
	if err != nil {
		return fmt.Errorf("log cache: %w", err)
	}
	s.anchored = newAnchoredLog(cache)
	s.log = s.anchored
	s.stable, err = newVoteStore(&guardedStable{store: stable, guard: s.guard})
	return err
}

// useSnapshots says how to learn index and term of the newest snapshot, zero for none. It removes
// what a snapshot that was installed before the last stop left behind, so Raft must not run yet.
//
// newest is asked at every read and write of the log, from several goroutines: it must be quick and
// must not come back here. It must know of a snapshot when the state machine has been restored from it, and
// not before; of one that was taken here from the Close of its sink on. At a start it is the newest there is, and
// the start fails where Raft does not come to it.
func (s *stores) useSnapshots(newest func() (index, term uint64)) error {
	return s.anchored.use(newest)
}

// Size returns the size of the file in bytes, 0 when it cannot be told.
func (s *stores) Size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close closes the file. Raft must have been shut down. Writes after it are refused with
// revoked.ErrClosed and are not fatal.
func (s *stores) Close() error {
	s.closing.Do(func() {
		s.guard.close()
		if s.bolt != nil {
			s.closed = s.bolt.Close()
		}
	})
	return s.closed
}

// A guard lets writes through until one has failed. What a failed write or sync left on disk is
// unknown and a second sync may lie, so nothing is tried again: the process ends and reads the disk
// anew.
type guard struct {
	fatal func(error)

	mu     sync.Mutex
	failed error
}

// write runs do unless an earlier one failed, and calls fatal if do is the first that fails. Writes
// come one after the other.
func (g *guard) write(what string, do func() error) error {
	g.mu.Lock()
	if g.failed != nil {
		defer g.mu.Unlock()
		return g.failed
	}
	err := do()
	if err == nil {
		g.mu.Unlock()
		return nil
	}
	err = fmt.Errorf("raft store: %s: %w", what, err)
	g.failed = err
	g.mu.Unlock()
	g.fatal(err)
	return err
}

// fail refuses every later write and calls fatal, unless something had failed before.
func (g *guard) fail(err error) {
	g.mu.Lock()
	first := g.failed == nil
	if first {
		g.failed = err
	}
	g.mu.Unlock()
	if first {
		g.fatal(err)
	}
}

func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		g.failed = fmt.Errorf("raft store: %w", revoked.ErrClosed)
	}
}

// A guardedLog is a log store whose writes go through a guard, and whose entries carry a checksum on
// disk: one that is not as it was written is fatal. It does not pass on IsMonotonic: the logs here may
// have gaps.
type guardedLog struct {
	store raft.LogStore
	guard *guard
	path  string
}

var _ raft.LogStore = (*guardedLog)(nil)

func (l *guardedLog) FirstIndex() (uint64, error) { return l.store.FirstIndex() }
func (l *guardedLog) LastIndex() (uint64, error)  { return l.store.LastIndex() }

func (l *guardedLog) GetLog(index uint64, entry *raft.Log) error {
	err := l.store.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return err
	}
	if err == nil {
		err = unseal(index, entry)
	}
	if err != nil {
		err = damaged(l.path, err)
		l.guard.fail(err)
	}
	return err
}

func (l *guardedLog) StoreLog(entry *raft.Log) error {
	return l.guard.write("store an entry", func() error { return l.store.StoreLog(sealed(entry)) })
}

func (l *guardedLog) StoreLogs(entries []*raft.Log) error {
	onDisk := make([]*raft.Log, len(entries))
	for i, e := range entries {
		onDisk[i] = sealed(e)
	}
	return l.guard.write("store entries", func() error { return l.store.StoreLogs(onDisk) })
}

func (l *guardedLog) DeleteRange(first, last uint64) error {
	return l.guard.write("delete entries", func() error { return l.store.DeleteRange(first, last) })
}

// A guardedStable is a stable store whose writes go through a guard.
type guardedStable struct {
	store raft.StableStore
	guard *guard
}

var _ raft.StableStore = (*guardedStable)(nil)

func (s *guardedStable) Get(key []byte) ([]byte, error)       { return s.store.Get(key) }
func (s *guardedStable) GetUint64(key []byte) (uint64, error) { return s.store.GetUint64(key) }

func (s *guardedStable) Set(key, value []byte) error {
	return s.guard.write("set "+string(key), func() error { return s.store.Set(key, value) })
}

func (s *guardedStable) SetUint64(key []byte, value uint64) error {
	return s.guard.write("set "+string(key), func() error { return s.store.SetUint64(key, value) })
}
