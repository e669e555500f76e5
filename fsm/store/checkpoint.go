package store

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
)

// A Checkpoint is a frozen copy of a store, made of hard links.
type Checkpoint struct {
	View
	db  *pebble.DB
	fs  FS
	dir string
}

// Checkpoint freezes the flushed rows of the store in a new directory dir. Writes continue during
// that time. Close removes the directory. After an error no file is left.
func (s *Store) Checkpoint(dir string) (*Checkpoint, error) {
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create checkpoint: %w", err)
	}
	c := &Checkpoint{fs: s.fs, dir: dir}
	sub := filepath.Join(dir, "db")
	err := s.db.Checkpoint(sub)
	if err == nil {
		c.db, err = pebble.Open(sub, &pebble.Options{
			FS: s.fs, ReadOnly: true, DisableWAL: true, Cache: s.cache, Logger: quietLogger{},
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create checkpoint: %w", err), s.fs.RemoveAll(dir))
	}
	c.View = View{c.db}
	return c, nil
}

// Close closes and removes the copy.
func (c *Checkpoint) Close() error { return errors.Join(c.db.Close(), c.fs.RemoveAll(c.dir)) }
