// Package cache keeps the token records that a node reads most. It never returns a record that is
// older than a change published before the lookup: every entry has epochs that the state
// machine advances. See DESIGN.md of package node.
package cache

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
)

// Source is the part of *fsm.FSM that the cache reads.
type Source interface {
	// LookupToken returns the token, and whether the state has a record of the token.
	LookupToken(d revoked.Digest) (revoked.Token, bool, error)
	// LookupGrant returns the grant, and whether it exists.
	LookupGrant(id string) (revoked.Grant, bool, error)
	// IsDenied reports whether the state revokes a JWT that is not registered. If own is true, the
	// JWT's client id denotes a client of this cluster.
	IsDenied(j *revoked.JWT, own bool) (bool, error)
}

const (
	assumedEntrySize = 512 // bytes; used only to compute the number of frequency counters
	countersPerEntry = 10
	minCounters      = 1 << 10
	getBuffer        = 64
	readAttempts     = 3 // maximum number of attempts if a token's grant is removed during the read
)

// A Cache keeps token records read from the state machine. It holds records, never verdicts. All
// methods may be called concurrently; none blocks on a lock for longer than a store read.
//
// Ristretto guarantees no order: it may drop a Set, apply it late, or bring an entry back after a
// Del. So the cache relies on epochs alone. Invariant: an entry is returned only while the three
// epochs read before its rows are unchanged. A changed record is not deleted; the next read
// replaces it.
type Cache struct {
	entries *ristretto.Cache[uint64, *entry]
	epochs  *Epochs
	source  Source
	seed    maphash.Seed
	metrics metrics
	unknown revoked.Record // shared result for all unknown tokens

	mu     sync.RWMutex // read-locked during ristretto's Get and Set, which must not run concurrently with its Close
	closed bool

	ignoreEpochs bool // set only by a test, to prove that the test detects a cache without epochs
}

// An entry is a record and the epochs that were read before the record. Only checked is ever
// modified.
type entry struct {
	digest revoked.Digest
	// checked is a value that epochs.all had before the entry's epochs were last found unchanged.
	// While epochs.all has this value, a lookup skips the other epochs, which are far apart in memory.
	checked    atomic.Uint64
	generation uint64
	token      uint64
	grant      uint64
	grantNow   *atomic.Uint64 // epoch of the grant's shard
	record     revoked.Record
	jwt        *JWT // nil: the token is registered
}

// New returns a cache of at most maxBytes, including its bookkeeping. The source must advance ep on
// each change.
func New(maxBytes int64, ep *Epochs, source Source, reg prometheus.Registerer) (*Cache, error) {
	c := &Cache{epochs: ep, source: source, seed: maphash.MakeSeed()}
	c.metrics = newMetrics(reg, c.bytes)
	var err error
	c.entries, err = ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		NumCounters: max(minCounters, maxBytes/assumedEntrySize*countersPerEntry),
		MaxCost:     maxBytes,
		BufferItems: getBuffer,
		KeyToHash:   func(key uint64) (uint64, uint64) { return key, 0 },
		// OnEvict runs on ristretto's only worker goroutine, so it must not do more.
		OnEvict: func(*ristretto.Item[*entry]) { c.metrics.evictions.Inc() },
	})
	if err != nil {
		return nil, fmt.Errorf("cache of %d bytes: %w", maxBytes, err)
	}
	return c, nil
}

// Lookup returns the record of a token as the state had it at some moment after the call began. The
// caller must not change the record or anything it points to. Unknown tokens are read from the
// state every time, so that they never evict known ones. After Close it returns revoked.ErrClosed.
func (c *Cache) Lookup(d revoked.Digest) (*revoked.Record, error) {
	r, j, err := c.Find(d)
	if j != nil {
		return &c.unknown, nil
	}
	return r, err
}

