package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"revoked"
)

// A stateSum is the order-free hash of the state: the sum, lane by lane, of SHA-256 over every row.
// Adding and removing a row commute, so it can be kept while rows change and compared with one that is
// computed from nothing.
type stateSum [4]uint64

func (s *stateSum) add(key, val []byte)    { s.mix(key, val, false) }
func (s *stateSum) remove(key, val []byte) { s.mix(key, val, true) }

func (s *stateSum) mix(key, val []byte, negate bool) {
	var stack [512]byte
	b := binary.AppendUvarint(stack[:0], uint64(len(key)))
	b = append(append(b, key...), val...)
	h := sha256.Sum256(b)
	for i := range s {
		v := binary.LittleEndian.Uint64(h[8*i:])
		if negate {
			v = -v
		}
		s[i] += v
	}
}

func (s stateSum) bytes() (b [32]byte) {
	for i, v := range s {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return b
}

func stateSumOf(b [32]byte) (s stateSum) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

// nextLogHash rolls the hash of the log over one more command.
func nextLogHash(prev [32]byte, index, term uint64, command []byte) (next [32]byte) {
	h := sha256.New()
	var head [48]byte
	copy(head[:], prev[:])
	binary.BigEndian.PutUint64(head[32:], index)
	binary.BigEndian.PutUint64(head[40:], term)
	h.Write(head[:])
	h.Write(command)
	h.Sum(next[:0])
	return next
}

// applied is the bookkeeping row: it is written in the same Pebble batch as what it tells of.
type applied struct {
	Index, Term uint64
	ConfigIndex uint64 // of the last configuration entry seen
	Stamp       revoked.Time
	LogHash     [32]byte
	State       stateSum
	Tokens      uint64 // live
	Grants      uint64 // not revoked
	Tombstones  uint64 // rows
	Events      uint64 // rows
	EventsFloor uint64 // the highest index dropped from the feed
}

func (a *applied) append(b []byte) []byte {
	b = append(b, 1)
	for _, v := range [...]uint64{a.Index, a.Term, a.ConfigIndex} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(appendTime(b, a.Stamp), a.LogHash[:]...)
	sum := a.State.bytes()
	b = append(b, sum[:]...)
	for _, v := range [...]uint64{a.Tokens, a.Grants, a.Tombstones, a.Events, a.EventsFloor} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func parseApplied(row []byte) (applied, error) {
	r := rowReader{b: row}
	if r.byte() != 1 {
		return applied{}, fmt.Errorf("applied index: %w", errRow)
	}
	a := applied{Index: r.uvarint(), Term: r.uvarint(), ConfigIndex: r.uvarint(), Stamp: r.time()}
	a.LogHash = r.digest()
	a.State = stateSumOf(r.digest())
	for _, v := range [...]*uint64{&a.Tokens, &a.Grants, &a.Tombstones, &a.Events, &a.EventsFloor} {
		*v = r.uvarint()
	}
	return a, wrapRow(r.end(), "applied index", "")
}

// hashHistory is how many past indexes LogHashAt knows.
const hashHistory = 4096

type hashPoint struct {
	index      uint64
	log, state [32]byte
}

// A hashRing holds the hashes at the last indexes that changed them. Guarded by FSM.mu.
type hashRing struct {
	points [hashHistory]hashPoint
	next   int
}

func (r *hashRing) push(p hashPoint) {
	r.points[r.next%hashHistory] = p
	r.next++
}

func (r *hashRing) at(index uint64) (hashPoint, bool) {
	lo, hi := max(0, r.next-hashHistory), r.next
	for lo < hi { // indexes rise from lo to hi
		mid := (lo + hi) / 2
		if r.points[mid%hashHistory].index < index {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < r.next && r.points[lo%hashHistory].index == index {
		return r.points[lo%hashHistory], true
	}
	return hashPoint{}, false
}

func (r *hashRing) reset() { r.next = 0 }

// Hashes returns the newest applied index and the two hashes there. log rolls over (index, term,
// command) of every command; state is order-free over the rows of the state. At one index both are the
// same on every node.
func (f *FSM) Hashes() (index uint64, log, state [32]byte) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := &f.mem.applied
	return a.Index, a.LogHash, a.State.bytes()
}

// LogHashAt returns the hashes at index, if it is one of the last few thousand that were applied since
// the start of the process or the last restore.
func (f *FSM) LogHashAt(index uint64) (log, state [32]byte, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, ok := f.ring.at(index)
	return p.log, p.state, ok
}
