package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// A View reads rows. All methods may be called concurrently.
type View struct{ r pebble.Reader }

// Get returns a copy of a row, or nil if the row does not exist.
func (v View) Get(key []byte) ([]byte, error) {
	val, closer, err := v.r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read row: %w", err)
	}
	return clone(val), closer.Close()
}

// clone returns a copy of b that is not nil.
func clone(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// Scan calls fn in key order for every row whose key begins with prefix and is at or above start
// (nil: all). It stops when fn returns false or an error. Key and val are valid only during the
// call.
func (v View) Scan(prefix, start []byte, fn func(key, val []byte) (bool, error)) (err error) {
	it, err := v.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return fmt.Errorf("scan rows: %w", err)
	}
	defer func() {
		if e := it.Close(); e != nil && err == nil {
			err = fmt.Errorf("scan rows: %w", e)
		}
	}()
	for ok := it.SeekGE(start); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan rows: %w", err)
		}
		more, err := fn(it.Key(), val)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// prefixEnd returns the first key after all keys that begin with prefix, or nil if no key follows.
func prefixEnd(prefix []byte) []byte {
	end := clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// A Snapshot reads the rows as of its creation. It blocks neither commits nor flushes, but the
// files that it needs stay on disk until Close.
type Snapshot struct {
	View
	s *pebble.Snapshot
}

// Snapshot returns a snapshot. The caller must close it before it releases the store.
func (s *Store) Snapshot() *Snapshot {
	snap := s.db.NewSnapshot()
	return &Snapshot{View{snap}, snap}
}

// Close closes the snapshot.
func (s *Snapshot) Close() error {
	if err := s.s.Close(); err != nil {
		return fmt.Errorf("close snapshot of rows: %w", err)
	}
	return nil
}

// A Seeker reads single rows through one iterator. For rows that do not exist, it is faster than
// View.Get, which does not consult the Bloom filters of the last level. A Seeker reads the rows
// committed before its first Get, and is not safe for concurrent use.
type Seeker struct {
	db *pebble.DB
	it *pebble.Iterator
}

// Get is like View.Get.
func (k *Seeker) Get(key []byte) ([]byte, error) {
	if k.it == nil {
		it, err := k.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			return nil, fmt.Errorf("read row: %w", err)
		}
		k.it = it
	}
	var val []byte
	found := k.it.SeekPrefixGE(key)
	err := k.it.Error()
	if found && err == nil {
		val, err = k.it.ValueAndErr()
	}
	if err != nil {
		return nil, fmt.Errorf("read row: %w", err)
	}
	if !found {
		return nil, nil
	}
	return clone(val), nil
}

// Close closes the iterator. The next Get opens another.
func (k *Seeker) Close() error {
	if k.it == nil {
		return nil
	}
	it := k.it
	k.it = nil
	if err := it.Close(); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	return nil
}