// Find is like Lookup, but also finds a JWT that Add has stored. It returns the record made from
// its claims, and the JWT.
func (c *Cache) Find(d revoked.Digest) (*revoked.Record, *JWT, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return nil, nil, fmt.Errorf("%w: record cache", revoked.ErrClosed)
	}
	key := c.key(d)
	if e, ok := c.entries.Get(key); ok && e.digest == d {
		if c.ignoreEpochs || c.current(e) {
			c.metrics.hits.Inc()
			return &e.record, e.jwt, nil
		}
		c.metrics.stale.Inc()
	}
	c.metrics.misses.Inc()
	e, err := c.read(d)
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return &c.unknown, nil, nil
	}
	c.entries.Set(key, e, e.cost())
	return &e.record, nil, nil
}

// key hashes d for ristretto, whose own hash would allocate. The seed keeps callers from choosing
// collisions; the digest in the entry resolves accidental ones.
func (c *Cache) key(d revoked.Digest) uint64 { return maphash.Bytes(c.seed, d[:]) }

// current reports whether the rows that e was built from are unchanged.
func (c *Cache) current(e *entry) bool {
	all := c.epochs.all.Load() // read before the other epochs
	if e.checked.Load() == all {
		return true
	}
	if !c.unchanged(e) {
		return false
	}
	e.checked.Store(all)
	return true
}

// unchanged reports whether every epoch of e still has the value that it had before e's rows were
// read.
func (c *Cache) unchanged(e *entry) bool {
	if e.generation != c.epochs.generation.Load() || e.token != c.epochs.token(e.digest).Load() {
		return false
	}
	if e.jwt != nil {
		return e.jwt.current()
	}
	return e.grant == e.grantNow.Load()
}

// read builds an entry from the state, or returns nil for an unknown token. It reads each epoch
// before the row that the epoch covers.
func (c *Cache) read(d revoked.Digest) (*entry, error) {
	for range readAttempts {
		e := &entry{digest: d}
		e.checked.Store(c.epochs.all.Load())
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
		// A stub may outlive its grant, and a tombstone has none. Neither is live.
		if found || e.record.Token.State != revoked.Live {
			return e, nil
		}
		// Either both rows were removed between the two reads, or the state is corrupt. In the second
		// case the other attempts fail as well.
	}
	return nil, fmt.Errorf("token %s: %w", d.Prefix(), errLiveWithoutGrant)
}

var errLiveWithoutGrant = errors.New("live token without its grant: state is corrupt")

// cost returns the approximate size of e in bytes, without ristretto's overhead.
func (e *entry) cost() int64 {
	t, g := &e.record.Token, &e.record.Grant
	n := int(unsafe.Sizeof(*e)) + len(t.GrantID) + len(t.Scope) + len(t.Username) + len(t.JTI) + len(t.CNF) +
		len(g.ID) + len(g.ClientID) + len(g.Subject) + len(g.Session) + len(g.Issuer) + len(g.RegisteredBy)
	for _, a := range t.Audience {
		n += int(unsafe.Sizeof(a)) + len(a)
	}
	if j := e.jwt; j != nil { // its strings are those of the record
		n += int(unsafe.Sizeof(*j)) + len(j.Thumbprint) + len(j.Digests)*len(revoked.Digest{}) +
			len(j.marks)*int(unsafe.Sizeof(mark{})) + len(j.Earlier)*int(unsafe.Sizeof(revoked.Membership{})) +
			len(e.record.Earlier)*int(unsafe.Sizeof(revoked.Grant{}))
	}
	if r := g.Revoked; r != nil {
		n += int(unsafe.Sizeof(*r)) + len(r.By) + len(r.Reason)
	}
	return int64(n)
}

// bytes returns the approximate size of the cached records.
func (c *Cache) bytes() float64 { return float64(c.entries.MaxCost() - c.entries.RemainingCost()) }

// Close waits for running lookups and stops the cache. It may be called twice.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.entries.Close()
	}
}
