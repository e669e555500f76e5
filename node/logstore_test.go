package node

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"

	"revoked"
)

func TestASecondProcessOnADirectoryFailsAtOnceAndSaysWhy(t *testing.T) {
	dir := t.TempDir()
	openTestStores(t, dir)
	second, err := openStores(dir, func(error) {}, quiet())
	if err == nil {
		second.Close()
		t.Fatal("got no error, want one: the file is locked")
	}
	if !errors.Is(err, bolterrors.ErrTimeout) {
		t.Errorf("got %v, want it to wrap %v", err, bolterrors.ErrTimeout)
	}
	for _, word := range []string{dir, "another process", "stop"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %q, want it to say %q", err, word)
		}
	}
}

func TestEntriesAndSizeSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	s := openTestStores(t, dir)
	if err := s.log.StoreLogs(entries(1, 1, 600)); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStores(t, dir)
	last, err := s.log.LastIndex()
	if err != nil || last != 600 {
		t.Errorf("got last index %d, %v, want 600", last, err)
	}
	var entry raft.Log
	if err := s.log.GetLog(300, &entry); err != nil || entry.Term != 1 {
		t.Errorf("got %+v, %v, want entry 300 of term 1", entry, err)
	}
	if term, err := s.stable.GetUint64([]byte(keyTerm)); err != nil || term != 7 {
		t.Errorf("got term %d, %v, want 7", term, err)
	}
	if s.Size() == 0 {
		t.Error("got size 0, want that of the file")
	}
}

func TestALogIsNotMonotonic(t *testing.T) {
	s := openTestStores(t, t.TempDir())
	if m, ok := s.log.(raft.MonotonicLogStore); ok && m.IsMonotonic() {
		t.Error("got a monotonic log, want one with gaps: Raft would do without them")
	}
	if err := s.log.StoreLogs(append(entries(1, 1, 2), entries(1, 5, 6)...)); err != nil {
		t.Errorf("got %v, want a gap to be taken", err)
	}
}

func TestClosingTwiceIsSafeAndLaterWritesAreRefused(t *testing.T) {
	s := openTestStores(t, t.TempDir())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 2); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("got %v, want %v", err, revoked.ErrClosed)
	}
	if err := s.log.StoreLogs(entries(1, 1, 1)); err == nil {
		t.Error("got no error, want the entry refused")
	}
}

// writes are all the ways in which Raft writes.
var writes = []struct {
	name string
	do   func(*stores) error
}{
	{"storing an entry", func(s *stores) error { return s.log.StoreLog(entries(1, 1, 1)[0]) }},
	{"storing entries", func(s *stores) error { return s.log.StoreLogs(entries(1, 1, 3)) }},
	{"deleting entries", func(s *stores) error { return s.log.DeleteRange(1, 2) }},
	{"setting the term", func(s *stores) error { return s.stable.SetUint64([]byte(keyTerm), 3) }},
	{"setting a value", func(s *stores) error { return s.stable.Set([]byte("k"), []byte("v")) }},
	{"voting", func(s *stores) error {
		return errors.Join(s.stable.SetUint64([]byte(keyVoteTerm), 3), s.stable.Set([]byte(keyVoteCandidate), []byte("a")))
	}},
}

func TestAFailedWriteIsFatalOnceAndIsNeverTriedAgain(t *testing.T) {
	for _, first := range writes {
		t.Run(first.name, func(t *testing.T) {
			disk := &failingStore{InmemStore: raft.NewInmemStore(), failAt: 1}
			var fatal []error
			s := &stores{guard: &guard{fatal: func(err error) { fatal = append(fatal, err) }}}
			if err := s.assemble(disk, missing{disk}); err != nil {
				t.Fatal(err)
			}
			if err := first.do(s); err == nil {
				t.Error("got no error, want that of the disk")
			}
			for _, later := range writes {
				if err := later.do(s); err == nil {
					t.Errorf("%s afterwards: got no error, want one", later.name)
				}
			}
			if len(fatal) != 1 || !errors.Is(fatal[0], errDisk) {
				t.Errorf("got fatal %v, want %v once", fatal, errDisk)
			}
			if disk.writes != 1 {
				t.Errorf("got %d writes on the disk, want 1", disk.writes)
			}
			// What was not written is not read, not from the cache either.
			if err := s.log.GetLog(1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("got %v for an entry that was not stored, want %v", err, raft.ErrLogNotFound)
			}
		})
	}
}

func TestAnAnchoredLog(t *testing.T) {
	tests := []struct {
		name         string
		log          []*raft.Log
		index, term  uint64
		shown        []uint64 // what GetLog finds
		atAnchor     uint64   // the term at the snapshot's index
		afterStoring []uint64 // what the store holds once entry 21 was stored
	}{
		{"with the snapshot's own entry shows everything",
			entries(3, 1, 20), 10, 3, span(1, 20), 3, span(1, 21)},
		{"without a snapshot shows everything",
			entries(3, 1, 20), 0, 0, span(1, 20), 0, span(1, 21)},
		{"with another entry at the snapshot's index hides it and all below",
			entries(2, 1, 20), 10, 3, span(10, 20), 3, span(11, 21)},
		{"that ends below the snapshot hides all",
			entries(2, 1, 5), 10, 3, span(10, 10), 3, span(21, 21)},
		{"that is empty answers for the snapshot",
			nil, 10, 3, span(10, 10), 3, span(21, 21)},
		{"that was compacted at the snapshot shows what follows",
			entries(3, 11, 20), 10, 3, span(10, 20), 3, span(11, 21)},
		{"with a gap at the snapshot hides what is before the gap",
			append(entries(2, 1, 9), entries(3, 11, 20)...), 10, 3, span(10, 20), 3, span(11, 21)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := raft.NewInmemStore()
			cached, err := raft.NewLogCache(cachedLogs, disk)
			if err != nil {
				t.Fatal(err)
			}
			log := newAnchoredLog(cached)
			// Stored through the cache, so that it holds what must not be seen.
			if err := log.StoreLogs(test.log); err != nil {
				t.Fatal(err)
			}
			log.newest = func() (uint64, uint64) { return test.index, test.term }
			for round := range 2 { // the second is answered from the verdict
				if got := indexes(t, log); !slices.Equal(got, test.shown) {
					t.Errorf("round %d: got entries %v, want %v", round, got, test.shown)
				}
			}
			var entry raft.Log
			if err := log.GetLog(test.index, &entry); test.index > 0 && (err != nil || entry.Term != test.atAnchor || entry.Index != test.index) {
				t.Errorf("got %+v, %v at the snapshot's index, want term %d", entry, err, test.atAnchor)
			}
			if err := log.StoreLogs(entries(4, 21, 21)); err != nil {
				t.Fatal(err)
			}
			if got := indexes(t, disk); !slices.Equal(got, test.afterStoring) {
				t.Errorf("after storing: got entries %v in the store, want %v", got, test.afterStoring)
			}
		})
	}
}

