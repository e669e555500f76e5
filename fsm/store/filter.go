package store

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// A filter keeps the keys of some families in memory, to detect rows that do not exist. Most rows
// that a registration looks up do not exist. Without a filter, Pebble would seek in each memtable
// and in each sublevel to find that out.
//
// The filter is built by a scan of the store. Until the scan ends, lacks always reports false.
//
// Invariant: a complete filter has every key of its families in the store. A commit adds its keys
// before it writes them, under mu, to the complete filter and to the one that is being built. A
// filter whose scan begins after the commit gets these keys from the scan.
//
// Keys cannot be removed from a filter. Once many of its keys are deleted from the store, another
// filter replaces it.
type filter struct {
	families string
	grouped  byte // the family whose keys are hashed without their last groupSuffix bytes
	seed     maphash.Seed
	complete atomic.Pointer[keySet] // filter in use; nil before the first scan has ended

	mu         sync.Mutex // held during each commit
	building   *keySet    // filter that a scan builds; nil: no scan runs
	deleted    int        // number of deleted keys since the newest scan began
	minDeleted int        // minimum number of deleted keys before the filter is replaced
	scans      sync.WaitGroup
	stop       chan struct{} // closed by the last Release
}

const (
	scanChunk  = 16 << 10 // number of rows that a scan reads through one iterator
	minDeleted = 1 << 20
)

// covers reports whether key belongs to a family of the filter.
func (f *filter) covers(key []byte) bool {
	for i := range len(f.families) {
		if key[0] == f.families[i] {
			return true
		}
	}
	return false
}

// groupSuffix is the length in bytes of the digest at the end of a key. The keys of a group differ
// only there.
const groupSuffix = 32

// hash returns the hash of a key of the store.
func (f *filter) hash(key []byte) uint64 {
	if key[0] == f.grouped && len(key) > groupSuffix {
		key = key[:len(key)-groupSuffix]
	}
	return maphash.Bytes(f.seed, key)
}

// lacks reports true only if the store has neither a row with that key nor a row of the group with
// that key.
func (f *filter) lacks(key []byte) bool {
	s := f.complete.Load()
	return s != nil && f.covers(key) && !s.has(maphash.Bytes(f.seed, key))
}

// write adds the hashes of the keys in a batch to the filter and runs commit, which writes the
// batch. deleted is the number of covered keys that the batch deletes. If the filter should be
// replaced, renew is the expected number of keys of its replacement, and otherwise 0.
func (f *filter) write(added []uint64, deleted int, commit func() error) (renew int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.complete.Load()
	for _, to := range [...]*keySet{s, f.building} {
		if to != nil {
			to.add(added)
		}
	}
	f.deleted += deleted
	if s != nil && f.building == nil && f.deleted > max(f.minDeleted, s.keys/2) {
		renew = max(s.keys-f.deleted, 1)
	}
	return renew, commit()
}

// begin starts to build a filter with room for that many keys. It reports false if a scan already
// runs.
func (f *filter) begin(room int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.building != nil {
		return false
	}
	f.building, f.deleted = newKeySet(room), 0
	f.scans.Add(1)
	return true
}

// end finishes a scan. After an error the store keeps the filter that it has.
func (f *filter) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.complete.Store(f.building)
	}
	f.building = nil
	f.scans.Done()
}

// A scan adds the keys of the store to the filter that is being built.
type scan struct {
	s      *Store
	family int    // position in filter.families
	start  []byte // the next chunk begins there; nil: at the start of the family
}

// chunk adds the next rows. It reports false at the end of the last family. Every chunk has an
// iterator of its own, because a long-lived iterator would keep old files and memtables.
func (c *scan) chunk() (more bool, err error) {
	f := &c.s.filter
	if c.family == len(f.families) {
		return false, nil
	}
	var last []byte
	hashes := make([]uint64, 0, scanChunk)
	err = c.s.Scan([]byte{f.families[c.family]}, c.start, func(key, _ []byte) (bool, error) {
		hashes = append(hashes, f.hash(key))
		if len(hashes) == scanChunk {
			last = slices.Clone(key)
		}
		return last == nil, nil
	})
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	f.building.add(hashes)
	f.mu.Unlock()
	if c.start = append(last, 0); last == nil {
		c.family, c.start = c.family+1, nil
	}
	return true, nil
}

