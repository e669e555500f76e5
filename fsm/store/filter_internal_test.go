package store

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked/internal/await"
)

func openFiltered(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{
		FS: vfs.Default, CacheBytes: 1 << 20, Log: slog.New(slog.DiscardHandler),
		Fatal: func(err error) { t.Error(err) }, Crash: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Filter("tg", 'J', 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// closeStore makes the rows durable and closes s.
func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s.Release()
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
}

// awaitScan waits until no scan runs.
func awaitScan(t *testing.T, s *Store) {
	t.Helper()
	await.Until(t, "complete filter", func() bool {
		s.filter.mu.Lock()
		defer s.filter.mu.Unlock()
		return s.filter.complete.Load() != nil && s.filter.building == nil
	})
}

func filterKey(i int) []byte { return fmt.Appendf(nil, "%c-%d", "tgx"[i%3], i) }

// The filter reports whether a group may have keys, even after a restart.
func TestFilter_GroupWithoutKeys_IsAbsent(t *testing.T) {
	dir := t.TempDir()
	key := func(group string, n int) []byte { return fmt.Appendf(nil, "J%s%032d", group, n) }
	s := openFiltered(t, dir)
	defer func() { s.Release() }()
	b := s.NewBatch()
	for n := range 3 {
		if err := b.Set(key("some", n), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			closeStore(t, s)
			s = openFiltered(t, dir)
		}
		awaitScan(t, s)
		if s.Lacks([]byte("Jsome")) || !s.Lacks([]byte("Jother")) || !s.Lacks([]byte("J")) {
			t.Errorf("restarted %v: got lacks %v %v %v, want only the group with keys", restarted,
				s.Lacks([]byte("Jsome")), s.Lacks([]byte("Jother")), s.Lacks([]byte("J")))
		}
	}
}

// Random writes, deletions, flushes, renewals and restarts never make the filter lack a row that
// the store has.
func TestFilter_RandomHistory_NeverLacksARow(t *testing.T) {
	dir := t.TempDir()
	s := openFiltered(t, dir)
	defer func() { s.Release() }()
	random := rand.New(rand.NewPCG(1, 2))
	present := map[int]bool{}
	renewed := 0
	for round := range 60 {
		if round%7 == 6 {
			closeStore(t, s)
			s = openFiltered(t, dir)
		}
		s.filter.minDeleted = 200
		b := s.NewBatch()
		for range random.IntN(900) {
			i := random.IntN(3000)
			err := error(nil)
			if present[i] = random.IntN(3) > 0; present[i] {
				err = b.Set(filterKey(i), []byte("row"))
			} else {
				err = b.Delete(filterKey(i))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		before := s.filter.complete.Load()
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if random.IntN(4) == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(2) == 0 {
			awaitScan(t, s)
		}
		for i, is := range present {
			if is && s.Lacks(filterKey(i)) {
				t.Fatalf("round %d: filter lacks row %d, which the store holds", round, i)
			}
		}
		if s.filter.complete.Load() != before {
			renewed++
		}
	}
	if renewed == 0 {
		t.Error("filter: got no renewal, want some")
	}
}

// A scan takes several chunks while commits continue. The filter must get the rows of these
// commits, from the scan or from the commits.
func TestFilter_ScanDuringCommits_NeverLacksARow(t *testing.T) {
	const old, added = 3*scanChunk + 5, 20_000
	dir := t.TempDir()
	s := openFiltered(t, dir)
	write := func(from, to int) {
		b := s.NewBatch()
		for i := from; i < to; i++ {
			if err := b.Set(filterKey(i), nil); err != nil {
				t.Error(err)
			}
		}
		if err := b.Commit(); err != nil {
			t.Error(err)
		}
	}
	write(0, 3*old)
	closeStore(t, s)

	s = openFiltered(t, dir)
	defer s.Release()
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := 3 * old; i < 3*old+added; i += 100 {
			write(i, i+100)
		}
	})
	awaitScan(t, s)
	writers.Wait()
	for i := range 3*old + added {
		if s.Lacks(filterKey(i)) {
			t.Fatalf("filter lacks row %d, which the store holds", i)
		}
	}
	absent := 0
	for i := range 10_000 {
		if s.Lacks(filterKey(3*(1_000_000+i))) && s.Lacks(filterKey(3*(1_000_000+i)+1)) {
			absent++
		}
	}
	if absent < 9_700 {
		t.Errorf("absent rows: got %d of 10000 that the filter lacks, want at least 9700", absent)
	}
	if s.Lacks([]byte("x-absent")) {
		t.Error("filter lacks a row of another family")
	}
}

// A closed store does not wait for a scan.
func TestFilter_Release_StopsScan(t *testing.T) {
	s := openFiltered(t, t.TempDir())
	s.renewFilter(1)
	s.Release()
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
}

// Before the scan ends, the filter lacks no row.
func TestFilter_Incomplete_LacksNothing(t *testing.T) {
	f := filter{families: "t"}
	if f.lacks([]byte("t-1")) {
		t.Error("incomplete filter: got that it lacks a row, want that it lacks none")
	}
}

func TestKeySet_Growth_KeepsKeysAndStaysPrecise(t *testing.T) {
	const n = 10 * leastRoom
	s := newKeySet(0)
	random := rand.New(rand.NewPCG(3, 4))
	hashes := make([]uint64, n)
	for i := range hashes {
		hashes[i] = random.Uint64()
	}
	for i := 0; i < n; i += 1 << 10 {
		s.add(hashes[i : i+1<<10])
	}
	for i, h := range hashes {
		if !s.has(h) {
			t.Fatalf("set lacks key %d, which was added", i)
		}
	}
	wrong := 0
	for range 20_000 {
		if s.has(random.Uint64()) {
			wrong++
		}
	}
	if wrong > 600 {
		t.Errorf("absent keys: got %d of 20000 that seem present, want at most 600", wrong)
	}
	if layers := len(*s.layers.Load()); layers > 2 {
		t.Errorf("layers: got %d, want at most 2", layers)
	}
}
