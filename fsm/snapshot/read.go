package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"revoked"
	"revoked/fsm/rows"
)

// Read reads and checks a whole snapshot. fn (may be nil) receives every row before the rest of the
// snapshot is checked. The caller must discard the effects of fn unless Read succeeds. Key and val
// are valid only during the call.
func Read(r io.Reader, fn func(key, val []byte) error) (Header, error) {
	s := &reader{r: r, sum: sha256.New()}
	h, err := s.head()
	if err != nil {
		return h, err
	}
	var n counter
	row := func(key, val []byte) error {
		if err := n.count(key, val); err != nil || fn == nil {
			return err
		}
		return fn(key, val)
	}
	for {
		more, err := s.nextBlock(row)
		if err != nil {
			return h, err
		}
		if !more {
			return s.end(h, &n)
		}
	}
}

// Verify is like Read, but the stream must end with the snapshot. It checks rows without keeping
// them.
func Verify(r io.Reader) (Header, error) {
	h, err := Read(r, nil)
	if err != nil {
		return h, err
	}
	n, err := io.Copy(io.Discard, r)
	if err == nil && n > 0 {
		err = fmt.Errorf("%w: %d bytes after the end", ErrMalformed, n)
	}
	return h, err
}

// A reader reads the parts of a stream. Its memory grows with the bytes that arrive, not with
// announced lengths.
type reader struct {
	r       io.Reader
	sum     hash.Hash
	n       int64
	buf     bytes.Buffer
	lastKey []byte
}

// bytes returns the next n bytes, valid until the next call.
func (s *reader) bytes(n uint32) ([]byte, error) {
	s.buf.Reset()
	m, err := io.CopyN(&s.buf, s.r, int64(n))
	s.n += m
	if err != nil {
		return nil, fmt.Errorf("%w: truncated after %d bytes: %w", ErrMalformed, s.n, err)
	}
	s.sum.Write(s.buf.Bytes())
	return s.buf.Bytes(), nil
}

// uint32 reads a number into a separate buffer, so the result of bytes remains valid.
func (s *reader) uint32() (uint32, error) {
	var b [4]byte
	m, err := io.ReadFull(s.r, b[:])
	s.n += int64(m)
	if err != nil {
		return 0, fmt.Errorf("%w: truncated after %d bytes: %w", ErrMalformed, s.n, err)
	}
	s.sum.Write(b[:])
	return binary.BigEndian.Uint32(b[:]), nil
}

// bounded reads the length of a part and checks it against limit.
func (s *reader) bounded(part string, limit uint32) (uint32, error) {
	n, err := s.uint32()
	if err == nil && n > limit {
		err = fmt.Errorf("%w: %s size: got %d bytes, want at most %d", ErrMalformed, part, n, limit)
	}
	return n, err
}

// head reads the stream up to its first block. It decodes the header before the checksum at the end
// is known, so each field is checked by itself.
func (s *reader) head() (Header, error) {
	b, err := s.bytes(uint32(len(magic)))
	if err != nil {
		return Header{}, err
	}
	if string(b) != magic {
		return Header{}, fmt.Errorf("%w: unknown magic", ErrMalformed)
	}
	v, err := s.uint32()
	if err != nil {
		return Header{}, err
	}
	if v != version {
		return Header{}, fmt.Errorf("%w: version: got %d, want %d", ErrMalformed, v, version)
	}
	size, err := s.bounded("header", maxHead)
	if err != nil {
		return Header{}, err
	}
	if b, err = s.bytes(size); err != nil {
		return Header{}, err
	}
	return decodeHeader(b)
}

// nextBlock passes the rows of one block to fn. It reports false at the end of the blocks. Because
// keys must ascend, no row occurs twice.
func (s *reader) nextBlock(fn func(key, val []byte) error) (bool, error) {
	size, err := s.bounded("block", maxBlock)
	if err != nil || size == 0 {
		return false, err
	}
	block, err := s.bytes(size)
	if err != nil {
		return false, err
	}
	sum, err := s.uint32()
	if err != nil {
		return false, err
	}
	if sum != crc32.Checksum(block, castagnoli) {
		return false, fmt.Errorf("%w: wrong checksum of the block before byte %d", ErrMalformed, s.n)
	}
	for len(block) > 0 {
		key, val, rest, ok := rows.TakePair(block)
		if !ok || len(key) == 0 || !rows.IsState(key[0]) {
			return false, fmt.Errorf("%w: malformed row before byte %d", ErrMalformed, s.n)
		}
		if bytes.Compare(key, s.lastKey) <= 0 {
			return false, fmt.Errorf("%w: rows out of order before byte %d", ErrMalformed, s.n)
		}
		s.lastKey = append(s.lastKey[:0], key...)
		if err := fn(key, val); err != nil {
			return false, err
		}
		block = rest
	}
	return true, nil
}

