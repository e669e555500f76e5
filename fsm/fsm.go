package fsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/memory"
	"revoked/fsm/progress"
	"revoked/fsm/rows"
	"revoked/fsm/rules"
	"revoked/fsm/store"
)

// Changes receives the changes of each commit. Apply calls it after the commit and before it
// publishes the applied index. So a cache that advances its epochs in these methods never serves a
// record that an acknowledged revocation ended. The methods must not block and must not call the
// FSM.
type Changes interface {
	TokenChanged(d revoked.Digest)
	GrantChanged(id string)
	AllChanged() // a snapshot replaced the state
}

// FS is a file system. Tests replace it with one that loses unsynced writes in a crash.
type FS = store.FS

// Config configures Open.
type Config struct {
	Dir        string       // directory of the state; Open creates it
	CacheBytes int64        // size of Pebble's block cache; 0: 64 MiB
	FS         FS           // nil: the file system of the machine
	Log        *slog.Logger // nil: discarded
	Changes    Changes      // may be nil
	// Installing receives the index of a streamed state before that state replaces the current
	// one. An error cancels the restore. May be nil.
	Installing func(index uint64) error
	// Fatal receives, once, the first error after which the state must not be used. Causes are a
	// failed write, an unknown command, and a log that contradicts the state. It must end the
	// process. If it is nil, the FSM panics.
	Fatal func(error)
	// Crash exits the process immediately and does not return. It is called after Fatal if a clean
	// shutdown is impossible. If it is nil, the FSM panics.
	Crash func(error)
}

// An FSM is the replicated state. Raft calls Apply, ApplyBatch, Snapshot and Restore from one
// goroutine. All other methods may be called concurrently.
type FSM struct {
	cfg         Config
	log         *slog.Logger
	failed      fatalOnce
	progress    progress.Index // applied index
	events      progress.Index // index of the newest feed event or client change
	audits      progress.Index // index of the newest audit entry
	durable     atomic.Uint64
	checkpoints atomic.Uint64
	load        writeLoad
	leaders     leaders
	covered     coverage // method value isCovered, allocated once
	rules       rules.Options
	generation  int           // generation of the store; used only by Restore
	scratch     rules.Scratch // buffers of the last unit, reused by the next

	// mu guards store, mem and ring. Only Apply, Restore and Close change them. They do no I/O
	// while they hold mu.
	mu    sync.RWMutex
	store *store.Store // nil after Close
	mem   memory.State
	ring  hashRing
}

var (
	_ raft.FSM         = (*FSM)(nil)
	_ raft.BatchingFSM = (*FSM)(nil)
)

// Open opens the state in cfg.Dir, or creates an empty one. It removes the leftovers of an
// interrupted restore or snapshot.
func Open(cfg Config) (*FSM, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("%w: fsm: Dir is empty", revoked.ErrInvalid)
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Fatal == nil {
		cfg.Fatal = crash
	}
	if cfg.Crash == nil {
		cfg.Crash = crash
	}
	f := &FSM{cfg: cfg, log: cfg.Log, rules: rules.Options{
		Log: cfg.Log, DenialQuota: rules.DenialQuota, AssertionQuota: rules.AssertionQuota}}
	f.covered = f.isCovered
	f.failed.fatal, f.failed.log = cfg.Fatal, cfg.Log
	var err error
	if f.generation, err = store.Current(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	s, err := f.openGeneration(f.generation)
	if err != nil {
		return nil, err
	}
	mem, err := memory.Load(s)
	if err == nil {
		err = indexJTIs(s, &mem)
	}
	if err == nil {
		err = filterKeys(s, &mem)
	}
	if err != nil {
		s.Release()
		return nil, err
	}
	f.adopt(s, mem)
	f.progress.Advance(mem.Applied.Index)
	f.events.Advance(mem.Applied.Index) // an upper bound of the newest event
	f.audits.Advance(mem.Applied.Index)
	f.durable.Store(mem.Applied.Index)
	return f, nil
}

// crash is the default of Config.Fatal and Config.Crash.
func crash(err error) { panic(err) }

// openGeneration opens the n-th generation. A background error of the store exits the process.
func (f *FSM) openGeneration(n int) (*store.Store, error) {
	return store.Open(store.GenerationDir(f.cfg.Dir, n), store.Options{
		FS: f.cfg.FS, CacheBytes: f.cfg.CacheBytes, Log: f.log, Fatal: f.failed.report, Crash: f.cfg.Crash,
	})
}

// filteredFamilies are the families in which most reads find no row. A registration, and the first
// denial of a token, look up rows that do not exist yet. Most JWTs are not revoked, so no row
// revokes them.
var filteredFamilies = []byte{rows.FamilyToken, rows.FamilyGrant, rows.FamilyTombstone, rows.FamilyDenial}

// filterKeys starts a filter in memory that makes reads of absent rows of filteredFamilies cheap.
func filterKeys(s *store.Store, mem *memory.State) error {
	a := &mem.Applied
	expect := a.Tokens + a.Grants + a.Tombstones
	for _, n := range mem.Denials {
		expect += n
	}
	return s.Filter(string(filteredFamilies), rows.FamilyJTI, int(expect))
}

// adopt makes s the current store and returns the previous one.
func (f *FSM) adopt(s *store.Store, mem memory.State) (old *store.Store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, f.store, f.mem = f.store, s, mem
	f.ring = hashRing{}
	a := &mem.Applied
	f.ring.push(rules.HashPoint{Index: a.Index, Log: a.LogHash, State: a.State.Bytes()})
	return old
}

// errClosed is the error of reads and waits after Close.
var errClosed = fmt.Errorf("%w: state machine", revoked.ErrClosed)

// acquire returns the current store, which stays open until the caller releases it. It returns
// errClosed after Close.
func (f *FSM) acquire() (*store.Store, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return nil, errClosed
	}
	f.store.Hold()
	return f.store, nil
}

