package rows

import (
	"crypto/sha256"
	"encoding/binary"

	"revoked"
)

// A StateHash is the order-independent hash of the state: the sum, lane by lane, of SHA-256 over
// every row. Adding and removing rows commute, so the hash can be updated row by row and recomputed
// from all rows.
type StateHash [4]uint64

// Add adds a row.
func (s *StateHash) Add(key, val []byte) {
	for i, v := range lanes(key, val) {
		s[i] += v
	}
}

// Remove subtracts a row that was added before.
func (s *StateHash) Remove(key, val []byte) {
	for i, v := range lanes(key, val) {
		s[i] -= v
	}
}

// lanes hashes one row. The length of the key separates it from the value.
func lanes(key, val []byte) StateHash {
	var stack [512]byte
	b := appendBytes(stack[:0], key)
	return StateHashOf(sha256.Sum256(append(b, val...)))
}

// Bytes returns the hash in the form that snapshots and the API use.
func (s StateHash) Bytes() (b [32]byte) {
	for i, v := range s {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return b
}

// StateHashOf is the inverse of Bytes.
func StateHashOf(b [32]byte) (s StateHash) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

// NextLogHash returns the hash of a log after one more command. prev is the hash before that
// command.
func NextLogHash(prev [32]byte, index, term uint64, command []byte) (next [32]byte) {
	h := sha256.New()
	head := binary.BigEndian.AppendUint64(prev[:], index)
	h.Write(binary.BigEndian.AppendUint64(head, term))
	h.Write(command)
	h.Sum(next[:0])
	return next
}

// Version is the row of the highest command.Version of a command in the log.
type Version struct{ Commands uint64 }

func (v *Version) code(c *coder) {
	c.version()
	c.uvarint(&v.Commands)
}

// Applied is the row of the applied index, the hashes and the counts. Each commit writes it in the
// Pebble batch of the rows that it describes.
type Applied struct {
	Index, Term uint64
	ConfigIndex uint64 // index of the newest configuration entry
	Stamp       revoked.Time
	LogHash     [32]byte
	State       StateHash
	Tokens      uint64 // number of tokens in state Live
	Grants      uint64 // number of grants that are not revoked
	Tombstones  uint64 // number of rows
	Events      uint64 // number of rows of the feed
	EventsFloor uint64 // highest index dropped from the feed
	// Audits and AuditsFloor are those of the audit log. The row lacks them before the first audit
	// entry, like the rows of programs before command version 5.
	Audits      uint64
	AuditsFloor uint64
}

func (a *Applied) code(c *coder) {
	c.version()
	c.uvarint(&a.Index, &a.Term, &a.ConfigIndex)
	c.time(&a.Stamp)
	c.hash(&a.LogHash)
	state := a.State.Bytes()
	c.hash(&state)
	if c.decoding {
		a.State = StateHashOf(state)
	}
	c.uvarint(&a.Tokens, &a.Grants, &a.Tombstones, &a.Events, &a.EventsFloor)
	if c.decoding && len(c.b) > 0 || !c.decoding && (a.Audits != 0 || a.AuditsFloor != 0) {
		c.uvarint(&a.Audits, &a.AuditsFloor)
	}
}
