package fsm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"revoked"
)

// Changes hears what a commit changed. The calls come from Apply, after the commit and before the
// applied index is published, so a cache that moves its epochs here never serves what an
// acknowledged revocation ended. They must not block and must not call the FSM.
type Changes interface {
	TokenChanged(d revoked.Digest)
	GrantChanged(id string)
	AllChanged() // the state was replaced by a snapshot
}

// An FS is the file system of the state: the machine's, or that of a test which forgets at a crash what
// was not synced.
type FS = vfs.FS

// Config is what Open needs.
type Config struct {
	Dir        string       // the directory of the state; made when absent
	CacheBytes int64        // of Pebble's block cache; 0: 64 MiB
	FS         FS           // nil: the machine's
	Log        *slog.Logger // nil: discarded
	Changes    Changes      // nil: nobody listens
	// Installing is told the index of a state that a leader streamed, before it replaces this copy; after an
	// error the copy stays. nil: nobody listens.
	Installing func(index uint64) error
	// Fatal is called once, with the first error after which this copy of the state can no longer be
	// trusted to follow the log: a failed write, an undecodable command, a log that contradicts the
	// state. It must end the process; nil panics.
	Fatal func(error)
	// Crash ends the process at once; it does not return. It is called after Fatal, with an error that
	// the store does not survive even for as long as an orderly stop takes. nil panics.
	Crash func(error)
}

// An FSM is the replicated state. Apply, ApplyBatch, Snapshot and Restore are Raft's and come from one
// goroutine; everything else may be called at any time from anywhere.
type FSM struct {
	cfg      Config
	log      *slog.Logger
	failed   onceFatal
	progress progress
	durable  atomic.Uint64
	frozen   atomic.Uint64                                   // checkpoints so far
	covers   func(g *revoked.Grant, tok *revoked.Token) bool // cutOff, made once
	gen      int                                             // number of the newest generation directory; Restore's alone
	scratch  scratch                                         // of the last tx, for the next

	// mu guards which store is current, and memory. Apply alone changes them, holding it for as long
	// as that takes in memory.
	mu    sync.RWMutex
	store *store
	mem   memory
	ring  hashRing
}

var (
	_ raft.FSM         = (*FSM)(nil)
	_ raft.BatchingFSM = (*FSM)(nil)
)

// An Outcome is what Apply returns for a command.
type Outcome struct {
	Index   uint64
	Results []Result // one for each operation of a Batch
}

// A Result is the outcome of one operation.
type Result struct {
	Err error // wraps a sentinel of the root package
	// Index is that of the state in which the outcome holds: this entry's, or for a repeat whatever
	// index showed it.
	Index    uint64
	Register revoked.RegisterResult
	// Ended: a registration that makes an older token inactive, by rotation or by a tombstone that ends
	// its grant. It is final when every node knows, as a revocation is.
	Ended    bool
	Client   *revoked.Client
	Settings revoked.Settings
	Matched  int
}

// Open opens the state in cfg.Dir, or makes an empty one. It removes what a restore or a snapshot that
// was interrupted left behind.
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
		cfg.Fatal = func(err error) { panic(err) }
	}
	if cfg.Crash == nil {
		cfg.Crash = crash
	}
	f := &FSM{cfg: cfg, log: cfg.Log}
	f.covers = f.cutOff
	f.failed.fatal, f.failed.log = cfg.Fatal, cfg.Log
	name, err := currentGeneration(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = generationName(1)
		if err := cfg.FS.MkdirAll(filepath.Join(cfg.Dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("make generation: %w", err)
		}
		if err := setCurrent(cfg.FS, cfg.Dir, name); err != nil {
			return nil, err
		}
	}
	if _, err := fmt.Sscanf(name, generationPrefix+"%d", &f.gen); err != nil {
		return nil, fmt.Errorf("generation %q: %w", name, err)
	}
	s, err := openStore(cfg.FS, filepath.Join(cfg.Dir, name), cfg.CacheBytes, cfg.Log, f.failed.report, cfg.Crash)
	if err != nil {
		return nil, err
	}
	mem, err := loadMemory(s)
	if err != nil {
		s.release()
		return nil, err
	}
	f.adopt(s, mem)
	f.progress.index.Store(mem.applied.Index)
	f.durable.Store(mem.applied.Index)
	return f, nil
}

func generationName(n int) string { return fmt.Sprintf("%s%06d", generationPrefix, n) }

// adopt makes s the current store. It returns the one before.
func (f *FSM) adopt(s *store, mem memory) (old *store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, f.store, f.mem = f.store, s, mem
	f.ring.reset()
	if a := &mem.applied; a.Index > 0 {
		f.ring.push(hashPoint{index: a.Index, log: a.LogHash, state: a.State.bytes()})
	}
	return old
}

// Close flushes and closes the state, and wakes everyone who waits. It is safe twice. Raft must have
// been shut down before.
func (f *FSM) Close() error {
	f.progress.shut()
	f.mu.Lock()
	s := f.store
	f.store = nil
	index := f.mem.applied.Index
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	var err error
	if !f.failed.bad.Load() {
		if err = s.flush(); err == nil {
			f.durable.Store(index)
		}
	}
	s.release()
	<-s.closed
	return errors.Join(err, s.err)
}

// DurableIndex returns an index that is on disk: a restart would find it, or a later one. Right after
// Open it is exactly what was found.
func (f *FSM) DurableIndex() (uint64, error) {
	if f.failed.bad.Load() {
		return 0, fmt.Errorf("%w: the state machine has failed", revoked.ErrClosed)
	}
	return f.durable.Load(), nil
}

