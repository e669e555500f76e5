package node

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A simDisk is what one instance of a node has on disk. At a crash a copy is made of what was synced, and
// by chance of a part of what was not; the next life gets the copy, and whatever the old one still
// writes is lost.
type simDisk struct {
	log   *simLog
	state *vfs.MemFS
	snaps *simSnapshots
}

func newSimDisk() *simDisk {
	return &simDisk{log: newSimLog(), state: vfs.NewCrashableMem(), snaps: &simSnapshots{}}
}

// mkdir makes a directory that is there for good.
func (d *simDisk) mkdir(path string) error {
	if err := d.state.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for ; path != "/"; path = filepath.Dir(path) {
		f, err := d.state.OpenDir(path)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	f, err := d.state.OpenDir("/")
	return errors.Join(err, f.Sync(), f.Close())
}

// crash returns the copy. The node's goroutines run on for an instant, so the order matters: what a
// snapshot stands for is older than it, and what was applied is in the log.
func (d *simDisk) crash(g *simGate, rng *rand.Rand) *simDisk {
	d.log.seal()
	next := &simDisk{snaps: d.snaps.sealed()}
	next.state = d.state.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
	g.crash()
	next.log = d.log.copied()
	return next
}

// A simFS takes its time to make a state that was restored the current one. Pebble, which holds locks while it
// writes, is served at once: in a bubble nobody may sleep with a lock that others wait for.
type simFS struct {
	vfs.FS
	current string // the file that says which state is
	sleep   func() time.Duration
}

func (f simFS) Rename(from, to string) error {
	if to == f.current {
		time.Sleep(f.sleep())
	}
	return f.FS.Rename(from, to)
}

func (f simFS) Unwrap() vfs.FS { return f.FS }

var errSimCrashed = errors.New("simulated: crashed")

// A simLog is a log and stable store, in memory, whose writes are whole and durable when they return, as
// those of bbolt are.
type simLog struct {
	mu          sync.Mutex
	entries     map[uint64]*raft.Log
	first, last uint64
	kv          map[string][]byte
	uncut       bool // nothing is deleted any more
}

func newSimLog() *simLog { return &simLog{entries: map[uint64]*raft.Log{}, kv: map[string][]byte{}} }

func (l *simLog) copied() *simLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &simLog{entries: maps.Clone(l.entries), first: l.first, last: l.last, kv: maps.Clone(l.kv)}
}

func (l *simLog) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, nil
}

func (l *simLog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, nil
}

func (l *simLog) GetLog(index uint64, out *raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*out = *e
	return nil
}

func (l *simLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *simLog) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		l.entries[e.Index] = e
		if l.first == 0 || e.Index < l.first {
			l.first = e.Index
		}
		l.last = max(l.last, e.Index)
	}
	return nil
}

func (l *simLog) seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uncut = true
}

func (l *simLog) DeleteRange(first, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.uncut {
		return errSimCrashed
	}
	for i := first; i <= last; i++ {
		delete(l.entries, i)
	}
	switch { // Raft deletes at the ends only
	case len(l.entries) == 0:
		l.first, l.last = 0, 0
	case first <= l.first:
		l.first = max(l.first, last+1)
	default:
		l.last = first - 1
	}
	return nil
}

func (l *simLog) Set(key, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv[string(key)] = bytes.Clone(value)
	return nil
}

func (l *simLog) Get(key []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.kv[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return bytes.Clone(v), nil
}

func (l *simLog) SetUint64(key []byte, v uint64) error {
	return l.Set(key, []byte{byte(v >> 56), byte(v >> 48), byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func (l *simLog) GetUint64(key []byte) (v uint64, err error) {
	b, err := l.Get(key)
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, err
}

// A simGate stands before the stores of one life: it delays writes as a disk does, holds them while the
// node is frozen or its disk hangs, and at a crash decides what becomes of the one that is under way.
type simGate struct {
	mu      sync.Mutex
	rng     *rand.Rand
	latency time.Duration
	shut    chan struct{} // nil: open
	dead    bool
	pending func() error
	stored  func(*raft.Log) // hears every entry that goes to the log
}

func (g *simGate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil || g.dead {
		return func() {}
	}
	shut := make(chan struct{})
	g.shut = shut
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.shut == shut {
			g.shut = nil
			close(shut)
		}
	}
}

// crash loses the write that is under way, or lets it become durable.
func (g *simGate) crash() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	if g.pending != nil && g.rng.IntN(2) == 0 {
		g.pending()
	}
	g.pending = nil
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *simGate) crashed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

func (g *simGate) write(do func() error) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			break
		}
		g.mu.Unlock()
		<-shut
	}
	if g.dead { // Raft panics on an error here; nobody sees what this life still does
		g.mu.Unlock()
		return nil
	}
	g.pending = do
	wait := g.latency/2 + time.Duration(g.rng.Int64N(int64(g.latency)+1))
	g.mu.Unlock()
	time.Sleep(wait)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return nil
	}
	g.pending = nil
	return do()
}

