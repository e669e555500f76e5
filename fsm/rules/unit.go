package rules

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// A unit is a unit of work. It collects the writes of log entries until commit applies them and the
// applied index in one Pebble batch. Reads see earlier writes of the unit. It is not safe for
// concurrent use.
//
// The first error of the store is kept in err. The caller discards everything computed afterwards,
// and the process exits.
//
// A dry unit discards its writes and only sets dirty.
type unit struct {
	rows.Applied // as of the current entry

	store  *store.Store
	seeker *store.Seeker
	dry    bool
	dirty  bool // a row of the state was written; an audited batch resets it before each operation
	err    error
	size   int // size of the writes in bytes
	Scratch
}

// A Scratch is the memory of a unit. The next unit reuses it: nothing refers to it after the
// commit.
type Scratch struct {
	writes []write
	order  []position
	cells  map[string][]byte // rows that the unit wrote or loaded; nil: deleted or absent
	arena  []byte            // holds keys and rows
	keyBuf []byte
	rowBuf []byte
}

// A write is a pending write of one key.
type write struct {
	key, val []byte
	deleted  bool
}

// A position refers to a write. The start of its key decides most comparisons without a read of the
// key.
type position struct {
	start uint64
	n     int // index among the writes
}

// Limits of reused memory.
const (
	maxReusedArena  = 1 << 20
	maxReusedWrites = 16 << 10
)

// Reuse returns the Scratch for the next unit.
func (s *Scratch) Reuse() Scratch {
	if s.cells == nil || len(s.writes) > maxReusedWrites || cap(s.arena) > maxReusedArena {
		return Scratch{cells: map[string][]byte{}}
	}
	clear(s.cells)
	clear(s.writes)
	return Scratch{
		writes: s.writes[:0], order: s.order[:0], cells: s.cells, arena: s.arena[:0],
		keyBuf: s.keyBuf[:0], rowBuf: s.rowBuf[:0],
	}
}

// keep copies b into memory that stays valid until the commit of the unit.
func (s *Scratch) keep(b []byte) []byte {
	if cap(s.arena)-len(s.arena) < len(b) {
		s.arena = make([]byte, 0, max(1<<10, min(2*cap(s.arena), maxReusedArena), len(b)))
	}
	n := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[n:len(s.arena):len(s.arena)]
}

// fail keeps the first error. The state of the unit is undefined afterwards. The unit is then not
// committed, and the process exits. So the state on disk stays that of the last commit.
func (u *unit) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

// get returns a row as the earlier writes of the unit left it, or nil if the row does not exist.
// The caller must not change the row. get looks in four places, from the fastest to the slowest:
// the unit, the filter of absent rows, the rows of the newest commits, Pebble.
func (u *unit) get(key []byte) []byte {
	if v, ok := u.cells[string(key)]; ok {
		return v
	}
	if u.store.Lacks(key) {
		return nil
	}
	if v, ok := u.store.Recent.Get(key); ok {
		return v
	}
	read := u.seeker.Get
	if u.dry { // an iterator costs more than the few reads of a dry run
		read = u.store.Get
	}
	v, err := read(key)
	if err != nil {
		u.fail(err)
	}
	return v
}

// load reads the rows with these keys, in key order, before they are needed. It sorts and shortens
// the slice.
func (u *unit) load(keys [][]byte) {
	keys = slices.DeleteFunc(keys, u.store.Lacks)
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		u.cells[string(key)] = u.get(key)
	}
}

// put writes val under key and updates the state hash. old must be the row that get returned. put
// retains val.
func (u *unit) put(key, old, val []byte) {
	u.dirty = true
	if u.dry {
		return
	}
	if old != nil {
		u.State.Remove(key, old)
	}
	u.State.Add(key, val)
	u.cells[string(key)] = val
	u.set(key, val)
}

// del deletes a row and updates the state hash. old must be the row that get returned. If old is
// nil, del does nothing.
func (u *unit) del(key, old []byte) {
	if old == nil {
		return
	}
	u.dirty = true
	if u.dry {
		return
	}
	u.State.Remove(key, old)
	u.cells[string(key)] = nil
	u.unset(key)
}

// set writes a derived row, which is not part of the state hash. It retains val.
func (u *unit) set(key, val []byte) {
	if !u.dry {
		u.size += len(key) + len(val)
		u.writes = append(u.writes, write{key: u.keep(key), val: val})
	}
}

// unset deletes a derived row.
func (u *unit) unset(key []byte) {
	if !u.dry {
		u.writes = append(u.writes, write{key: u.keep(key), deleted: true})
	}
}

// close releases the iterator of reads. A later read opens another.
func (u *unit) close() {
	if err := u.seeker.Close(); err != nil {
		u.fail(err)
	}
}

// commit applies the writes and the applied index in one batch. The rows are visible when it
// returns, and durable after a flush.
func (u *unit) commit() error {
	u.close()
	u.set([]byte{rows.FamilyApplied}, rows.Append(nil, &u.Applied))
	if u.err == nil {
		u.err = u.writeBatch()
	}
	return u.err
}

// sort returns the writes in key order, and those of one key in the order of their calls.
func (u *unit) sort() []position {
	for i := range u.writes {
		var start [8]byte
		copy(start[:], u.writes[i].key)
		u.order = append(u.order, position{binary.BigEndian.Uint64(start[:]), i})
	}
	slices.SortFunc(u.order, func(a, b position) int {
		if a.start != b.start {
			return cmp.Compare(a.start, b.start)
		}
		if c := bytes.Compare(u.writes[a.n].key, u.writes[b.n].key); c != 0 {
			return c
		}
		return a.n - b.n
	})
	return u.order
}

// writeBatch writes in key order, which is faster in Pebble's memtable. The last write of a key
// wins.
func (u *unit) writeBatch() error {
	b := u.store.NewBatch()
	order := u.sort()
	for i, p := range order {
		w := &u.writes[p.n]
		if i+1 < len(order) && bytes.Equal(w.key, u.writes[order[i+1].n].key) {
			continue
		}
		var err error
		if w.deleted {
			err = b.Delete(w.key)
		} else {
			err = b.Set(w.key, w.val)
		}
		if err != nil {
			return err
		}
	}
	if err := b.Commit(); err != nil {
		return err
	}
	u.keepRecent()
	return nil
}

// keepRecent keeps the written tokens and grants in memory, except stubs, which are rarely read
// again.
func (u *unit) keepRecent() {
	writes := slices.DeleteFunc(u.writes, func(w write) bool {
		return w.key[0] != rows.FamilyToken && w.key[0] != rows.FamilyGrant
	})
	u.store.Recent.Update(len(writes), func(i int) (key, val []byte) {
		w := &writes[i]
		if w.deleted || w.key[0] == rows.FamilyToken && !rows.IsLiveToken(w.val) {
			return w.key, nil
		}
		return w.key, w.val
	})
}
