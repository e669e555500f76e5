package node

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

// The keys that Raft keeps its term and a vote under, and the one that a voteStore keeps a vote under.
const (
	keyTerm          = "CurrentTerm"
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
	keyVote          = "Vote"
)

// A voteStore is a stable store that writes a vote, its term and its candidate, as one record. Raft
// writes first the term and then the candidate, in two transactions; a crash between the two would
// leave the new term with the candidate of an older vote. Here the term waits in memory for the
// candidate. What is read is what is on disk.
type voteStore struct {
	raft.StableStore

	mu      sync.Mutex
	pending *uint64 // the term that waits for its candidate
}

var _ raft.StableStore = (*voteStore)(nil)

// newVoteStore takes over a vote that Raft wrote under its own keys.
func newVoteStore(store raft.StableStore) (*voteStore, error) {
	s := &voteStore{StableStore: store}
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
		return s, nil // cut between its two writes: that vote was never sent
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyVoteCandidate, err)
	}
	return s, s.record(vote{term: term, candidate: candidate})
}

// Set stores value under key. The candidate of a vote completes the vote, which is durable on
// return; without the term set before it is refused.
func (s *voteStore) Set(key, value []byte) error {
	if string(key) != keyVoteCandidate {
		return s.StableStore.Set(key, value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return errors.New("vote: a candidate without its term")
	}
	v := vote{term: *s.pending, candidate: value}
	s.pending = nil
	return s.record(v)
}

// SetUint64 stores value under key, except for the term of a vote, which is kept until Set brings
// the candidate.
func (s *voteStore) SetUint64(key []byte, value uint64) error {
	if string(key) != keyVoteTerm {
		return s.StableStore.SetUint64(key, value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = &value
	return nil
}

// Get returns the value under key, or raftboltdb.ErrKeyNotFound, whose text Raft looks for.
func (s *voteStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCandidate {
		return s.StableStore.Get(key)
	}
	v, err := s.vote()
	return v.candidate, err
}

// GetUint64 is Get for numbers.
func (s *voteStore) GetUint64(key []byte) (uint64, error) {
	if string(key) != keyVoteTerm {
		return s.StableStore.GetUint64(key)
	}
	v, err := s.vote()
	return v.term, err
}

func (s *voteStore) record(v vote) error {
	b, err := v.encode()
	if err != nil {
		return err
	}
	return s.StableStore.Set([]byte(keyVote), b)
}

func (s *voteStore) vote() (vote, error) {
	b, err := s.StableStore.Get([]byte(keyVote))
	if err != nil {
		return vote{}, err
	}
	return decodeVote(b)
}

// A vote is whom this node voted for in a term. Its bytes:
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
	voteSum          = 4
	maxVoteCandidate = 1024
)

func (v vote) encode() ([]byte, error) {
	if len(v.candidate) > maxVoteCandidate {
		return nil, fmt.Errorf("vote: candidate of %d bytes, at most %d", len(v.candidate), maxVoteCandidate)
	}
	b := make([]byte, 0, voteHead+len(v.candidate)+voteSum)
	b = append(b, voteMagic, voteVersion)
	b = binary.BigEndian.AppendUint64(b, v.term)
	b = append(b, v.candidate...)
	return binary.BigEndian.AppendUint32(b, voteChecksum(b)), nil
}

func decodeVote(b []byte) (vote, error) {
	n := len(b) - voteSum
	switch {
	case n < voteHead || n > voteHead+maxVoteCandidate:
		return vote{}, fmt.Errorf("vote: record of %d bytes", len(b))
	case b[0] != voteMagic:
		return vote{}, fmt.Errorf("vote: record begins with %#x", b[0])
	case b[1] != voteVersion:
		return vote{}, fmt.Errorf("vote: record of version %d, this program knows %d", b[1], voteVersion)
	case binary.BigEndian.Uint32(b[n:]) != voteChecksum(b[:n]):
		return vote{}, errors.New("vote: record is damaged: checksum is wrong")
	}
	return vote{
		term:      binary.BigEndian.Uint64(b[2:voteHead]),
		candidate: append([]byte{}, b[voteHead:n]...),
	}, nil
}

func voteChecksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// A termStore is the stable store as a Raft that runs has it. Raft panics where it cannot keep its term, also
// where an earlier write has failed and the node is ending in order; so the process ends before, with the cause.
type termStore struct {
	raft.StableStore
	crash func(error)
}

// SetUint64 stores value under key.
func (s termStore) SetUint64(key []byte, value uint64) error {
	err := s.StableStore.SetUint64(key, value)
	if err != nil && string(key) == keyTerm && !errors.Is(err, revoked.ErrClosed) {
		s.crash(err)
	}
	return err
}
