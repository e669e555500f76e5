package fsm

import "sync"

// recentRows holds the rows of tokens and grants that were written last, since most that is revoked or
// asked for was registered not long ago: a look into Pebble costs ten times as much. It is filled by
// commits alone and holds what the newest commit wrote, so it is never behind the store once that
// commit is published.
//
// There are two generations: when the young one is full it becomes the old one, and the old one goes.
type recentRows struct {
	limit int // bytes of one generation

	mu         sync.RWMutex
	young, old map[string][]byte
	bytes      int // of young
}

// rowOverhead is roughly what a row in the map costs beside its bytes.
const rowOverhead = 96

func newRecentRows(limit int64) *recentRows {
	return &recentRows{limit: int(limit / 2), young: map[string][]byte{}}
}

// remembered reports whether rows of a key's family are held.
func remembered(key []byte) bool { return key[0] == famToken || key[0] == famGrant }

// get returns a row that must not be changed.
func (r *recentRows) get(key []byte) ([]byte, bool) {
	if !remembered(key) {
		return nil, false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if v, ok := r.young[string(key)]; ok {
		return v, true
	}
	v, ok := r.old[string(key)]
	return v, ok
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
		if w.gone || (w.key[0] == famToken && !isLiveRow(w.val)) {
			delete(r.young, string(w.key))
			delete(r.old, string(w.key))
			continue
		}
		r.young[string(w.key)] = w.val
		r.bytes += len(w.key) + len(w.val) + rowOverhead
	}
	if r.bytes > r.limit {
		r.old, r.young, r.bytes = r.young, map[string][]byte{}, 0
	}
}