// end reads the end of the stream. It checks the checksum, the number of rows, and the counts and
// the state hash of the header against the rows. The state hash reveals a changed row even if the
// checksums were recomputed, unless the header was changed too. Neither a checksum nor the state
// hash is a signature.
func (s *reader) end(h Header, n *counter) (Header, error) {
	b, err := s.bytes(8)
	if err != nil {
		return h, err
	}
	count, want := binary.BigEndian.Uint64(b), s.sum.Sum(nil)
	b, err = s.bytes(sha256.Size)
	switch {
	case err != nil:
		return h, err
	case !bytes.Equal(b, want):
		return h, fmt.Errorf("%w: wrong checksum", ErrMalformed)
	case count != n.rows:
		return h, fmt.Errorf("%w: rows: got %d, want %d", ErrMalformed, n.rows, count)
	case n.state != h.State:
		return h, fmt.Errorf("%w: wrong state hash", ErrMalformed)
	case n.tokens != h.Tokens || n.grants != h.Grants || n.clients != h.Clients || n.cutoffs != h.Cutoffs ||
		n.tombstones != h.Tombstones || n.events != h.Events || n.audits != h.Audits || n.cluster != h.ClusterID ||
		namedCommands(n.commands) != h.Commands:
		return h, fmt.Errorf("%w: header does not match the rows", ErrMalformed)
	}
	if k, err := s.r.Read(make([]byte, 1)); k != 0 {
		return h, fmt.Errorf("%w: bytes after the end", ErrMalformed)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	h.Rows, h.Bytes = count, s.n
	return h, nil
}

// A counter checks the encoding of every row and computes the counts of the header.
type counter struct {
	state                                              rows.StateHash
	rows, tokens, grants, clients, cutoffs, tombstones uint64
	events, audits                                     uint64
	cluster                                            string
	commands                                           uint64 // command version in the version row
}

// count parses one row. A row of a family that the header does not count is only checked. Restore
// derives further rows from the rows of a snapshot, so count must reject malformed ones.
func (n *counter) count(key, val []byte) (err error) {
	n.rows++
	n.state.Add(key, val)
	id := string(key[1:])
	switch family := key[0]; family {
	case rows.FamilyToken, rows.FamilyTombstone, rows.FamilyDenial, rows.FamilyAssertion:
		if len(id) != len(revoked.Digest{}) {
			return fmt.Errorf("key with a malformed digest: %w", rows.ErrRow)
		}
		if family == rows.FamilyDenial {
			err = rows.Parse(key, val, new(rows.Denial))
			break
		}
		if family == rows.FamilyAssertion {
			err = rows.Parse(key, val, new(rows.Assertion))
			break
		}
		if family == rows.FamilyTombstone {
			err = rows.Parse(key, val, new(rows.Tombstone))
			n.tombstones++
			break
		}
		var t revoked.Token
		if t, err = rows.ParseToken(revoked.Digest(key[1:]), val); err == nil && t.State == revoked.Live {
			n.tokens++
		}
	case rows.FamilyGrant:
		var g rows.Grant
		if g, err = rows.ParseGrant(id, val); err == nil && g.Revoked == nil {
			n.grants++
		}
	case rows.FamilyClient:
		_, err = rows.ParseClient(id, val)
		n.clients++
	case rows.FamilyCutoff:
		err = rows.Parse(key, val, new(rows.Cutoff))
		n.cutoffs++
	case rows.FamilyEvent:
		err = rows.Parse(key, val, new(rows.Event))
		n.events++
	case rows.FamilyAudit:
		err = rows.Parse(key, val, new(rows.Audit))
		n.audits++
	case rows.FamilyDeleted:
		err = rows.Parse(key, val, new(rows.Deleted))
	case rows.FamilyAdmission:
		_, err = rows.ParseAdmission(key, val)
	case rows.FamilyJoinToken:
		_, err = rows.ParseJoinToken(key, val)
	case rows.FamilyDenials:
		err = rows.Parse(key, val, new(rows.Denials))
	case rows.FamilyIssuer:
		_, err = rows.ParseIssuer(id, val)
	case rows.FamilyVersion:
		var v rows.Version
		err = rows.Parse(key, val, &v)
		n.commands = v.Commands
	case rows.FamilySettings:
		_, err = rows.ParseSettings(val)
	case rows.FamilyCluster:
		n.cluster = string(val)
	}
	return err
}
