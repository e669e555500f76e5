package store

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// A filter records in memory which rows of some families the store does not contain. Most rows that
// a registration looks up do not exist. To find that out, Pebble seeks in each memtable and in each
// sublevel.
//
// The filter is built by a scan of the store. Until the scan ends, every row may exist.
//
// Invariant: a complete filter holds every key of its families in the store. A commit adds its keys
// before it writes them, under mu, to the complete filter and to the one that is being built. So a
// scan that begins later finds those that it did not add.
//
// A filter forgets nothing. Once many of its keys are deleted, another one replaces it.
type filter struct {
	families string
	grouped  byte // the family whose keys are hashed without their last groupSuffix bytes
	seed     maphash.Seed
	complete atomic.Pointer[keySet] // nil before the first scan has ended

	mu       sync.Mutex // held during each commit
	building *keySet    // nil unless a scan runs
	deleted  int        // deletions since the newest scan began
	patience int        // deletions before the filter is replaced, if it has fewer keys than twice that
	scans    sync.WaitGroup
	stop     chan struct{} // closed by the last Release
}

const (
	scanChunk = 16 << 10 // rows that a scan reads through one iterator
	patience  = 1 << 20
)

// covers reports whether the filter holds keys like key.
func (f *filter) covers(key []byte) bool {
	for i := range len(f.families) {
		if key[0] == f.families[i] {
			return true
		}
	}
	return false
}

// groupSuffix is the length of the part in which the keys of a group differ: a digest.
const groupSuffix = 32

// hash returns the hash of a key of the store.
func (f *filter) hash(key []byte) uint64 {
	if key[0] == f.grouped && len(key) > groupSuffix {
		key = key[:len(key)-groupSuffix]
	}
	return maphash.Bytes(f.seed, key)
}

// lacks reports whether the store certainly has no row with that key, and no row of the group with
// that key.
func (f *filter) lacks(key []byte) bool {
	s := f.complete.Load()
	return s != nil && f.covers(key) && !s.has(maphash.Bytes(f.seed, key))
}

// write runs commit, which writes a batch with keys of these hashes, and with that many deletions
// of keys that the filter covers. If the filter should be replaced, renew is the room for the next.
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
	if s != nil && f.building == nil && f.deleted > max(f.patience, s.keys/2) {
		renew = max(s.keys-f.deleted, 1)
	}
	return renew, commit()
}

// begin starts a filter with room for that many keys. It reports false if a scan already runs.
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
// iterator of its own, which does not keep old files and memtables for long.
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

// run scans the rest.
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

// Filter makes reads of absent rows cheap. It keeps a filter in memory of the keys whose first byte
// is in families, 12 bits or more for each. expect is the approximate number of such keys. A scan
// of a large store continues in the background after the call. For keys of the family grouped, the
// filter holds only the groups: the keys without the digest at their end. The caller must call
// Filter at most once, right after Open.
func (s *Store) Filter(families string, grouped byte, expect int) error {
	s.filter.families, s.filter.grouped = families+string(grouped), grouped
	s.filter.seed, s.filter.patience = maphash.MakeSeed(), patience
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

// A keySet is a set of hashes that may seem to hold a hash which was not added. Only add changes
// it, and only one goroutine may call add at a time; has may be called concurrently.
//
// It is a list of Bloom filters. Each is twice as large as the one before, so that the set can grow
// without its keys.
type keySet struct {
	keys   int // added ones, without those that the set seemed to hold
	layers atomic.Pointer[[]*layer]
}

// A layer is a Bloom filter in blocks of a cache line. A key sets one bit in each of the eight
// words of its block.
type layer struct {
	room   int // keys until the filter is full
	blocks [][8]uint64
}

const (
	blockKeys  = 42 // keys to a block of 512 bits: one absent key of 200 seems to be present
	leastRoom  = 64 << 10
	largestAdd = 16 << 20 // keys of the largest layer that growth adds
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
			last = newLayer(min(2*blockKeys*len(last.blocks), largestAdd))
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

// spread gives the bits of h for the words of a block: six bits for each.
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
