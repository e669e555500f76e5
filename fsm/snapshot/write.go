package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"revoked/fsm/rows"
)

// Write writes the state in src, described by h, as a snapshot. The returned header also has Rows
// and Bytes. After an error, or the end of ctx, w has received part of the snapshot. Write uses
// memory for one block, whatever the size of the state.
func Write(ctx context.Context, src Source, h Header, w io.Writer) (Header, error) {
	head, err := h.encode()
	if err != nil {
		return h, fmt.Errorf("encode snapshot header: %w", err)
	}
	sw := &writer{w: w, sum: sha256.New()}
	sw.write([]byte(magic))
	sw.write(binary.BigEndian.AppendUint32(nil, version))
	sw.write(binary.BigEndian.AppendUint32(nil, uint32(len(head))))
	sw.write(head)
	for _, family := range rows.StateFamilies {
		err := src.Scan([]byte{family}, nil, func(key, val []byte) (bool, error) {
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

// A writer writes the parts of a stream and keeps its first error.
type writer struct {
	w     io.Writer
	sum   hash.Hash
	block []byte
	rows  uint64
	n     int64
	err   error
}

// write writes b and adds it to the checksum, unless an earlier write failed.
func (s *writer) write(b []byte) {
	if s.err != nil {
		return
	}
	s.sum.Write(b)
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.err = err
}

// row adds a row to the current block. A block may exceed blockTarget by one row.
func (s *writer) row(key, val []byte) {
	s.block = rows.AppendPair(s.block, key, val)
	s.rows++
	if len(s.block) >= blockTarget {
		s.endBlock()
	}
}

// endBlock writes the current block with its length and checksum. An empty block is not written:
// its length would end the stream. A block beyond maxBlock is an error here, because every reader
// would refuse it.
func (s *writer) endBlock() {
	if len(s.block) == 0 {
		return
	}
	if len(s.block) > maxBlock && s.err == nil {
		s.err = fmt.Errorf("block size: got %d bytes, want at most %d", len(s.block), maxBlock)
	}
	s.write(binary.BigEndian.AppendUint32(nil, uint32(len(s.block))))
	s.write(s.block)
	s.write(binary.BigEndian.AppendUint32(nil, crc32.Checksum(s.block, castagnoli)))
	s.block = s.block[:0]
}
