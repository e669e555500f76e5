package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked"
)

const (
	defaultCacheBytes = 64 << 20
	memTableBytes     = 32 << 20
	memTablesHeld     = 2         // one that is written to, one that is flushed
	currentFile       = "CURRENT" // names the generation directory in use
	generationPrefix  = "state-"
	checkpointDir     = "checkpoints"
)

// A store is one generation of the durable state: a Pebble database without a WAL of its own. It is
// closed when the last holder lets go; retired generations delete their directory then.
type store struct {
	db      *pebble.DB
	broken  *breakage
	cache   *pebble.Cache
	recent  *recentRows
	fs      FS
	dir     string
	refs    atomic.Int64
	retired atomic.Bool
	closed  chan struct{}
	err     error // of the close; valid after closed
}

func openStore(fs FS, dir string, cacheBytes int64, log *slog.Logger, fatal, crash func(error)) (*store, error) {
	if cacheBytes <= 0 {
		cacheBytes = defaultCacheBytes
	}
	// Pebble takes the memory of its memtables out of the cache.
	// Half of what remains is for rows, half for blocks.
	cache := pebble.NewCache(cacheBytes/2 + memTablesHeld*memTableBytes)
	b := &breakage{done: make(chan struct{}), fatal: fatal}
	opts := pebbleOptions(cache, log, b.report)
	opts.FS = fs
	opts.Logger = pebbleLogger{log: log, fatal: b.report, crash: crash}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		cache.Unref()
		return nil, storeError("open "+dir, err)
	}
	s := &store{db: db, broken: b, cache: cache, recent: newRecentRows(cacheBytes / 2), fs: fs, dir: dir, closed: make(chan struct{})}
	s.refs.Store(1)
	return s, nil
}

func pebbleOptions(cache *pebble.Cache, log *slog.Logger, fatal func(error)) *pebble.Options {
	opts := &pebble.Options{
		Cache:                       cache,
		DisableWAL:                  true, // the Raft log is the WAL
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8, // keys are digests: a compaction rewrites all of the next level, however little is new
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                1024,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { fatal(storeError("background work", err)) },
			DataCorruption: func(i pebble.DataCorruptionInfo) { // its own text ends with a stack
				fatal(fmt.Errorf("%w: store: %s: %w", revoked.ErrDamaged, i.Path, storeCause{i.Details}))
			},
		},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].FilterType = pebble.TableFilter
	}
	return opts
}

// storeError is an error of Pebble with what it did.
func storeError(what string, err error) error {
	err = storeCause{err}
	if pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: store: %s: %w", revoked.ErrDamaged, what, err)
	}
	return fmt.Errorf("store: %s: %w", what, err)
}

// A storeCause is an error of Pebble in one line: some are more, and of corruption the last line is a placeholder.
type storeCause struct{ error }

func (e storeCause) Error() string {
	var lines []string
	for line := range strings.Lines(e.error.Error()) {
		if line = strings.TrimSpace(line); line != "" && line != "<corruption detail carrier>" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func (e storeCause) Unwrap() error { return e.error }

// release gives a hold back; the last one closes.
func (s *store) release() {
	if s.refs.Add(-1) != 0 {
		return
	}
	s.err = s.db.Close()
	s.cache.Unref()
	if s.retired.Load() {
		s.err = errors.Join(s.err, s.fs.RemoveAll(s.dir))
	}
	close(s.closed)
}

// get returns a row, nil when there is none. The caller must not change it.
func (s *store) get(key []byte) ([]byte, error) {
	if v, ok := s.recent.get(key); ok {
		return v, nil
	}
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read row: %w", err)
	}
	out := append(make([]byte, 0, len(v)), v...)
	return out, closer.Close()
}

// A pebbleLogger passes on what an operator must see: Pebble's informational lines are many.
type pebbleLogger struct {
	log   *slog.Logger
	fatal func(error)
	crash func(error) // does not return
}

var _ pebble.Logger = pebbleLogger{}

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("store: " + fmt.Sprintf(format, args...))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("store: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("store: %s", fmt.Sprintf(format, args...))
	l.fatal(err)
	l.crash(err) // Pebble does not survive the return of Fatalf
}

// crash is the Crash of who has none.
func crash(err error) { panic(err) }

// A breakage is the first error of Pebble's work in the background. It tries a flush that has failed
// again and again: whoever waits for one must not wait for ever.
type breakage struct {
	fatal func(error)
	once  sync.Once
	done  chan struct{}
	err   error // read after done
}

func (b *breakage) report(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.done)
	})
	b.fatal(err)
}

// flush brings what has been committed to disk. It fails when any work in the background has failed.
func (s *store) flush() error {
	done, err := s.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-s.broken.done:
		return fmt.Errorf("flush store: %w", s.broken.err)
	}
}

// currentGeneration returns the name of the generation that CURRENT names, "" in a new directory, and
// removes what an interrupted restore left beside it.
func currentGeneration(fs FS, dir string) (string, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make data directory: %w", err)
	}
	b, err := readFile(fs, filepath.Join(dir, currentFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read current generation: %w", err)
	}
	name := strings.TrimSpace(string(b))
	if err == nil && (!strings.HasPrefix(name, generationPrefix) || name != filepath.Base(name)) {
		return "", fmt.Errorf("%w: %s does not name a generation", revoked.ErrDamaged, filepath.Join(dir, currentFile))
	}
	entries, err := fs.List(dir)
	if err != nil {
		return "", fmt.Errorf("list data directory: %w", err)
	}
	found := name == ""
	for _, e := range entries {
		switch {
		case e == name:
			found = true
		case strings.HasPrefix(e, generationPrefix), e == checkpointDir, e == currentFile+".tmp":
			if err := fs.RemoveAll(filepath.Join(dir, e)); err != nil {
				return "", fmt.Errorf("remove leftover: %w", err)
			}
		}
	}
	if !found {
		return "", fmt.Errorf("%w: generation %s is missing in %s", revoked.ErrDamaged, name, dir)
	}
	return name, nil
}

// setCurrent makes name the generation in use: the one rename of a swap. Durable on return.
func setCurrent(fs FS, dir, name string) error {
	tmp := filepath.Join(dir, currentFile+".tmp")
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write current generation: %w", err)
	}
	_, err = f.Write([]byte(name + "\n"))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write current generation: %w", err)
	}
	if err := fs.Rename(tmp, filepath.Join(dir, currentFile)); err != nil {
		return fmt.Errorf("swap generation: %w", err)
	}
	return syncDir(fs, dir)
}

func readFile(fs FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

func syncDir(fs FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// acquire holds the present generation until release.
func (f *FSM) acquire() (*store, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return nil, fmt.Errorf("%w: the state machine", revoked.ErrClosed)
	}
	f.store.refs.Add(1)
	return f.store, nil
}

// onceFatal calls fatal for the first error only.
type onceFatal struct {
	once  sync.Once
	bad   atomic.Bool
	fatal func(error)
	log   *slog.Logger
}

func (o *onceFatal) report(err error) {
	o.bad.Store(true)
	o.once.Do(func() {
		o.log.Error("state machine cannot go on", "error", err)
		o.fatal(err)
	})
}

// onceError keeps the first error that it is given.
type onceError struct {
	mu  sync.Mutex
	err error
}

func (o *onceError) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

func (o *onceError) get() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
