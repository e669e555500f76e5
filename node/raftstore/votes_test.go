package raftstore

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

// wantVote checks the vote that Raft would read. An empty candidate means that there must be no
// vote.
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

// cast stores a vote as Raft does (persistVote): first the term, then the candidate.
func cast(s raft.StableStore, term uint64, candidate string) error {
	if err := s.SetUint64([]byte(keyVoteTerm), term); err != nil {
		return err
	}
	return s.Set([]byte(keyVoteCandidate), []byte(candidate))
}

func TestVote_Crash_KeepsWholeVote(t *testing.T) {
	dir := t.TempDir()
	s := openStack(t, dir, noSnapshot)
	wantVote(t, s.stable, 0, "")
	if err := cast(s.stable, 4, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.stable.SetUint64([]byte(keyVoteTerm), 5); err != nil {
		t.Fatal(err)
	}
	wantVote(t, s.stable, 4, "a")
	// The process exits between Raft's two writes.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStack(t, dir, noSnapshot)
	wantVote(t, s.stable, 4, "a")
	if err := s.stable.Set([]byte(keyVoteCandidate), []byte("b")); err == nil {
		t.Error("got nil, want an error for a candidate without its term")
	}
	if err := cast(s.stable, 5, "b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantVote(t, openStack(t, dir, noSnapshot).stable, 5, "b")
}

// The disk fails at each write of two votes in turn. The vote that is read afterwards must be one
// that was cast. With Raft's own two writes, a vote that was never cast remains, which shows that
// the test can fail.
func TestVote_FailedWrite_NeverMixesTwoVotes(t *testing.T) {
	run := func(failAt int, layered bool) (term uint64, candidate string) {
		disk := &failingStore{InmemStore: raft.NewInmemStore(), failAt: failAt}
		var store raft.StableStore = disk
		if layered {
			v, err := newTestVotes(disk)
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
		store = boltErrors{disk}
		if layered {
			v, err := newTestVotes(disk)
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
			t.Errorf("got %d mixed votes, want 0", torn)
		}
		if torn == 0 && !layered {
			t.Error("got 0 mixed votes from two separate writes, want one")
		}
	}
}

func TestVote_RaftsOwnKeys_AreConverted(t *testing.T) {
	dir := t.TempDir()
	bolt, err := raftboltdb.NewBoltStore(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := cast(bolt, 9, "c"); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	s := openStack(t, dir, noSnapshot)
	wantVote(t, s.stable, 9, "c")
	if _, err := s.bolt.Get([]byte(keyVote)); err != nil {
		t.Errorf("got %v, want the vote as one record", err)
	}
}

func TestVote_Damaged_ReturnsError(t *testing.T) {
	dir := t.TempDir()
	s := openStack(t, dir, noSnapshot)
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
	if _, err := Open(Config{Dir: dir, FSM: openFSM(t, nil), Fatal: func(error) {}}); err == nil {
		t.Error("got nil from Open, want an error")
	}
}

func TestVote_Encoding_IsGolden(t *testing.T) {
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

func TestVote_CandidateTooLong_IsRefused(t *testing.T) {
	if _, err := (vote{candidate: make([]byte, maxVoteCandidate)}).encode(); err != nil {
		t.Errorf("got %v, want nil for the longest candidate", err)
	}
	if _, err := (vote{candidate: make([]byte, maxVoteCandidate+1)}).encode(); err == nil {
		t.Error("got nil, want an error for a longer candidate")
	}
}

func FuzzDecodeVote(f *testing.F) {
	for _, v := range []vote{{}, {term: 1, candidate: []byte("a")},
		{term: 1 << 63, candidate: make([]byte, maxVoteCandidate)}} {
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
			t.Errorf("got %x, %v, want the decoded bytes %x", again, err, b)
		}
	})
}

func newTestVotes(disk raft.StableStore) (*voteStore, error) {
	return newVoteStore(boltErrors{disk}, &failStop{fatal: func(error) {}}, func(error) {})
}

// Raft panics if it cannot store the current term.
func TestVoteStore_TermNotStored_Crashes(t *testing.T) {
	for name, tt := range map[string]struct {
		key     string
		err     error
		crashes bool
	}{
		"term":               {keyTerm, errDisk, true},
		"term after Close":   {keyTerm, revoked.ErrClosed, false},
		"term stored":        {keyTerm, nil, false},
		"key without a need": {keyInstalled, errDisk, false},
	} {
		var crashed error
		s := &voteStore{store: refusingStore{raft.NewInmemStore(), tt.err}, failStop: &failStop{fatal: func(error) {}},
			crash: func(err error) { crashed = err }}
		if err := s.SetUint64([]byte(tt.key), 5); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", name, err, tt.err)
		}
		if got := crashed != nil; got != tt.crashes {
			t.Errorf("%s: got a crash with %v, want one: %v", name, crashed, tt.crashes)
		}
	}
}

type refusingStore struct {
	raft.StableStore
	err error
}

func (s refusingStore) SetUint64([]byte, uint64) error { return s.err }
