package fsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"
)

// The stream of a snapshot. All numbers are big-endian.
//
//	8      magic "RVKDSNAP"
//	4      version, 1
//	4      length of the head, at most maxHead
//	...    head: a SnapshotHead
//	blocks, each:
//	  4    length, 1 to maxBlock
//	  ...  rows: uvarint key length, key, uvarint value length, value; keys rise through all blocks
//	  4    CRC-32C of the rows
//	4      0: the end of the blocks
//	8      number of rows
//	32     SHA-256 of everything before it
//
// The rows are those of the state families (keys.go). The head's state_hash is the sum over them.
const (
	snapshotMagic   = "RVKDSNAP"
	snapshotVersion = 1
	maxHead         = 64 << 10
	maxBlock        = 4 << 20
	blockTarget     = 256 << 10 // a block is closed beyond it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeStream writes src as a snapshot. The same source always gives the same bytes.
func writeStream(ctx context.Context, src *source, w io.Writer) (SnapshotHeader, error) {
	h := src.head
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(h.message())
	if err != nil {
		return h, fmt.Errorf("encode snapshot head: %w", err)
	}
	sw := &streamWriter{w: w, sum: sha256.New()}
	sw.write([]byte(snapshotMagic))
	sw.write(binary.BigEndian.AppendUint32(nil, snapshotVersion))
	sw.write(binary.BigEndian.AppendUint32(nil, uint32(len(head))))
	sw.write(head)
	for _, fam := range stateFamilies {
		err := scanReader(src.db, []byte{fam}, []byte{fam}, func(key, val []byte) (bool, error) {
			sw.row(key, val)
			if sw.rows%1024 == 0 && ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			return sw.err == nil, sw.err
		})
		if err != nil {
			return h, fmt.Errorf("write snapshot: %w", err)
		}
	}
	sw.endBlock()
	sw.write(make([]byte, 4))
	sw.write(binary.BigEndian.AppendUint64(nil, sw.rows))
	sw.write(sw.sum.Sum(nil))
	h.Rows, h.Bytes = sw.rows, sw.n
	if sw.err != nil {
		return h, fmt.Errorf("write snapshot: %w", sw.err)
	}
	return h, nil
}

type streamWriter struct {
	w     io.Writer
	sum   hash.Hash
	block []byte
	rows  uint64
	n     int64
	err   error
}

func (s *streamWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	s.sum.Write(b)
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.err = err
}

func (s *streamWriter) row(key, val []byte) {
	s.block = appendBytes(appendBytes(s.block, key), val)
	s.rows++
	if len(s.block) >= blockTarget {
		s.endBlock()
	}
}

func (s *streamWriter) endBlock() {
	if len(s.block) == 0 {
		return
	}
	if len(s.block) > maxBlock && s.err == nil {
		s.err = fmt.Errorf("a block of %d bytes", len(s.block))
	}
	s.write(binary.BigEndian.AppendUint32(nil, uint32(len(s.block))))
	s.write(s.block)
	s.write(binary.BigEndian.AppendUint32(nil, crc32.Checksum(s.block, castagnoli)))
	s.block = s.block[:0]
}

// A streamReader reads and checks a snapshot. It takes no length on trust: memory grows with what has
// arrived.
type streamReader struct {
	r       io.Reader
	sum     hash.Hash
	n       int64
	block   bytes.Buffer
	lastKey []byte
}

func (s *streamReader) fixed(n int) ([]byte, error) {
	var b [16]byte
	m, err := io.ReadFull(s.r, b[:n])
	s.n += int64(m)
	if err != nil {
		return nil, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	}
	s.sum.Write(b[:n])
	return append([]byte(nil), b[:n]...), nil
}

func (s *streamReader) bytes(n uint32) ([]byte, error) {
	s.block.Reset()
	m, err := io.CopyN(&s.block, s.r, int64(n))
	s.n += m
	if err != nil {
		return nil, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	}
	s.sum.Write(s.block.Bytes())
	return s.block.Bytes(), nil
}

func (s *streamReader) uint32() (uint32, error) {
	b, err := s.fixed(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// readStream checks all of a snapshot: bounds, checksums, order and form of every row, the state hash
// and the counts of the head. fn (nil: nobody) gets every row before the end is known to be good: what
// it does with them must not be used unless readStream returns without an error.
func readStream(r io.Reader, fn func(key, val []byte) error) (SnapshotHeader, error) {
	s := &streamReader{r: r, sum: sha256.New()}
	h, err := s.head()
	if err != nil {
		return h, err
	}
	var sum stateSum
	var n counter
	for {
		size, err := s.uint32()
		if err != nil {
			return h, err
		}
		if size == 0 {
			break
		}
		if size > maxBlock {
			return h, fmt.Errorf("%w: a block of %d bytes", errSnapshot, size)
		}
		block, err := s.bytes(size)
		if err != nil {
			return h, err
		}
		want := crc32.Checksum(block, castagnoli)
		if err := s.rowsOf(block, func(key, val []byte) error {
			sum.add(key, val)
			if err := n.count(key, val); err != nil {
				return err
			}
			if fn == nil {
				return nil
			}
			return fn(key, val)
		}, func() error {
			got, err := s.uint32()
			if err == nil && got != want {
				err = fmt.Errorf("%w: the checksum of a block before byte %d is wrong", errSnapshot, s.n)
			}
			return err
		}); err != nil {
			return h, err
		}
	}
	return s.end(h, sum, &n)
}

func (s *streamReader) head() (SnapshotHeader, error) {
	magic, err := s.fixed(len(snapshotMagic))
	if err != nil {
		return SnapshotHeader{}, err
	}
	if string(magic) != snapshotMagic {
		return SnapshotHeader{}, fmt.Errorf("%w: it does not begin as one", errSnapshot)
	}
	version, err := s.uint32()
	if err != nil {
		return SnapshotHeader{}, err
	}
	if version != snapshotVersion {
		return SnapshotHeader{}, fmt.Errorf("%w: version %d is not known", errSnapshot, version)
	}
	size, err := s.uint32()
	if err != nil {
		return SnapshotHeader{}, err
	}
	if size > maxHead {
		return SnapshotHeader{}, fmt.Errorf("%w: a head of %d bytes", errSnapshot, size)
	}
	b, err := s.bytes(size)
	if err != nil {
		return SnapshotHeader{}, err
	}
	var m SnapshotHead
	if err := proto.Unmarshal(b, &m); err != nil {
		return SnapshotHeader{}, fmt.Errorf("%w: the head is malformed: %w", errSnapshot, err)
	}
	if err := known(&m); err != nil {
		return SnapshotHeader{}, err
	}
	return headerOf(&m)
}

// rowsOf checks a block's checksum first, then walks its rows.
func (s *streamReader) rowsOf(block []byte, fn func(key, val []byte) error, checksum func() error) error {
	if err := checksum(); err != nil {
		return err
	}
	r := rowReader{b: block}
	for len(r.b) > 0 {
		key, val := r.bytes(), r.bytes()
		if r.bad || len(key) == 0 || !isState(key[0]) {
			return fmt.Errorf("%w: a row before byte %d is malformed", errSnapshot, s.n)
		}
		if bytes.Compare(key, s.lastKey) <= 0 {
			return fmt.Errorf("%w: rows before byte %d are out of order", errSnapshot, s.n)
		}
		s.lastKey = append(s.lastKey[:0], key...)
		if err := fn(key, val); err != nil {
			return err
		}
	}
	return nil
}

func (s *streamReader) end(h SnapshotHeader, sum stateSum, n *counter) (SnapshotHeader, error) {
	b, err := s.fixed(8)
	if err != nil {
		return h, err
	}
	rows := binary.BigEndian.Uint64(b)
	want := s.sum.Sum(nil)
	var got [32]byte
	m, err := io.ReadFull(s.r, got[:])
	s.n += int64(m)
	switch {
	case err != nil:
		return h, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	case !bytes.Equal(got[:], want):
		return h, fmt.Errorf("%w: the checksum is wrong", errSnapshot)
	case rows != n.rows:
		return h, fmt.Errorf("%w: %d rows of %d", errSnapshot, n.rows, rows)
	case sum.bytes() != h.StateHash:
		return h, fmt.Errorf("%w: the state hash is wrong", errSnapshot)
	case n.tokens != h.Tokens || n.grants != h.Grants || n.clients != h.Clients || n.cutoffs != h.Cutoffs ||
		n.tombstones != h.Tombstones || n.events != h.Events || n.cluster != h.ClusterID:
		return h, fmt.Errorf("%w: the head does not tell what the rows hold", errSnapshot)
	}
	if k, err := s.r.Read(make([]byte, 1)); k != 0 {
		return h, fmt.Errorf("%w: something follows its end", errSnapshot)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	h.Rows, h.Bytes = rows, s.n
	return h, nil
}