// A coverage reports whether a cut-off covers a token of g, see revoked.DecideInput.
type coverage = func(g *revoked.Grant, t *revoked.Token, skew time.Duration) bool

// isCovered is the coverage of the current state.
func (f *FSM) isCovered(g *revoked.Grant, t *revoked.Token, skew time.Duration) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Cutoffs.Find(g, t, skew) != nil
}

// Close flushes and closes the state and wakes every waiter. Raft must have stopped first. Close
// may be called more than once.
func (f *FSM) Close() error {
	f.progress.Close(errClosed)
	f.events.Close(errClosed)
	f.audits.Close(errClosed)
	f.mu.Lock()
	s := f.store
	f.store = nil
	index := f.mem.Applied.Index
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	var err error
	if !f.failed.bad.Load() {
		if err = s.Flush(); err == nil {
			f.durable.Store(index)
		}
	}
	s.Release()
	return errors.Join(err, s.Wait())
}

// Applied returns the index of the newest log entry whose effects every reader sees. A commit
// publishes it last: after the rows, the memory and Changes.
func (f *FSM) Applied() uint64 { return f.progress.Load() }

// Wait blocks until Applied() >= index. It returns the cause of ctx if ctx ends first, and
// revoked.ErrClosed if the state machine closes first.
func (f *FSM) Wait(ctx context.Context, index uint64) error { return f.progress.Wait(ctx, index) }

// WaitEvent blocks until the feed may have an event whose index is greater than the argument after,
// or a client has changed. A change of a client may end its right to read the feed. Other entries
// do not wake WaitEvent. It may return nil without such a cause, once after Open and once after
// Restore. It returns the errors of Wait.
func (f *FSM) WaitEvent(ctx context.Context, after uint64) error {
	return waitAbove(ctx, &f.events, after)
}

// waitAbove blocks until the index that i publishes is greater than the argument after.
func waitAbove(ctx context.Context, i *progress.Index, after uint64) error {
	if after == math.MaxUint64 { // no index is above it
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return i.Wait(ctx, after+1)
}

// AppliedChan returns a channel that is closed when Applied next advances or the state machine
// closes. Call it before reading the state, or an advance may be missed.
func (f *FSM) AppliedChan() <-chan struct{} { return f.progress.Next() }

// DurableIndex returns an index whose state is on disk: a restart finds that state or a later one.
// Right after Open it is the index of the state that Open found. After a failure it returns an
// error that wraps revoked.ErrClosed.
func (f *FSM) DurableIndex() (uint64, error) {
	if f.failed.bad.Load() {
		return 0, fmt.Errorf("%w: the state machine has failed", revoked.ErrClosed)
	}
	return f.durable.Load(), nil
}

// flush makes the state of s durable, at least up to the index applied at the time of the call.
func (f *FSM) flush(s *store.Store) error {
	f.mu.RLock()
	index, current := f.mem.Applied.Index, f.store == s
	f.mu.RUnlock()
	if err := s.Flush(); err != nil {
		f.failed.report(err)
		return err
	}
	for current {
		now := f.durable.Load()
		if index <= now || f.durable.CompareAndSwap(now, index) {
			break
		}
	}
	return nil
}

// fatalOnce passes the first error to fatal.
type fatalOnce struct {
	once  sync.Once
	bad   atomic.Bool
	fatal func(error)
	log   *slog.Logger
}

func (o *fatalOnce) report(err error) {
	o.bad.Store(true)
	o.once.Do(func() {
		o.log.Error("state machine failed", "error", err)
		o.fatal(err)
	})
}
