package snapshot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// A Header describes a snapshot: the state at Applied.Index.
type Header struct {
	rows.Applied
	Version   int
	ClusterID string
	Clients   uint64
	Cutoffs   uint64
	Commands  uint32 // lowest command.Version of a program that can read the rows; 0: 2 or lower
	Rows      uint64 // number of rows in the stream; set by Read and Write
	Bytes     int64  // size of the stream; set by Read and Write
}

// A Source is a frozen copy of the rows. The rows must not change while Write reads them, or the
// counts of the header would be wrong.
type Source interface {
	Get(key []byte) ([]byte, error)
	Scan(prefix, start []byte, fn func(key, val []byte) (bool, error)) error
}

// ReadHeader builds the header of the state in src. It counts clients and cut-offs by scans, which
// are short. The other counts are in the row of the applied index.
func ReadHeader(src Source) (Header, error) {
	h := Header{Version: version}
	key := []byte{rows.FamilyApplied}
	row, err := src.Get(key)
	if err == nil && row != nil {
		err = rows.Parse(key, row, &h.Applied)
	}
	if err != nil {
		return h, err
	}
	id, err := src.Get([]byte{rows.FamilyCluster})
	if err != nil {
		return h, err
	}
	h.ClusterID = string(id)
	if h.Commands, err = readCommands(src); err != nil {
		return h, err
	}
	for family, n := range map[byte]*uint64{rows.FamilyClient: &h.Clients, rows.FamilyCutoff: &h.Cutoffs} {
		err := src.Scan([]byte{family}, nil, func(_, _ []byte) (bool, error) { *n++; return true, nil })
		if err != nil {
			return h, err
		}
	}
	return h, nil
}

// readCommands returns Header.Commands for the state in src.
func readCommands(src Source) (uint32, error) {
	var v rows.Version
	key := []byte{rows.FamilyVersion}
	row, err := src.Get(key)
	if err == nil && row != nil {
		err = rows.Parse(key, row, &v)
	}
	return namedCommands(v.Commands), err
}

// namedCommands returns Header.Commands for a state that includes commands of version v. It is 0
// below version 3: programs of those versions ignore the field, and read only states of their own
// commands.
func namedCommands(v uint64) uint32 {
	if v < 3 {
		return 0
	}
	return uint32(min(v, math.MaxUint32))
}

// encode returns the bytes of the header. Deterministic encoding makes two backups of one state
// equal byte by byte.
func (h *Header) encode() ([]byte, error) {
	state := h.State.Bytes()
	return proto.MarshalOptions{Deterministic: true}.Marshal(&command.SnapshotHead{
		ClusterId: h.ClusterID, Index: h.Index, Term: h.Term, ConfigIndex: h.ConfigIndex, Stamp: int64(h.Stamp),
		LogHash: h.LogHash[:], StateHash: state[:], Tokens: h.Tokens, Grants: h.Grants, Clients: h.Clients,
		Cutoffs: h.Cutoffs, Tombstones: h.Tombstones, Events: h.Events, EventsFloor: h.EventsFloor,
		Audits: h.Audits, AuditsFloor: h.AuditsFloor, Commands: h.Commands,
	})
}

// decodeHeader is the inverse of encode for a header that this program can read. It checks the
// version before it looks for unknown fields, because the error about the version is more useful.
func decodeHeader(b []byte) (Header, error) {
	var m command.SnapshotHead
	if err := proto.Unmarshal(b, &m); err != nil {
		return Header{}, fmt.Errorf("%w: malformed header: %w", ErrMalformed, err)
	}
	if m.Commands > command.Version {
		return Header{}, fmt.Errorf("%w: command version: got %d, want at most %d: upgrade this program",
			ErrMalformed, m.Commands, command.Version)
	}
	if err := command.CheckKnown(&m); err != nil {
		return Header{}, err
	}
	if len(m.LogHash) != 32 || len(m.StateHash) != 32 || m.Stamp < 0 {
		return Header{}, fmt.Errorf("%w: malformed header", ErrMalformed)
	}
	return Header{
		Version: version, ClusterID: m.ClusterId, Clients: m.Clients, Cutoffs: m.Cutoffs,
		Commands: m.Commands, Applied: rows.Applied{
			Index: m.Index, Term: m.Term, ConfigIndex: m.ConfigIndex, Stamp: revoked.Time(m.Stamp),
			LogHash: [32]byte(m.LogHash), State: rows.StateHashOf([32]byte(m.StateHash)),
			Tokens: m.Tokens, Grants: m.Grants, Tombstones: m.Tombstones, Events: m.Events, EventsFloor: m.EventsFloor,
			Audits: m.Audits, AuditsFloor: m.AuditsFloor,
		},
	}, nil
}

// A Marker represents a local snapshot in Raft's snapshot store. The state itself is in the store
// of the FSM.
//
//	8   magic "RVKDMARK"
//	8   index
//	8   term
//	32  log hash at index
//	4   CRC-32C of the bytes before it
type Marker struct {
	Index, Term uint64
	LogHash     [32]byte
}

// The magic and the size of a marker.
const (
	MarkerMagic = "RVKDMARK"
	MarkerSize  = 8 + 8 + 8 + 32 + 4
)

// Encode returns the bytes of m.
func (m *Marker) Encode() []byte {
	b := append(make([]byte, 0, MarkerSize), MarkerMagic...)
	b = binary.BigEndian.AppendUint64(b, m.Index)
	b = binary.BigEndian.AppendUint64(b, m.Term)
	b = append(b, m.LogHash[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ParseMarker is the inverse of Encode.
func ParseMarker(b []byte) (m Marker, err error) {
	if len(b) != MarkerSize || string(b[:8]) != MarkerMagic ||
		binary.BigEndian.Uint32(b[MarkerSize-4:]) != crc32.Checksum(b[:MarkerSize-4], castagnoli) {
		return m, fmt.Errorf("%w: malformed marker", ErrMalformed)
	}
	m.Index, m.Term = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	copy(m.LogHash[:], b[24:])
	return m, nil
}