// run scans the remaining rows. It stops early when the store closes.
func (c *scan) run() {
	f := &c.s.filter
	for {
		select {
		case <-f.stop:
			f.end(errStopped)
			return
		default:
		}
		more, err := c.chunk()
		if err != nil {
			c.s.background.report(fmt.Errorf("build filter: %w", err))
		}
		if err != nil || !more {
			f.end(err)
			return
		}
	}
}

var errStopped = fmt.Errorf("store is closed")

// Filter makes reads of absent rows cheap. It keeps in memory a filter of the keys whose first byte
// is in families. The filter takes at least 12 bits a key; expect is the approximate number of
// keys. A scan of a large store continues in the background after the call. For keys of the family
// grouped, the filter has only the groups: the keys without the digest at their end. The caller
// must call Filter at most once, right after Open.
func (s *Store) Filter(families string, grouped byte, expect int) error {
	s.filter.families, s.filter.grouped = families+string(grouped), grouped
	s.filter.seed, s.filter.minDeleted = maphash.MakeSeed(), minDeleted
	s.filter.begin(expect)
	c := scan{s: s}
	for range len(s.filter.families) + 1 { // a small store has one chunk for each family
		if more, err := c.chunk(); err != nil || !more {
			s.filter.end(err)
			return err
		}
	}
	go c.run()
	return nil
}

// renewFilter replaces the filter by one without the keys that were deleted.
func (s *Store) renewFilter(room int) {
	if s.filter.begin(room) {
		go (&scan{s: s}).run()
	}
}

// A keySet is a set of hashes with false positives. Only add changes it, and only one goroutine may
// call add at a time; has may be called concurrently.
//
// It is a list of Bloom filters. Each is growth times as large as the one before, up to largestAdd.
// So the set can grow although it does not store its keys.
type keySet struct {
	keys   int // number of added keys, without those for which has already returned true
	layers atomic.Pointer[[]*layer]
}

// A layer is a Bloom filter in blocks of a cache line. A key sets one bit in each of the eight
// words of its block.
type layer struct {
	room   int // number of keys that may be added before the layer is full
	blocks [][8]uint64
}

const (
	blockKeys  = 42 // keys per block of 512 bits: about one false positive in 200 absent keys
	leastRoom  = 64 << 10
	growth     = 16       // a lookup of an absent key reads every layer, so there should be few
	largestAdd = 16 << 20 // maximum number of keys of a layer that the method add creates
)

func newKeySet(room int) *keySet {
	s := &keySet{}
	s.layers.Store(&[]*layer{newLayer(max(room+room/8, leastRoom))})
	return s
}

func newLayer(room int) *layer {
	return &layer{room: room, blocks: make([][8]uint64, room/blockKeys+1)}
}

// add adds hashes.
func (s *keySet) add(hashes []uint64) {
	layers := *s.layers.Load()
	last := layers[len(layers)-1]
	for _, h := range hashes {
		if s.has(h) {
			continue
		}
		if last.room == 0 {
			last = newLayer(min(growth*blockKeys*len(last.blocks), largestAdd))
			layers = append(slices.Clip(layers), last)
			s.layers.Store(&layers)
		}
		last.add(h)
		last.room--
		s.keys++
	}
}

// has reports whether h may have been added.
func (s *keySet) has(h uint64) bool {
	for _, l := range *s.layers.Load() {
		if l.has(h) {
			return true
		}
	}
	return false
}

// spread is multiplied with a hash. Six bits of the product select the bit in each word of a block.
const spread = 0x9e3779b97f4a7c15

func (l *layer) block(h uint64) *[8]uint64 {
	n, _ := bits.Mul64(h, uint64(len(l.blocks)))
	return &l.blocks[n]
}

func (l *layer) add(h uint64) {
	b, g := l.block(h), bits.ReverseBytes64(h)*spread
	for i := range b {
		atomic.OrUint64(&b[i], 1<<(g>>58))
		g <<= 6
	}
}

func (l *layer) has(h uint64) bool {
	b, g := l.block(h), bits.ReverseBytes64(h)*spread
	all := uint64(1)
	for i := range b {
		all &= atomic.LoadUint64(&b[i]) >> (g >> 58)
		g <<= 6
	}
	return all == 1
}
