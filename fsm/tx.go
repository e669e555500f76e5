package fsm

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"revoked"
)

// A tx gathers what log entries change until one commit writes all of it, the applied index included.
// Operations read through it, so they see what earlier ones of the same batch did.
//
// Errors of the store stick in err: what is computed afterwards is thrown away, and the process ends.
//
// A dry tx writes nothing: it tells whether an operation would.
type tx struct {
	f     *FSM
	s     *store
	dry   bool
	it    *pebble.Iterator
	size  int // of the writes, in bytes
	err   error
	dirty bool
	scratch

	applied // as of the entry in hand
	mem     *memory
	seq     uint32 // events and cut-offs of the entry so far

	// Staged changes of memory.
	clients  map[string]*revoked.Client // nil: deleted
	deleted  map[string]*deletedRow     // nil: forgotten
	cutoffs  map[string]*cutoffRow      // nil: dropped
	order    []string                   // of cutoffs: publication follows it
	tombs    map[string]int             // deltas
	settings *settingsRow
	cluster  string
	reaps    int
	queueLow revoked.Time

	points        []hashPoint
	tokensChanged []revoked.Digest
	grantsChanged []string
}

// newTx begins a tx. Of those that are not dry there is one at a time.
func (f *FSM) newTx(s *store, mem *memory, dry bool) *tx {
	t := &tx{f: f, s: s, mem: mem, dry: dry, applied: mem.applied, queueLow: mem.queueFloor}
	if !dry {
		t.scratch = f.scratch.again()
	}
	return t
}

// A scratch is the memory that a tx works in. One tx after the other uses it: nothing of it is held
// after the commit.
type scratch struct {
	writes []write
	cells  map[string][]byte // rows as the tx sees them
	arena  []byte            // holds keys and rows
	keyBuf []byte
	rowBuf []byte
}

// Bounds of what is used again.
const (
	arenaKept  = 1 << 20
	writesKept = 16 << 10
)

// again returns the scratch for another tx.
func (s *scratch) again() scratch {
	if s.cells == nil || len(s.writes) > writesKept || cap(s.arena) > arenaKept {
		return scratch{cells: map[string][]byte{}}
	}
	clear(s.cells)
	clear(s.writes)
	return scratch{writes: s.writes[:0], cells: s.cells, arena: s.arena[:0], keyBuf: s.keyBuf[:0], rowBuf: s.rowBuf[:0]}
}

func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// get returns a row as this tx sees it, nil if there is none. The caller must not change it.
func (t *tx) get(key []byte) []byte {
	if v, ok := t.cells[string(key)]; ok {
		return v
	}
	if v, ok := t.s.recent.get(key); ok {
		return v
	}
	if t.dry {
		v, err := t.s.get(key)
		if err != nil {
			t.fail(err)
		}
		return v
	}
	return t.seek(key)
}

