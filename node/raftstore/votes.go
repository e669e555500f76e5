package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked"
)

// Raft's own keys, and keyVote for the record that replaces two of them.
const (
	keyTerm          = "CurrentTerm"
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
	keyVote          = "Vote"
)

// voteStore is Raft's stable store with fail-stop writes. It writes a vote as one record: the term
// stays in memory until Raft sets the candidate. Reads return the record on disk.
type voteStore struct {
	store    raft.StableStore
	failStop *failStop
	crash    func(error) // stops the process, see SetUint64

	mu      sync.Mutex
	pending *uint64 // term of a vote whose candidate is not set yet
}

var _ raft.StableStore = (*voteStore)(nil)

// newVoteStore returns a store, after it has converted a vote written under Raft's own keys.
func newVoteStore(store raft.StableStore, f *failStop, crash func(error)) (*voteStore, error) {
	s := &voteStore{store: store, failStop: f, crash: crash}
	_, err := s.vote()
	if err == nil || !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return s, err
	}
	term, err := store.GetUint64([]byte(keyVoteTerm))
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyVoteTerm, err)
	}
	candidate, err := store.Get([]byte(keyVoteCandidate))
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return s, nil // a crash came between the two writes: the vote was never sent
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyVoteCandidate, err)
	}
	return s, s.record(vote{term: term, candidate: candidate})
}

// Set stores value under key. The candidate of a vote completes the vote, which is durable on
// return. A candidate without its term is an error.
func (s *voteStore) Set(key, value []byte) error {
	if string(key) != keyVoteCandidate {
		return s.failStop.write("set "+string(key), func() error { return s.store.Set(key, value) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return errors.New("vote: candidate without a term")
	}
	v := vote{term: *s.pending, candidate: value}
	s.pending = nil
	return s.record(v)
}

// SetUint64 stores value under key. The term of a vote is kept until Set supplies the candidate. If
// the current term cannot be stored, Raft panics, even while the node shuts down cleanly after an
// earlier failure. So SetUint64 first calls crash, which stops the process and reports the cause.
func (s *voteStore) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending = &value
		return nil
	}
	err := s.failStop.write("set "+string(key), func() error { return s.store.SetUint64(key, value) })
	if err != nil && string(key) == keyTerm && !errors.Is(err, revoked.ErrClosed) {
		s.crash(err)
	}
	return err
}

// Get returns the value under key, or raftboltdb.ErrKeyNotFound, whose text Raft compares.
func (s *voteStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCandidate {
		return s.store.Get(key)
	}
	v, err := s.vote()
	return v.candidate, err
}

// GetUint64 is like Get, for numbers.
func (s *voteStore) GetUint64(key []byte) (uint64, error) {
	if string(key) != keyVoteTerm {
		return s.store.GetUint64(key)
	}
	v, err := s.vote()
	return v.term, err
}

func (s *voteStore) record(v vote) error {
	b, err := v.encode()
	if err != nil {
		return err
	}
	return s.failStop.write("set "+keyVote, func() error { return s.store.Set([]byte(keyVote), b) })
}

func (s *voteStore) vote() (vote, error) {
	b, err := s.store.Get([]byte(keyVote))
	if err != nil {
		return vote{}, err
	}
	return decodeVote(b)
}

// vote is the candidate that this node voted for in a term. Its bytes:
//
//	0       1         2            10                 n-4        n
//	| 'V'   | version | term       | candidate        | CRC-32C  |
//	          = 1       big endian   0 to 1024 bytes    big endian, of all before
type vote struct {
	term      uint64
	candidate []byte
}

const (
	voteMagic        = 'V'
	voteVersion      = 1
	voteHead         = 10
	maxVoteCandidate = 1024
)

func (v vote) encode() ([]byte, error) {
	if len(v.candidate) > maxVoteCandidate {
		return nil, fmt.Errorf("vote: candidate too long (got %d bytes, want at most %d)", len(v.candidate), maxVoteCandidate)
	}
	b := make([]byte, 0, voteHead+len(v.candidate)+checksumSize)
	b = append(b, voteMagic, voteVersion)
	b = binary.BigEndian.AppendUint64(b, v.term)
	b = append(b, v.candidate...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

func decodeVote(b []byte) (vote, error) {
	n := len(b) - checksumSize
	switch {
	case n < voteHead || n > voteHead+maxVoteCandidate:
		return vote{}, fmt.Errorf("vote: invalid record length (got %d bytes)", len(b))
	case b[0] != voteMagic:
		return vote{}, fmt.Errorf("vote: unknown magic (got %#x, want %#x)", b[0], voteMagic)
	case b[1] != voteVersion:
		return vote{}, fmt.Errorf("vote: unknown record version (got %d, want %d)", b[1], voteVersion)
	case binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli):
		return vote{}, errors.New("vote: record damaged: wrong checksum")
	}
	return vote{
		term:      binary.BigEndian.Uint64(b[2:voteHead]),
		candidate: append([]byte{}, b[voteHead:n]...),
	}, nil
}