func TestAtStartALogThatContradictsItsSnapshotIsDiscarded(t *testing.T) {
	tests := []struct {
		name string
		log  []*raft.Log
		want []uint64
	}{
		{"another entry at its index: all of it", entries(2, 1, 20), nil},
		{"ends below it: all of it", entries(2, 1, 9), nil},
		{"compacted at it: nothing", entries(3, 11, 20), span(11, 20)},
		{"has its entry: nothing", entries(3, 1, 20), span(1, 20)},
		{"a gap at it: what is below", append(entries(2, 1, 8), entries(3, 11, 20)...), span(11, 20)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTestStores(t, dir)
			if err := s.log.StoreLogs(test.log); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTestStores(t, dir)
			if err := s.useSnapshots(func() (uint64, uint64) { return 10, 3 }); err != nil {
				t.Fatal(err)
			}
			if got := indexes(t, s.bolt); !slices.Equal(got, test.want) {
				t.Errorf("got entries %v, want %v", got, test.want)
			}
		})
	}
}

func span(first, last uint64) []uint64 {
	var out []uint64
	for i := first; i <= last; i++ {
		out = append(out, i)
	}
	return out
}

// indexes returns which of the entries 1 to 30 GetLog finds.
func indexes(t *testing.T, log raft.LogStore) []uint64 {
	t.Helper()
	var out []uint64
	for i := uint64(1); i <= 30; i++ {
		switch err := log.GetLog(i, new(raft.Log)); {
		case err == nil:
			out = append(out, i)
		case !errors.Is(err, raft.ErrLogNotFound):
			t.Fatal(err)
		}
	}
	return out
}

// Raft itself carries on after a failed write: a leader steps down, a follower logs it. Here the node
// is told once, whatever Raft tries afterwards. (Where its term cannot be stored, Raft panics.)
func TestUnderRaftAFailedWriteIsFatalOnce(t *testing.T) {
	b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
	alone := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	n := b.add("a", []*raft.Log{sealed(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)})})
	disk := &failingStore{InmemStore: n.disk}
	fatal := make(chan error, 100)
	s := &stores{guard: &guard{fatal: func(err error) { fatal <- err }}}
	if err := s.assemble(disk, missing{disk}); err != nil {
		t.Fatal(err)
	}
	b.startOn(n, s.log, s.stable, n.trans, 0)
	b.apply("stored", 1, n)
	term, err := s.stable.GetUint64([]byte(keyVoteTerm))
	if candidate, _ := s.stable.Get([]byte(keyVoteCandidate)); err != nil || term != 3 || string(candidate) != "a" {
		t.Errorf("got a vote for %q in term %d, %v, want that of Raft for itself in term 3", candidate, term, err)
	}
	disk.fail()
	if err := n.raft.Apply([]byte("lost"), longStop).Error(); err == nil {
		t.Error("got no error, want that of the disk")
	}
	select {
	case err := <-fatal:
		if !errors.Is(err, errDisk) {
			t.Errorf("got %v, want %v", err, errDisk)
		}
	case <-time.After(longStop):
		t.Fatal("nobody was told")
	}
	if err := s.log.StoreLogs(entries(3, 4, 4)); err == nil || len(fatal) != 0 {
		t.Errorf("got %v and %d more calls of fatal, want an error and none", err, len(fatal))
	}
}

// The whole way on disk: a divergent tail, a snapshot over it, the process ends before the next
// append; the next process starts with what fits the snapshot, and Raft starts on it.
func TestRaftStartsAfterACrashBetweenInstallAndTheNextAppend(t *testing.T) {
	dir := t.TempDir()
	b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
	n := b.add("a", nil)
	alone := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	s := openTestStores(t, dir)
	if err := s.log.StoreLogs(entries(2, 1, 20)); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyTerm), 3); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sink, err := n.snapshots.Create(1, 10, 3, alone, 1, n.trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := (listSnapshot{"one", "two"}).Persist(sink); err != nil {
		t.Fatal(err)
	}
	s = openTestStores(t, dir)
	if err := s.useSnapshots(n.newest); err != nil {
		t.Fatal(err)
	}
	b.startOn(n, s.log, s.stable, n.trans, 0)
	b.apply("three", 1, n)
	n.fsm.wait(t, "the entry", func(commands []string, _ int) bool { return len(commands) == 3 })
	if got, want := n.fsm.list(), []string{"one", "two", "three 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if first, err := s.bolt.FirstIndex(); err != nil || first != 11 {
		t.Errorf("got first entry %d, %v, want 11: nothing of the tail", first, err)
	}
}
