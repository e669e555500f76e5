package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"revoked"
)

// The keyspace. The first byte of a key is its family.
//
//	t digest                     token or stub
//	g grant-id                   grant, with the digests of its first InlineTokens tokens
//	o len grant-id digest        overflow token of a grant; value: the time of its queue entry
//	d digest                     tombstone of an unknown token
//	c client-id                  client
//	D client-id                  deleted client
//	k index seq                  cut-off
//	l hash                       denial of JWTs, see revoked.DenialKey
//	m client-id                  number of denials that a client has written
//	r grant-id                   revoked grant that Compact has not finished; value: cursor
//	e index seq                  event of the feed
//	h index seq                  entry of the audit log
//	s                            settings
//	i                            cluster id
//	n node-id                    admission of a node
//	j token-id                   join token
//	u name                       trusted issuer
//	f index seq                  when entries became final: one Acknowledge operation
//	p h                          head of the history: its start, and which records were dropped
//	p c len client-id index      change of a client between enabled, disabled and absent
//	p k by len value index seq   cut-off that a later one replaced, by its most selective property
//	q key                        use of an assertion, see revoked.AssertionKey
//	w                            the configuration of Raft as recorded in the audit log
//	v                            the highest version of a command in the log; absent: 1
//	a                            Applied
//	I property len value id      index from client, subject or session to grants
//	x time key                   queue: when Expire must examine the row with that key
//
// The families from t to v are the state: the state hash and snapshots cover them. I, J and x
// derive from them, and Restore rebuilds them. The header of a snapshot contains a.
const (
	FamilyToken     = 't'
	FamilyGrant     = 'g'
	FamilyMember    = 'o'
	FamilyTombstone = 'd'
	FamilyClient    = 'c'
	FamilyDeleted   = 'D'
	FamilyCutoff    = 'k'
	FamilyDenial    = 'l'
	FamilyDenials   = 'm'
	FamilyAssertion = 'q'
	FamilyIssuer    = 'u'
	FamilyCompact   = 'r'
	FamilyEvent     = 'e'
	FamilyAudit     = 'h'
	FamilySettings  = 's'
	FamilyCluster   = 'i'
	FamilyAdmission = 'n'
	FamilyJoinToken = 'j'
	FamilyFinal     = 'f'
	FamilyHistory   = 'p'
	FamilyVersion   = 'v'
	FamilyMembers   = 'w'
	FamilyApplied   = 'a'
	FamilyIndex     = 'I'
	FamilyQueue     = 'x'
	FamilyJTI       = 'J' // index from jtis to tokens: the key of the denial of a jti, then the digest of a token
)

// The fields of a grant that FamilyIndex indexes: the byte after the family in its keys.
const (
	byClient  = 'c'
	bySubject = 's'
	bySession = 'n'
)

// Further properties by which FamilyHistory stores replaced cut-offs.
const (
	byGrant  = 'g'
	byIssuer = 'i'
)

// StateFamilies are the families of the state, in key order.
var StateFamilies = []byte("Dcdefghijklmnopqrstuvw")

// IsState reports whether a key with that first byte belongs to the state.
func IsState(family byte) bool { return bytes.IndexByte(StateFamilies, family) >= 0 }

// Key appends the key of a row that an id identifies.
func Key(dst []byte, family byte, id string) []byte { return append(append(dst, family), id...) }

// DigestKey appends the key of a token, a tombstone or a denial.
func DigestKey(dst []byte, family byte, d revoked.Digest) []byte {
	return append(append(dst, family), d[:]...)
}

// SeqKey appends the key of an event, an audit entry or a cut-off that has the number seq in its
// log entry.
func SeqKey(dst []byte, family byte, index uint64, seq uint32) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, family), index)
	return binary.BigEndian.AppendUint32(dst, seq)
}