// seek reads a committed row through one iterator that serves the whole tx. Most rows that Apply asks
// for are not there, and DB.Get does not ask the filters of the last level; this does.
func (t *tx) seek(key []byte) []byte {
	if t.it == nil {
		it, err := t.s.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			t.fail(fmt.Errorf("read row: %w", err))
			return nil
		}
		t.it = it
	}
	if !t.it.SeekPrefixGE(key) {
		if err := t.it.Error(); err != nil {
			t.fail(fmt.Errorf("read row: %w", err))
		}
		return nil
	}
	v, err := t.it.ValueAndErr()
	if err != nil {
		t.fail(fmt.Errorf("read row: %w", err))
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// prefetch reads, in key order, the rows that the registrations of a batch will ask for.
func (t *tx) prefetch(ops []*Op) {
	var keys [][]byte
	for _, op := range ops {
		r := op.GetRegister()
		if r == nil {
			continue
		}
		t.keyBuf = grantKey(t.keyBuf[:0], r.GrantId)
		keys = append(keys, t.keep(t.keyBuf))
		for _, s := range r.Tokens {
			if len(s.GetDigest()) == len(revoked.Digest{}) {
				t.keyBuf = tokenKey(t.keyBuf[:0], revoked.Digest(s.Digest))
				keys = append(keys, t.keep(t.keyBuf))
			}
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		t.cells[string(key)] = t.get(key)
	}
}

// close lets go of what a tx holds; commit does it too.
func (t *tx) close() {
	if t.it != nil {
		if err := t.it.Close(); err != nil {
			t.fail(fmt.Errorf("read rows: %w", err))
		}
		t.it = nil
	}
}

// put replaces a row of the state; old is what get returned. It keeps val.
func (t *tx) put(key, old, val []byte) {
	t.dirty = true
	if old != nil {
		t.State.remove(key, old)
	}
	t.State.add(key, val)
	if t.dry {
		return
	}
	t.cells[string(key)] = val
	t.set(key, val)
}

// del removes a row of the state.
func (t *tx) del(key, old []byte) {
	if old == nil {
		return
	}
	t.dirty = true
	t.State.remove(key, old)
	if t.dry {
		return
	}
	t.cells[string(key)] = nil
	t.unset(key)
}

// set and unset write without hashing: rows that follow from others.
func (t *tx) set(key, val []byte) {
	if !t.dry {
		t.size += len(key) + len(val)
		t.writes = append(t.writes, write{key: t.keep(key), val: val, n: len(t.writes)})
	}
}

func (t *tx) unset(key []byte) {
	if !t.dry {
		t.writes = append(t.writes, write{key: t.keep(key), gone: true, n: len(t.writes)})
	}
}

// A write waits for the commit.
type write struct {
	key, val []byte
	n        int // in the order of the writes
	gone     bool
}

// keep copies a key or a row into memory that lives as long as the tx.
func (t *tx) keep(b []byte) []byte {
	if cap(t.arena)-len(t.arena) < len(b) {
		t.arena = make([]byte, 0, max(1<<10, min(2*cap(t.arena), arenaKept), len(b)))
	}
	n := len(t.arena)
	t.arena = append(t.arena, b...)
	return t.arena[n:len(t.arena):len(t.arena)]
}

// batch turns the writes into one Pebble batch, in key order: the memtable takes neighbours faster than
// strangers. Of two writes to one key the later counts.
func (t *tx) batch() *pebble.Batch {
	slices.SortFunc(t.writes, func(a, b write) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return a.n - b.n
	})
	b := t.s.db.NewBatch()
	for i := range t.writes {
		w := &t.writes[i]
		if i+1 < len(t.writes) && bytes.Equal(w.key, t.writes[i+1].key) {
			continue
		}
		var err error
		if w.gone {
			err = b.Delete(w.key, nil)
		} else {
			err = b.Set(w.key, w.val, nil)
		}
		if err != nil {
			t.fail(fmt.Errorf("write row: %w", err))
		}
	}
	return b
}

// requeue moves row's entry in the queue from old to due; 0 is none.
func (t *tx) requeue(row []byte, old, due revoked.Time) {
	if old == due {
		return
	}
	if old != 0 {
		t.keyBuf = queueKey(t.keyBuf[:0], old, row)
		t.unset(t.keyBuf)
	}
	if due != 0 {
		t.keyBuf = queueKey(t.keyBuf[:0], due, row)
		t.set(t.keyBuf, nil)
		t.queueLow = min(t.queueLow, due)
	}
}

func (t *tx) token(d revoked.Digest) (tok revoked.Token, row []byte) {
	t.keyBuf = tokenKey(t.keyBuf[:0], d)
	row = t.get(t.keyBuf)
	if row == nil {
		return tok, nil
	}
	tok, err := parseToken(d, row)
	if err != nil {
		t.fail(err)
	}
	return tok, row
}

func (t *tx) putToken(old []byte, tok *revoked.Token) {
	t.keyBuf = tokenKey(t.keyBuf[:0], tok.Digest)
	t.rowBuf = appendToken(t.rowBuf[:0], tok)
	t.put(t.keyBuf, old, t.keep(t.rowBuf))
	t.tokensChanged = append(t.tokensChanged, tok.Digest)
}

func (t *tx) grant(id string) (g grantRow, row []byte) {
	t.keyBuf = grantKey(t.keyBuf[:0], id)
	row = t.get(t.keyBuf)
	if row == nil {
		return g, nil
	}
	g, err := parseGrant(id, row)
	if err != nil {
		t.fail(err)
	}
	return g, row
}

// putGrant writes g with its entry in the queue moved to due.
func (t *tx) putGrant(old []byte, g *grantRow, due revoked.Time) {
	key := grantKey(nil, g.ID)
	t.requeue(key, g.Due, due)
	g.Due = due
	t.rowBuf = appendGrant(t.rowBuf[:0], g)
	t.put(key, old, t.keep(t.rowBuf))
	t.grantsChanged = append(t.grantsChanged, g.ID)
}

// commit writes everything and publishes it: rows, then memory, then Changes, then the applied index.
func (t *tx) commit() {
	t.close()
	defer func() { t.f.scratch = t.scratch }()
	if t.err == nil {
		t.set([]byte{famApplied}, t.applied.append(nil))
	}
	if t.err == nil {
		b := t.batch()
		if err := b.Commit(pebble.NoSync); err != nil {
			t.fail(fmt.Errorf("commit rows: %w", err))
		}
		_ = b.Close() // frees memory only
		t.s.recent.commit(t.writes)
	}
	if t.err != nil {
		t.f.failed.report(t.err)
		return
	}
	t.f.mu.Lock()
	t.publish()
	t.f.mu.Unlock()
	if t.clients != nil {
		// Who may call is decided before a crashed node has replayed its log, too: a client that was disabled
		// must not come back for that while, nor one be called unknown. Clients change rarely.
		if err := t.f.flush(t.s); err != nil {
			return // reported
		}
	}
	if c := t.f.cfg.Changes; c != nil {
		for i := range t.tokensChanged {
			c.TokenChanged(t.tokensChanged[i])
		}
		for _, id := range t.grantsChanged {
			c.GrantChanged(id)
		}
	}
	t.f.progress.advance(t.Index)
}