// Apply implements raft.FSM.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The answer to a command is an *Outcome; to a command that
// the state holds already, one without results; to a configuration, nil; and after a failure, an error.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	s, err := f.acquire()
	if err != nil {
		for i := range out {
			out[i] = err
		}
		return out
	}
	defer s.release()
	t := f.newTx(s, &f.mem, false)
	pending := false
	for i, l := range logs {
		if f.failed.bad.Load() {
			out[i] = fmt.Errorf("%w: the state machine has failed", revoked.ErrOutcomeUnknown)
			continue
		}
		if l.Index <= t.Index {
			out[i] = f.skip(t, l)
			continue
		}
		if pending && (t.size > maxCommitBytes || (l.Type == raft.LogCommand && scans(l.Data))) {
			t.commit()
			t = f.newTx(s, &f.mem, false)
		}
		out[i] = f.applyOne(t, l)
		pending = true
	}
	if pending && !f.failed.bad.Load() {
		t.commit()
	}
	t.close()
	if f.failed.bad.Load() {
		for i := range out {
			if _, isErr := out[i].(error); !isErr {
				out[i] = fmt.Errorf("%w: the state machine has failed", revoked.ErrOutcomeUnknown)
			}
		}
	}
	return out
}

// skip answers for an entry that the state holds already. An entry below the applied index with a
// later term than the applied one cannot be of the log that made this state.
func (f *FSM) skip(t *tx, l *raft.Log) any {
	if l.Term > t.Term {
		err := fmt.Errorf("log entry %d has term %d, but the state at index %d is of term %d: the state is not of this log",
			l.Index, l.Term, t.Index, t.Term)
		f.failed.report(err)
		return err
	}
	if l.Type != raft.LogCommand {
		return nil
	}
	return &Outcome{Index: l.Index}
}

// maxCommitBytes is about how much one commit writes at most, an entry of its own aside: Pebble gives a
// batch of half a memtable a flush of its own.
const maxCommitBytes = 4 << 20

// scans reports whether a command walks the store, where it would miss what is not committed yet.
func scans(data []byte) bool {
	return len(data) > 1 && (Type(data[1]) == TypeExpire || Type(data[1]) == TypeReap)
}

func (f *FSM) applyOne(t *tx, l *raft.Log) any {
	t.Index, t.Term, t.seq = l.Index, l.Term, 0
	var out *Outcome
	switch l.Type {
	case raft.LogCommand:
		typ, m, err := Decode(l.Data)
		if err != nil {
			err = fmt.Errorf("log entry %d: %w", l.Index, err)
			f.failed.report(err)
			return err
		}
		t.LogHash = nextLogHash(t.LogHash, l.Index, l.Term, l.Data)
		out = &Outcome{Index: l.Index}
		switch m := m.(type) {
		case *Batch:
			t.advance(m.Stamp)
			t.prefetch(m.Ops)
			out.Results = make([]Result, len(m.Ops))
			for i, op := range m.Ops {
				out.Results[i] = t.op(op)
			}
		case *Epoch:
			t.advance(m.Stamp)
			t.epoch(m)
		case *Tick:
			t.advance(m.Stamp)
		case *Bootstrap:
			t.advance(m.Stamp)
			t.bootstrap(m)
		case *Expire:
			t.advance(m.Stamp)
			t.expire(revoked.Time(m.Before), int(m.Limit))
		case *Reap:
			t.advance(m.Stamp)
			t.reap(int(m.Limit))
		default:
			err := fmt.Errorf("log entry %d: no rule for %s", l.Index, typ)
			f.failed.report(err)
			return err
		}
	case raft.LogConfiguration:
		t.ConfigIndex = l.Index
	}
	if t.err != nil {
		f.failed.report(fmt.Errorf("log entry %d: %w", l.Index, t.err))
		return t.err
	}
	t.points = append(t.points, hashPoint{index: l.Index, log: t.LogHash, state: t.State.bytes()})
	if out == nil {
		return nil
	}
	return out
}

// advance moves the stamp: never back.
func (t *tx) advance(stamp int64) { t.Stamp = max(t.Stamp, revoked.Time(stamp)) }

// op applies one operation of a batch.
func (t *tx) op(op *Op) Result {
	r := t.run(op)
	if r.Index == 0 {
		r.Index = t.Index
	}
	if r.Err != nil {
		r.Register.Err = r.Err
	}
	return r
}

func (t *tx) run(op *Op) Result {
	if err := checkOp(op); err != nil {
		return Result{Err: err}
	}
	who, err := t.actor(op.Actor)
	if err != nil {
		return Result{Err: err}
	}
	switch k := op.Kind.(type) {
	case *Op_Register:
		return t.register(who, k.Register)
	case *Op_Revoke:
		return t.revoke(who, k.Revoke)
	case *Op_DeleteGrant:
		return t.deleteGrant(who, k.DeleteGrant)
	case *Op_MakeCutoff:
		return t.makeCutoff(who, k.MakeCutoff)
	case *Op_PutClient:
		return t.updateClient(who, k.PutClient)
	case *Op_DeleteClient:
		return t.deleteClient(who, k.DeleteClient)
	case *Op_PutSettings:
		return t.updateSettings(who, k.PutSettings)
	}
	return Result{Err: fmt.Errorf("%w: an operation of no kind", revoked.ErrInvalid)}
}

// actor returns the client that asks, as it still must be.
func (t *tx) actor(a *Actor) (*revoked.Client, error) {
	if a.GetClientId() == "" {
		return nil, fmt.Errorf("%w: an operation needs an actor", revoked.ErrForbidden)
	}
	c := t.client(a.ClientId)
	if c == nil || c.Disabled || c.Version != a.Version {
		return nil, fmt.Errorf("%w: client %q", revoked.ErrActorChanged, a.ClientId)
	}
	return c, nil
}
