package fsm

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
)

// recentRows holds the rows of tokens and grants that were written last, since most that is revoked or
// asked for was registered not long ago: a look into Pebble costs ten times as much. It is filled by
// commits alone and holds what the newest commit wrote, so it is never behind the store once that
// commit is published.
//
// There are two generations: when the young one is full it becomes the old one, and the old one goes.
// Neither holds a pointer to a row, or the garbage collector would look at every row at each of its
// rounds.
type recentRows struct {
	limit int // bytes of one generation
	seed  maphash.Seed

	mu         sync.RWMutex
	young, old rowLog
}

// A rowLog is rows one behind the other, and where each is by the hash of its key. The bytes of a row never
// change once it is there.
type rowLog struct {
	at     map[uint64]uint32 // chunk << chunkBits | offset in it
	chunks [][]byte
	bytes  int
}

const (
	chunkBits = 20
	chunkSize = 1 << chunkBits
	// rowOverhead is roughly what a row costs beside its bytes.
	rowOverhead = 32
	// longestRow is held; a longer one is left to Pebble.
	longestRow = chunkSize / 16
)

func newRecentRows(limit int64) *recentRows {
	return &recentRows{limit: int(min(limit/2, 2<<30)), seed: maphash.MakeSeed(), young: newRowLog()}
}

func newRowLog() rowLog { return rowLog{at: map[uint64]uint32{}} }

// remembered reports whether rows of a key's family are held.
func remembered(key []byte) bool { return key[0] == famToken || key[0] == famGrant }

// get returns a row that must not be changed.
func (r *recentRows) get(key []byte) ([]byte, bool) {
	if !remembered(key) {
		return nil, false
	}
	h := maphash.Bytes(r.seed, key)
	r.mu.RLock()
	defer r.mu.RUnlock()
	if v, ok := r.young.get(h, key); ok {
		return v, true
	}
	return r.old.get(h, key)
}

// commit takes the writes of a commit, in the order in which they count. A row that is gone is
// forgotten, and a token that is live no more as well: nobody asks for a stub twice.
func (r *recentRows) commit(writes []write) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range writes {
		w := &writes[i]
		if !remembered(w.key) {
			continue
		}
		// What stood there goes in any case: of two keys with one hash the later is remembered, and the
		// other must not come back from the old generation as it once was.
		h := maphash.Bytes(r.seed, w.key)
		delete(r.old.at, h)
		if w.gone || (w.key[0] == famToken && !isLiveRow(w.val)) || !r.young.add(h, w.key, w.val) {
			delete(r.young.at, h)
		}
	}
	if r.young.bytes > r.limit {
		r.old, r.young = r.young, newRowLog()
	}
}

// add reports false for a row that is too long to hold.
func (l *rowLog) add(h uint64, key, val []byte) bool {
	n := len(key) + len(val) + 2*binary.MaxVarintLen32
	if n > longestRow {
		return false
	}
	if k := len(l.chunks); k == 0 || len(l.chunks[k-1])+n > cap(l.chunks[k-1]) {
		// A small log, as tests and small nodes have it, begins with small chunks.
		l.chunks = append(l.chunks, make([]byte, 0, min(chunkSize, max(longestRow, l.bytes))))
	}
	last := len(l.chunks) - 1
	b := l.chunks[last]
	l.at[h] = uint32(last)<<chunkBits | uint32(len(b))
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(val)))
	l.chunks[last] = append(append(b, key...), val...)
	l.bytes += len(key) + len(val) + rowOverhead
	return true
}

func (l *rowLog) get(h uint64, key []byte) ([]byte, bool) {
	at, ok := l.at[h]
	if !ok {
		return nil, false
	}
	b := l.chunks[at>>chunkBits][at&(chunkSize-1):]
	klen, n := binary.Uvarint(b)
	b = b[n:]
	vlen, n := binary.Uvarint(b)
	b = b[n:]
	if !bytes.Equal(b[:klen], key) {
		return nil, false
	}
	return b[klen : klen+vlen : klen+vlen], true
}
