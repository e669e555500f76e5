package node

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/internal/mutant"
)

// A recordSource is the state that a cache reads from: the state machine.
type recordSource interface {
	// LookupToken returns what is known of a token, and whether anything is.
	LookupToken(d revoked.Digest) (revoked.Token, bool, error)
	// LookupGrant returns a grant, and whether there is one.
	LookupGrant(id string) (revoked.Grant, bool, error)
}

const (
	assumedEntrySize = 512 // bytes; decides how many frequency counters there are, no more
	countersPerEntry = 10
	minCounters      = 1 << 10
	getBuffer        = 64
	readAttempts     = 3 // of a token whose grant is removed while it is read
)

// A cache keeps records that were read from the state machine. It holds records, never verdicts.
//
// Ristretto orders nothing: a Set may be dropped, be seen late, or bring an entry back after a Del.
// So nothing here depends on it: an entry counts only while the three epochs that were read before
// it was are where they were. There is no Del. A changed record is not removed but not believed;
// it is replaced at the next read, or evicted.
type cache struct {
	entries *ristretto.Cache[uint64, *entry]
	epochs  *epochs
	source  recordSource
	seed    maphash.Seed
	metrics cacheMetrics
	reg     prometheus.Registerer
	unknown revoked.Record // the one answer for every token that is not known

	// mu is held for reading wherever ristretto is used: its Close must not run beside Get or Set.
	mu     sync.RWMutex
	closed bool

	ignoreEpochs bool // set by one test, to show that it can fail
}

// An entry is a record and the epochs that were read before it was. It never changes.
type entry struct {
	digest     revoked.Digest
	generation uint64
	token      uint64
	grant      uint64
	grantNow   *atomic.Uint64 // the epoch of the grant's shard
	record     revoked.Record
}

// newCache returns a cache of at most maxBytes, bookkeeping of the entries included. The epochs are
// those that source moves.
func newCache(maxBytes int64, ep *epochs, source recordSource, reg prometheus.Registerer) (*cache, error) {
	c := &cache{epochs: ep, source: source, seed: maphash.MakeSeed(), reg: reg}
	evictions := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "revoked_cache_evictions_total", Help: "Records that made room for others.",
	})
	var err error
	c.entries, err = ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		NumCounters: max(minCounters, maxBytes/assumedEntrySize*countersPerEntry),
		MaxCost:     maxBytes,
		BufferItems: getBuffer,
		KeyToHash:   func(key uint64) (uint64, uint64) { return key, 0 },
		// Runs on the one goroutine that does all of ristretto's work: it must stay this short.
		OnEvict: func(*ristretto.Item[*entry]) { evictions.Inc() },
	})
	if err != nil {
		return nil, fmt.Errorf("cache of %d bytes: %w", maxBytes, err)
	}
	c.metrics = newCacheMetrics(evictions, func() float64 {
		return float64(c.entries.MaxCost() - c.entries.RemainingCost())
	})
	if err := c.metrics.register(reg); err != nil {
		c.entries.Close()
		return nil, err
	}
	return c, nil
}

// Lookup returns what the state says of a token at some moment after the call began. The record is
// shared: the caller must not change it or anything it points to. Tokens that are not known are
// read from the state each time: they may not push out those that are. After Close it returns
// revoked.ErrClosed.
func (c *cache) Lookup(d revoked.Digest) (*revoked.Record, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return nil, fmt.Errorf("%w: record cache", revoked.ErrClosed)
	}
	key := c.key(d)
	if e, ok := c.entries.Get(key); ok && e.digest == d {
		if c.ignoreEpochs || c.current(e) {
			c.metrics.hits.Inc()
			return &e.record, nil
		}
		c.metrics.stale.Inc()
	}
	c.metrics.misses.Inc()
	e, err := c.read(d)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return &c.unknown, nil
	}
	c.entries.Set(key, e, e.cost())
	return &e.record, nil
}

// key returns what ristretto knows d by. Ristretto would hash the digest itself, but allocates to do
// so. A seeded hash of all of it cannot be aimed at, and where two share one, the digest in the
// entry decides.
func (c *cache) key(d revoked.Digest) uint64 { return maphash.Bytes(c.seed, d[:]) }