// KeyIndex returns the log index in a key that SeqKey appended.
func KeyIndex(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

// seqKey decodes a key that SeqKey appended.
func (c *coder) seqKey(index *uint64, seq *uint32) {
	if !c.decoding {
		return
	}
	if len(c.key) != 13 {
		c.fail()
		return
	}
	*index, *seq = KeyIndex(c.key), binary.BigEndian.Uint32(c.key[9:])
}

// MemberPrefix appends the common prefix of the keys of a grant's overflow tokens.
func MemberPrefix(dst []byte, id string) []byte {
	return appendString(append(dst, FamilyMember), id)
}

// MemberKey appends the key of an overflow token of a grant.
func MemberKey(dst []byte, id string, d revoked.Digest) []byte {
	return append(MemberPrefix(dst, id), d[:]...)
}

// ParseMemberKey returns the digest in a key that begins with prefix.
func ParseMemberKey(prefix, key []byte) (d revoked.Digest, err error) {
	if len(key) != len(prefix)+len(d) {
		return d, fmt.Errorf("overflow token of a grant: %w", ErrRow)
	}
	copy(d[:], key[len(prefix):])
	return d, nil
}

// QueueKey appends the key of the queue entry for row, which is a key of the state. Expire examines
// that row once its Before reaches the time due. If row is nil, QueueKey appends the common prefix
// of the entries for that time.
func QueueKey(dst []byte, due revoked.Time, row []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, FamilyQueue), uint64(due))
	return append(dst, row...)
}

// ParseQueueKey is the inverse of QueueKey. row shares the memory of key.
func ParseQueueKey(key []byte) (due revoked.Time, row []byte, err error) {
	if len(key) < 10 || key[0] != FamilyQueue {
		return 0, nil, fmt.Errorf("queue key of %d bytes: %w", len(key), ErrRow)
	}
	return revoked.Time(binary.BigEndian.Uint64(key[1:])), key[9:], nil
}

// EachIndexKey calls fn with every index key of g. The key is valid only during the call; buf is
// scratch.
func EachIndexKey(buf []byte, g *revoked.Grant, fn func(key []byte)) {
	for _, p := range [...]struct {
		property byte
		value    string
	}{{byClient, g.ClientID}, {bySubject, g.Subject}, {bySession, g.Session}} {
		if p.value != "" {
			fn(append(indexPrefix(buf[:0], p.property, p.value), g.ID...))
		}
	}
}

// JTIPrefix appends the common prefix of the index keys of an issuer's registered tokens with one
// jti. id is the key of the denial of that jti.
func JTIPrefix(dst []byte, id revoked.Digest) []byte { return DigestKey(dst, FamilyJTI, id) }

// JTIKey appends the index key of a token in a grant of issuer. It returns nil if the index does
// not contain the token: it was revoked, its row has no jti, or the grant has no issuer. A stub has
// a jti only if the state kept its history.
func JTIKey(dst []byte, issuer string, t *revoked.Token) []byte {
	hasJTI := t.JTI != "" && (t.State == revoked.Live || t.RegisteredIndex != 0 || t.EndedIndex != 0)
	if issuer == "" || !hasJTI || t.State == revoked.Revoked {
		return nil
	}
	return append(JTIPrefix(dst, revoked.DenialKey(revoked.DenyJTI, issuer, t.JTI)), t.Digest[:]...)
}

// JTIsIndexedKey returns the key of the row that marks the index of jtis as complete. It is a
// derived row.
func JTIsIndexedKey() []byte { return []byte{FamilyJTI} }

func indexPrefix(dst []byte, property byte, value string) []byte {
	return appendString(append(dst, FamilyIndex, property), value)
}

// SelectorPrefix returns the prefix of the keys to scan for grants that s may match: the index of
// its most selective property, or all grants. The grant id follows the prefix in each key.
func SelectorPrefix(s *revoked.Selector) []byte {
	switch {
	case s.GrantID != "":
	case s.Session != "":
		return indexPrefix(nil, bySession, s.Session)
	case s.Subject != "":
		return indexPrefix(nil, bySubject, s.Subject)
	case s.ClientID != "":
		return indexPrefix(nil, byClient, s.ClientID)
	}
	return []byte{FamilyGrant}
}
