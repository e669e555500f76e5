package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked"
)

// FS is a file system. Tests replace it with one that loses unsynced writes in a crash.
type FS = vfs.FS

const (
	defaultCacheBytes = 64 << 20
	memTableBytes     = 32 << 20
	memTables         = 2 // one receives writes while the other is flushed
	stopMemTables     = 4 // with this many memtables, writes wait for a flush

	// A compaction into a level rewrites that whole level, because keys are digests. So level 0 holds
	// many memtables before it is compacted: about half as many as compactSublevels. The level below
	// it holds up to baseBytes. At stopSublevels, writes wait for a compaction.
	compactSublevels = 32
	stopSublevels    = 64
	baseBytes        = 1 << 30
)

// Options configure Open.
type Options struct {
	FS         FS
	CacheBytes int64 // size of the read caches, half of it for recent rows; 0: 64 MiB
	Log        *slog.Logger
	// Fatal receives every error of Pebble's background work. The store must not be used
	// afterwards.
	Fatal func(error)
	// Crash exits the process and does not return. It is called after Fatal, for an error after
	// which Pebble must not continue.
	Crash func(error)
}

// A Store is one generation of the state. All methods may be called concurrently. Hold and Release
// count its users; the last Release closes it.
type Store struct {
	View
	Recent     *Recent // rows of the newest commits; the caller updates it
	db         *pebble.DB
	cache      *pebble.Cache
	background *backgroundError
	filter     filter
	fs         FS
	dir        string
	refs       atomic.Int64
	retired    atomic.Bool
	closed     chan struct{}
	err        error // error from closing the database; set before the channel closed is closed
}

// Open opens the store in dir, which must exist. The caller must call Release. The error wraps
// revoked.ErrDamaged for corruption and for missing files.
func Open(dir string, o Options) (*Store, error) {
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCacheBytes
	}
	// Pebble charges its memtables to the cache.
	cache := pebble.NewCache(o.CacheBytes/2 + memTables*memTableBytes)
	b := &backgroundError{done: make(chan struct{}), fatal: o.Fatal}
	opts, compactions := pebbleOptions(cache, o, b), newScheduler()
	opts.Experimental.CompactionScheduler = compactions
	db, err := pebble.Open(dir, opts)
	if err != nil {
		cache.Unref()
		return nil, pebbleError("open "+dir, err)
	}
	compactions.start()
	s := &Store{
		View: View{db}, Recent: newRecent(o.CacheBytes / 2), db: db, background: b, cache: cache,
		fs: o.FS, dir: dir, closed: make(chan struct{}),
	}
	s.filter.stop = make(chan struct{})
	s.refs.Store(1)
	return s, nil
}

// pebbleOptions favors writes: keys are digests, so they spread over all tables, and most reads are
// of recent or absent rows.
func pebbleOptions(cache *pebble.Cache, o Options, b *backgroundError) *pebble.Options {
	opts := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		Logger:                      logger{log: o.Log, fatal: b.report, crash: o.Crash},
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: stopMemTables,
		L0CompactionThreshold:       compactSublevels,
		L0StopWritesThreshold:       stopSublevels,
		LBaseMaxBytes:               baseBytes,
		MaxOpenFiles:                1024,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { b.report(pebbleError("background work", err)) },
			DataCorruption: func(i pebble.DataCorruptionInfo) { // the text of i ends with a stack trace
				b.report(fmt.Errorf("%w: store: %s: %w", revoked.ErrDamaged, i.Path, oneLine{i.Details}))
			},
		},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].FilterType = pebble.TableFilter
	}
	return opts
}

// Get returns a row, or nil if the row does not exist. The caller must not change it.
func (s *Store) Get(key []byte) ([]byte, error) {
	if v, ok := s.Recent.Get(key); ok {
		return v, nil
	}
	if s.filter.lacks(key) {
		return nil, nil
	}
	return s.View.Get(key)
}

// Lacks reports true only if the store has neither a row with that key nor a row of the group with
// that key. It is much faster than a read. See Filter.
func (s *Store) Lacks(key []byte) bool { return s.filter.lacks(key) }