// current reports whether nothing that e was made from has changed.
func (c *cache) current(e *entry) bool {
	if mutant.On(mutant.NoEpochCheck) {
		return true
	}
	return e.generation == c.epochs.generation.Load() &&
		e.token == c.epochs.token(e.digest).Load() &&
		e.grant == e.grantNow.Load()
}

// read makes an entry from the state, nil for a token that is not known. Each epoch is read before
// what it stands for.
func (c *cache) read(d revoked.Digest) (*entry, error) {
	for range readAttempts {
		e := &entry{digest: d}
		e.generation = c.epochs.generation.Load()
		e.token = c.epochs.token(d).Load()
		var err error
		if e.record.Token, e.record.Found, err = c.source.LookupToken(d); err != nil {
			return nil, fmt.Errorf("look up token: %w", err)
		}
		if !e.record.Found {
			return nil, nil
		}
		e.grantNow = c.epochs.grant(e.record.Token.GrantID)
		e.grant = e.grantNow.Load()
		var found bool
		if e.record.Grant, found, err = c.source.LookupGrant(e.record.Token.GrantID); err != nil {
			return nil, fmt.Errorf("look up grant: %w", err)
		}
		// A stub may outlive its grant, and a tombstone has none: dead either way.
		if found || e.record.Token.State != revoked.Live {
			return e, nil
		}
		// Both were removed between the two reads; the epochs may not have moved yet. Or the state is
		// broken: then the next attempts find the same.
	}
	return nil, fmt.Errorf("token %s: %w", d.Prefix(), errLiveWithoutGrant)
}

// errLiveWithoutGrant is no sentinel of the root package: it is a broken state, and opaque.
var errLiveWithoutGrant = errors.New("state is broken: a live token without its grant")

// cost returns about how many bytes e takes, without what ristretto adds.
func (e *entry) cost() int64 {
	t, g := &e.record.Token, &e.record.Grant
	n := int(unsafe.Sizeof(*e)) + len(t.GrantID) + len(t.Scope) + len(t.Username) + len(t.JTI) + len(t.CNF) +
		len(g.ID) + len(g.ClientID) + len(g.Subject) + len(g.Session) + len(g.Issuer) + len(g.RegisteredBy)
	for _, a := range t.Audience {
		n += int(unsafe.Sizeof(a)) + len(a)
	}
	if r := g.Revoked; r != nil {
		n += int(unsafe.Sizeof(*r)) + len(r.By) + len(r.Reason)
	}
	return int64(n)
}

// Close stops the cache, after the calls of Lookup that are under way. It may be called twice.
func (c *cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.metrics.unregister(c.reg)
	c.entries.Close()
}

// cacheMetrics count what a cache does.
type cacheMetrics struct {
	hits, misses, stale, evictions prometheus.Counter
	bytes                          prometheus.GaugeFunc
}

func newCacheMetrics(evictions prometheus.Counter, bytes func() float64) cacheMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return cacheMetrics{
		hits: counter("revoked_cache_hits_total", "Lookups answered from the record cache."),
		misses: counter("revoked_cache_misses_total",
			"Lookups that read the state, those of stale records and of unknown tokens included."),
		stale:     counter("revoked_cache_stale_total", "Records found in the cache that had changed since."),
		evictions: evictions,
		bytes: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "revoked_cache_bytes", Help: "Approximate size of the records in the cache.",
		}, bytes),
	}
}

func (m *cacheMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.hits, m.misses, m.stale, m.evictions, m.bytes}
}

// register adds the metrics to reg; nil is allowed. It adds all or none.
func (m *cacheMetrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for i, metric := range m.all() {
		if err := reg.Register(metric); err != nil {
			for _, done := range m.all()[:i] {
				reg.Unregister(done)
			}
			return fmt.Errorf("metrics of the record cache: %w", err)
		}
	}
	return nil
}

func (m *cacheMetrics) unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, metric := range m.all() {
		reg.Unregister(metric)
	}
}
