package store

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked/internal/await"
)

// A queueDB is a database with waiting compactions.
type queueDB struct {
	mu               sync.Mutex
	waiting, allowed int
	grants           []pebble.CompactionGrantHandle // handles of the running compactions
}

func (d *queueDB) GetAllowedWithoutPermission() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.allowed
}

func (d *queueDB) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0, pebble.WaitingCompaction{}
}

func (d *queueDB) Schedule(h pebble.CompactionGrantHandle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting--
	d.grants = append(d.grants, h)
	return true
}

func (d *queueDB) is(waiting, running int) func() bool {
	return func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.waiting == waiting && len(d.grants) == running
	}
}

// end ends a compaction.
func (d *queueDB) end() {
	d.mu.Lock()
	h := d.grants[0]
	d.grants = d.grants[1:]
	d.mu.Unlock()
	h.Done()
}

func TestScheduler_AfterOpen_CompactsWithinLimit(t *testing.T) {
	db := &queueDB{waiting: 5, allowed: 2}
	s := newScheduler()
	s.Register(1, db)
	s.UpdateGetAllowedWithoutPermission()
	if ok, _ := s.TrySchedule(); ok {
		t.Error("before the store is open: got permission, want none")
	}
	if !db.is(5, 0)() {
		t.Error("before the store is open: got a compaction that runs, want none")
	}
	s.start()
	await.Until(t, "two compactions", db.is(3, 2))
	if ok, _ := s.TrySchedule(); ok {
		t.Error("at the limit: got permission, want none")
	}
	db.end()
	await.Until(t, "the next compaction", db.is(2, 2))
	db.mu.Lock()
	db.allowed = 3
	db.mu.Unlock()
	await.Until(t, "a third compaction", db.is(1, 3))
	s.Unregister()
	if db.end(); !db.is(1, 2)() {
		t.Error("after the store is closed: got a compaction that starts, want none")
	}
	if ok, _ := s.TrySchedule(); ok {
		t.Error("after the store is closed: got permission, want none")
	}
}

// Compactions keep level 0 small, even after the store was opened again.
func TestOpen_ManyFlushes_AreCompacted(t *testing.T) {
	fs, dir := vfs.NewMem(), "state"
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := Open(dir, Options{
			FS: fs, CacheBytes: 1 << 20, Log: slog.New(slog.DiscardHandler),
			Fatal: func(err error) { t.Error(err) }, Crash: func(err error) { panic(err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 * compactSublevels {
			b := s.NewBatch()
			for k := range 100 {
				if err := b.Set(fmt.Appendf(nil, "t-%d", k), fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		await.Until(t, "few sublevels", func() bool {
			return int(s.db.Metrics().Levels[0].Sublevels) < compactSublevels
		})
		closeStore(t, s)
	}
}