// NewSeeker returns a Seeker. It opens its iterator on first use.
func (s *Store) NewSeeker() *Seeker { return &Seeker{db: s.db} }

// Hold keeps the store open until a matching Release. The caller must hold the store already, or
// prevent its last Release by other means.
func (s *Store) Hold() { s.refs.Add(1) }

// Release ends a hold. The last Release closes the store, and removes its directory if the store is
// retired.
func (s *Store) Release() {
	if s.refs.Add(-1) != 0 {
		return
	}
	close(s.filter.stop)
	s.filter.scans.Wait()
	s.err = s.db.Close()
	s.cache.Unref()
	if s.retired.Load() {
		s.err = errors.Join(s.err, s.fs.RemoveAll(s.dir))
	}
	close(s.closed)
}

// Retire makes the last Release remove the directory of the store.
func (s *Store) Retire() { s.retired.Store(true) }

// Wait blocks until the last Release has closed the store, and returns the error from closing it.
func (s *Store) Wait() error {
	<-s.closed
	return s.err
}

// WriteLoad returns the write load of Pebble in percent. At 100, writes have to wait. The call
// takes some microseconds, or a millisecond if level 0 has many sublevels.
func (s *Store) WriteLoad() int {
	m := s.db.Metrics()
	tables := int(m.Levels[0].Sublevels)
	if tables > compactSublevels/2 {
		if levels, err := s.db.SSTables(); err == nil { // an error leaves the larger number
			tables = overlap(levels[0])
		}
	}
	return max(int(100*m.MemTable.Size/(stopMemTables*memTableBytes)), 100*tables/stopSublevels)
}

// overlap returns the maximum number of tables that contain the same key. At stopSublevels, Pebble
// stops writes. The number of sublevels may be larger: if each table overlaps only the next one,
// each is in a sublevel of its own.
func overlap(tables []pebble.SSTableInfo) int {
	var first, last [][]byte
	for i := range tables {
		first, last = append(first, tables[i].Smallest.UserKey), append(last, tables[i].Largest.UserKey)
	}
	slices.SortFunc(first, bytes.Compare)
	slices.SortFunc(last, bytes.Compare)
	most, ended := 0, 0
	for i, key := range first {
		for bytes.Compare(last[ended], key) < 0 {
			ended++
		}
		most = max(most, i+1-ended)
	}
	return most
}

// Flush makes everything that was committed before the call durable. It blocks on the disk. It
// fails once any background work has failed, because Pebble retries a failed flush forever.
func (s *Store) Flush() error {
	done, err := s.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-s.background.done:
		return fmt.Errorf("flush store: %w", s.background.err)
	}
}

// A Batch is a set of writes that Commit applies atomically. It is not safe for concurrent use.
type Batch struct {
	s       *Store
	b       *pebble.Batch
	added   []uint64 // hashes of the keys that the filter covers
	deleted int
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { return &Batch{s: s, b: s.db.NewBatch()} }

// Set writes a row. It copies key and val.
func (b *Batch) Set(key, val []byte) error {
	if f := &b.s.filter; f.covers(key) {
		b.added = append(b.added, f.hash(key))
	}
	if err := b.b.Set(key, val, nil); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	return nil
}

// Delete removes a row. It copies key.
func (b *Batch) Delete(key []byte) error {
	if b.s.filter.covers(key) {
		b.deleted++
	}
	if err := b.b.Delete(key, nil); err != nil {
		return fmt.Errorf("delete row: %w", err)
	}
	return nil
}

// Len returns the size of the batch in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Commit applies the batch and frees it. Readers see all of its writes when it returns; see Flush
// for durability.
func (b *Batch) Commit() error {
	renew, err := b.s.filter.write(b.added, b.deleted, func() error { return b.b.Commit(pebble.NoSync) })
	if err != nil {
		return fmt.Errorf("commit rows: %w", err)
	}
	if renew > 0 {
		b.s.renewFilter(renew)
	}
	_ = b.b.Close() // frees memory only
	return nil
}
