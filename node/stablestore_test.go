package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked"
)

// missing makes a store in memory say of a missing key what the store on disk says.
type missing struct{ raft.StableStore }

func (m missing) Get(key []byte) ([]byte, error) {
	v, err := m.StableStore.Get(key)
	if err != nil || v == nil {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return v, nil
}

func (m missing) GetUint64(key []byte) (uint64, error) {
	v, err := m.StableStore.GetUint64(key)
	if err != nil || v == 0 {
		return 0, raftboltdb.ErrKeyNotFound
	}
	return v, nil
}

// wantVote compares the vote that Raft would read with the one wanted; candidate "" is none.
func wantVote(t *testing.T, s raft.StableStore, term uint64, candidate string) {
	t.Helper()
	gotTerm, err := s.GetUint64([]byte(keyVoteTerm))
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	got, err := s.Get([]byte(keyVoteCandidate))
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	if gotTerm != term || string(got) != candidate {
		t.Errorf("got a vote for %q in term %d, want %q in term %d", got, gotTerm, candidate, term)
	}
}

// cast votes as Raft does (persistVote): first the term, then the candidate.
func cast(s raft.StableStore, term uint64, candidate string) error {
	if err := s.SetUint64([]byte(keyVoteTerm), term); err != nil {
		return err
	}
	return s.Set([]byte(keyVoteCandidate), []byte(candidate))
}

func TestAVoteSurvivesACrashWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	s := openTestStores(t, dir)
	wantVote(t, s.stable, 0, "")
	if err := cast(s.stable, 4, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyVoteTerm), 5); err != nil {
		t.Fatal(err)
	}
	wantVote(t, s.stable, 4, "a")
	// The process ends between Raft's two writes.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStores(t, dir)
	wantVote(t, s.stable, 4, "a")
	if err := s.stable.Set([]byte(keyVoteCandidate), []byte("b")); err == nil {
		t.Error("got a candidate stored without its term, want it refused")
	}
	if err := cast(s.stable, 5, "b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantVote(t, openTestStores(t, dir).stable, 5, "b")
}

// The disk fails at each of the writes of two votes in turn. What is read afterwards is a vote that
// was cast. The same cuts through Raft's own two writes leave one that was not: the test can fail.
func TestNoCutLeavesANewTermWithAnOldCandidate(t *testing.T) {
	run := func(failAt int, layered bool) (term uint64, candidate string) {
		disk := &failingStore{InmemStore: raft.NewInmemStore(), failAt: failAt}
		var store raft.StableStore = disk
		if layered {
			v, err := newVoteStore(missing{disk})
			if err != nil {
				t.Fatal(err)
			}
			store = v
		}
		err := cast(store, 4, "a")
		if err == nil {
			err = cast(store, 5, "b")
		}
		if err != nil && !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		// A new process reads the disk.
		store = missing{disk}
		if layered {
			v, err := newVoteStore(missing{disk})
			if err != nil {
				t.Fatal(err)
			}
			store = v
		}
		term, _ = store.GetUint64([]byte(keyVoteTerm))
		b, _ := store.Get([]byte(keyVoteCandidate))
		return term, string(b)
	}
	for _, layered := range []bool{true, false} {
		torn := 0
		for failAt := 1; failAt <= 5; failAt++ {
			term, candidate := run(failAt, layered)
			switch [2]any{term, candidate} {
			case [2]any{uint64(0), ""}, [2]any{uint64(4), "a"}, [2]any{uint64(5), "b"}:
			default:
				torn++
			}
		}
		if torn > 0 && layered {
			t.Errorf("got %d votes that nobody cast, want none", torn)
		}
		if torn == 0 && !layered {
			t.Error("got no torn vote from two separate writes: the test proves nothing")
		}
	}
}

func TestAVoteThatRaftWroteItselfIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	bolt, err := raftboltdb.NewBoltStore(filepath.Join(dir, raftFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := cast(bolt, 9, "c"); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	s := openTestStores(t, dir)
	wantVote(t, s.stable, 9, "c")
	if _, err := s.bolt.Get([]byte(keyVote)); err != nil {
		t.Errorf("got %v, want the vote kept as one record", err)
	}
}

func TestADamagedVoteIsAnErrorAndNotNoVote(t *testing.T) {
	dir := t.TempDir()
	s := openTestStores(t, dir)
	if err := cast(s.stable, 4, "a"); err != nil {
		t.Fatal(err)
	}
	b, err := s.bolt.Get([]byte(keyVote))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if err := s.bolt.Set([]byte(keyVote), bad); err != nil {
			t.Fatal(err)
		}
		if term, err := s.stable.GetUint64([]byte(keyVoteTerm)); err == nil || err.Error() == "not found" {
			t.Errorf("byte %d changed: got term %d, %v, want an error", i, term, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := openStores(dir, func(error) {}, quiet()); err == nil {
		s.Close()
		t.Error("got no error from opening, want one")
	}
}

func TestTheBytesOfAVoteStayAsTheyAre(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "vote_v1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	want := vote{term: 0x0102030405060708, candidate: []byte("n1/00112233445566778899aabbccddeeff")}
	got, err := want.encode()
	if err != nil || !bytes.Equal(got, golden) {
		t.Errorf("got %x, %v, want %x", got, err, golden)
	}
	v, err := decodeVote(golden)
	if err != nil || v.term != want.term || !bytes.Equal(v.candidate, want.candidate) {
		t.Errorf("got %+v, %v, want %+v", v, err, want)
	}
}

func TestACandidateHasALimit(t *testing.T) {
	if _, err := (vote{candidate: make([]byte, maxVoteCandidate)}).encode(); err != nil {
		t.Errorf("got %v, want the longest candidate taken", err)
	}
	if _, err := (vote{candidate: make([]byte, maxVoteCandidate+1)}).encode(); err == nil {
		t.Error("got no error, want a longer one refused")
	}
}

func FuzzDecodeVote(f *testing.F) {
	for _, v := range []vote{{}, {term: 1, candidate: []byte("a")}, {term: 1 << 63, candidate: make([]byte, maxVoteCandidate)}} {
		b, err := v.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeVote(b)
		if err != nil {
			return
		}
		again, err := v.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("got %x, %v, want the bytes that were decoded, %x", again, err, b)
		}
	})
}

// Raft panics where its term is not kept: the process ends before it can, with what was wrong.
func TestATermThatIsNotKeptEndsTheProcess(t *testing.T) {
	full := errors.New("no space left on device")
	for name, tt := range map[string]struct {
		key   string
		err   error
		wants bool
	}{
		"the term":                           {keyTerm, full, true},
		"the term, once it is closed":        {keyTerm, revoked.ErrClosed, false},
		"the term, kept":                     {keyTerm, nil, false},
		"something that Raft can go without": {keyInstalled, full, false},
	} {
		var crashed error
		s := termStore{refusingStore{raft.NewInmemStore(), tt.err}, func(err error) { crashed = err }}
		if err := s.SetUint64([]byte(tt.key), 5); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", name, err, tt.err)
		}
		if got := crashed != nil; got != tt.wants {
			t.Errorf("%s: got a crash with %v, want one: %v", name, crashed, tt.wants)
		}
	}
}

type refusingStore struct {
	raft.StableStore
	err error
}

func (s refusingStore) SetUint64([]byte, uint64) error { return s.err }