type simGatedLog struct {
	raft.LogStore
	g *simGate

	// lost is what Raft believes to have stored since its node died: it reads that again, and panics where
	// it cannot.
	mu   sync.Mutex
	lost map[uint64]*raft.Log
}

func (l *simGatedLog) GetLog(index uint64, out *raft.Log) error {
	err := l.LogStore.GetLog(index, out)
	if !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.lost[index]; e != nil {
		*out = *e
		return nil
	}
	return err
}

func (l *simGatedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *simGatedLog) StoreLogs(entries []*raft.Log) error {
	err := l.g.write(func() error {
		for _, e := range entries {
			l.g.stored(e)
		}
		return l.LogStore.StoreLogs(entries)
	})
	if l.g.crashed() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range entries {
			l.lost[e.Index] = e
		}
	}
	return err
}

type simGatedStable struct {
	raft.StableStore
	g *simGate
}

func (s *simGatedStable) Set(k, v []byte) error {
	return s.g.write(func() error { return s.StableStore.Set(k, v) })
}

func (s *simGatedStable) SetUint64(k []byte, v uint64) error {
	if string(k) == keyVoteTerm { // kept in memory until the candidate comes
		return s.StableStore.SetUint64(k, v)
	}
	return s.g.write(func() error { return s.StableStore.SetUint64(k, v) })
}

// open puts the node's own layers over the disk, and the gate over those.
func (d *simDisk) open(g *simGate) func(string, func(error), *slog.Logger) (*stores, error) {
	return func(_ string, fatal func(error), _ *slog.Logger) (*stores, error) {
		s := &stores{path: "simulated", guard: &guard{fatal: fatal}}
		if err := s.assemble(d.log, d.log); err != nil {
			return nil, err
		}
		s.log, s.stable = &simGatedLog{LogStore: s.log, g: g, lost: map[uint64]*raft.Log{}}, &simGatedStable{s.stable, g}
		return s, nil
	}
}

// simSnapshots are the two newest snapshots; one counts when its sink is closed.
type simSnapshots struct {
	mu   sync.Mutex
	kept []simSnapshot // newest first
	dead bool
}

type simSnapshot struct {
	meta raft.SnapshotMeta
	b    []byte
}

func (s *simSnapshots) sealed() *simSnapshots {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	return &simSnapshots{kept: slices.Clone(s.kept)}
}

func (s *simSnapshots) open(string, hclog.Logger) (raft.SnapshotStore, error) { return s, nil }

func (s *simSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	id := time.Now().Format("20060102150405.000000000")
	return &simSink{s: s, meta: raft.SnapshotMeta{Version: version, ID: id, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex}}, nil
}

func (s *simSnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*raft.SnapshotMeta
	for i := range s.kept {
		m := s.kept[i].meta
		out = append(out, &m)
	}
	return out, nil
}

func (s *simSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if s.kept[i].meta.ID == id {
			m := s.kept[i].meta
			return &m, io.NopCloser(bytes.NewReader(s.kept[i].b)), nil
		}
	}
	return nil, nil, errors.New("simulated: no such snapshot")
}

type simSink struct {
	s    *simSnapshots
	meta raft.SnapshotMeta
	buf  bytes.Buffer
	done bool
}

func (k *simSink) Write(b []byte) (int, error) { return k.buf.Write(b) }
func (k *simSink) ID() string                  { return k.meta.ID }
func (k *simSink) Cancel() error               { k.done = true; return nil }

func (k *simSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.s.dead {
		return errSimCrashed
	}
	k.meta.Size = int64(k.buf.Len())
	k.s.kept = append([]simSnapshot{{k.meta, k.buf.Bytes()}}, k.s.kept...)
	slices.SortStableFunc(k.s.kept, func(a, b simSnapshot) int {
		if a.meta.Term != b.meta.Term {
			return int(b.meta.Term) - int(a.meta.Term)
		}
		return int(b.meta.Index) - int(a.meta.Index)
	})
	k.s.kept = k.s.kept[:min(2, len(k.s.kept))]
	return nil
}
