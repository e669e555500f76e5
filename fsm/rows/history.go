package rows

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
)

// A History is the head row of the history. It limits the times for which AsOf returns a result.
// Without this row the state keeps no history, and the rows of tokens have the format of older
// versions.
type History struct {
	Since  revoked.Time // the stamp of the entry that began the history
	Floor  revoked.Time // dropped rows of the history covered only times before it
	Reaped revoked.Time // when a record of a token was last dropped
	// Undenied is when a denial was last dropped. Distrusted is when the record of an issuer was last
	// dropped.
	Undenied, Distrusted revoked.Time
	Gaps                 []revoked.Gap
}

// maxGaps is the maximum number of gaps in a history. AddGap merges the oldest gaps.
const maxGaps = 16

// AddGap adds a gap after all others.
func (h *History) AddGap(g revoked.Gap) {
	h.Gaps = append(h.Gaps[:len(h.Gaps):len(h.Gaps)], g)
	if n := len(h.Gaps) - maxGaps; n > 0 {
		merged := revoked.Gap{From: h.Gaps[0].From, To: h.Gaps[n].To}
		h.Gaps = append([]revoked.Gap{merged}, h.Gaps[n+1:]...)
	}
}

// Kinds of rows of FamilyHistory, the second byte of a key.
const (
	historyHead    = 'h'
	historyClient  = 'c'
	historyCutoffs = 'k'
)

// HistoryKey returns the key of the head.
func HistoryKey() []byte { return []byte{FamilyHistory, historyHead} }

func (h *History) code(c *coder) {
	c.version()
	c.time(&h.Since, &h.Floor, &h.Reaped, &h.Undenied, &h.Distrusted)
	n := c.length(len(h.Gaps), 2)
	if c.decoding && n > 0 {
		h.Gaps = make([]revoked.Gap, n)
	}
	for i := range h.Gaps {
		c.time(&h.Gaps[i].From, &h.Gaps[i].To)
	}
}

// A ClientChange is the row of a change of a client.
type ClientChange struct {
	revoked.ClientChange
	Due revoked.Time
}

// ClientChangePrefix returns the prefix of the keys of a client's changes, in the order of the log.
func ClientChangePrefix(id string) []byte {
	return appendString([]byte{FamilyHistory, historyClient}, id)
}

// ClientChangeKey returns the key of the change at index. A client has at most one such row for
// each log entry.
func ClientChangeKey(id string, index uint64) []byte {
	return binary.BigEndian.AppendUint64(ClientChangePrefix(id), index)
}

func (v *ClientChange) code(c *coder) {
	c.version()
	c.moment(&v.Moment)
	c.byte((*byte)(&v.Was))
	c.byte((*byte)(&v.Is))
	c.time(&v.Due)
	if max(v.Was, v.Is) > revoked.ClientDisabled {
		c.fail()
	}
}

// A PastCutoff is a cut-off that a later one with the same selector has replaced.
type PastCutoff struct {
	Cutoff     // without the progress of Compact
	ReplacedAt revoked.Time
}

// PastCutoffKey returns the key of a replaced cut-off.
func PastCutoffKey(v *Cutoff) []byte {
	property, value := byte(byIssuer), v.Issuer
	switch s := &v.Selector; {
	case s.GrantID != "":
		property, value = byGrant, s.GrantID
	case s.Session != "":
		property, value = bySession, s.Session
	case s.Subject != "":
		property, value = bySubject, s.Subject
	case s.ClientID != "":
		property, value = byClient, s.ClientID
	}
	key := binary.BigEndian.AppendUint64(pastCutoffPrefix(property, value), v.Index)
	return binary.BigEndian.AppendUint32(key, v.Seq)
}

func pastCutoffPrefix(property byte, value string) []byte {
	return appendString([]byte{FamilyHistory, historyCutoffs, property}, value)
}

// PastCutoffPrefixes returns the prefixes of the keys of the replaced cut-offs that may cover the
// tokens of g.
func PastCutoffPrefixes(g *revoked.Grant) [][]byte {
	out := [][]byte{pastCutoffPrefix(byIssuer, "")} // the cut-offs without a selector
	for _, p := range [...]struct {
		property byte
		value    string
	}{{byGrant, g.ID}, {bySession, g.Session}, {bySubject, g.Subject}, {byClient, g.ClientID}, {byIssuer, g.Issuer}} {
		if p.value != "" {
			out = append(out, pastCutoffPrefix(p.property, p.value))
		}
	}
	return out
}

func (v *PastCutoff) code(c *coder) {
	c.version()
	s := &v.Selector
	c.string(&s.ClientID, &s.Subject, &s.Session, &s.GrantID, &s.Issuer, &v.By, &v.Reason)
	c.time(&v.IssuedBefore, &v.At)
	c.uvarint(&v.Index)
	c.flag(&v.Whole)
	c.time(&v.ReplacedAt, &v.Due)
}

// A PastRow is a row of the history other than its head: a [ClientChange] or a [PastCutoff].
type PastRow interface {
	Row
	// DueAt returns the time of the row's queue entry.
	DueAt() *revoked.Time
	// End returns the end of the time that the row describes. Once the row is dropped, AsOf returns
	// no result for that time.
	End() revoked.Time
}

// DueAt implements [PastRow].
func (v *ClientChange) DueAt() *revoked.Time { return &v.Due }

// End implements [PastRow].
func (v *ClientChange) End() revoked.Time { return v.At }

// DueAt implements [PastRow].
func (v *PastCutoff) DueAt() *revoked.Time { return &v.Due }

// End implements [PastRow].
func (v *PastCutoff) End() revoked.Time { return v.ReplacedAt }

// ParsePast decodes a row of the history. It returns an error for the head, and for a row of
// another kind.
func ParsePast(key, val []byte) (PastRow, error) {
	var v PastRow
	switch {
	case len(key) > 1 && key[1] == historyClient:
		v = &ClientChange{}
	case len(key) > 1 && key[1] == historyCutoffs:
		v = &PastCutoff{}
	default:
		return nil, fmt.Errorf("history: %w", ErrRow)
	}
	return v, Parse(key, val, v)
}

// historyDue returns the time of the queue entry of a row of the history, or 0 for the head.
func historyDue(key, val []byte) (revoked.Time, error) {
	if len(key) > 1 && key[1] == historyHead {
		return 0, Parse(key, val, &History{})
	}
	v, err := ParsePast(key, val)
	if err != nil {
		return 0, err
	}
	return *v.DueAt(), nil
}

// AppendFinal appends the row of FamilyFinal of an Acknowledge operation: the operation itself.
func AppendFinal(b []byte, m *command.Acknowledge) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
}

// ParseFinal is the inverse of AppendFinal.
func ParseFinal(row []byte) ([]revoked.Acknowledgement, error) {
	var m command.Acknowledge
	if err := parseRecord("acknowledgements", row, &m); err != nil {
		return nil, err
	}
	list, ok := m.Acknowledgements()
	if !ok {
		return nil, fmt.Errorf("acknowledgements: %w", ErrRow)
	}
	return list, nil
}
