package frames

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the maximum payload of a stream's frame, in bytes.
const MaxFrame = 1 << 20

// ErrTooLarge is returned for a frame, a request or an answer beyond its limit.
var ErrTooLarge = errors.New("too large")

// header is the length of a frame's header:
//
//	+--------+--------+--------+--------+----------------+
//	| length of the payload, big-endian | payload ...    |
//	+--------+--------+--------+--------+----------------+
const header = 4

// Append appends a frame with payload to dst. It returns ErrTooLarge beyond MaxFrame.
func Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > MaxFrame {
		return dst, fmt.Errorf("%w: frame (got %d bytes, want at most %d)", ErrTooLarge, len(payload), MaxFrame)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...), nil
}

// Read reads one frame and returns its payload, which the caller owns. The error is io.EOF between
// two frames, io.ErrUnexpectedEOF within one, and ErrTooLarge beyond MaxFrame. It allocates at most
// twice the number of bytes that the peer has sent, or 64 KiB.
func Read(r io.Reader) ([]byte, error) {
	n, err := readLength(r, MaxFrame)
	if err != nil {
		return nil, err
	}
	return ReadExactly(r, n)
}

// readLength reads a header. It returns ErrTooLarge for a length beyond most.
func readLength(r io.Reader, most int) (int, error) {
	var head [header]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(most) {
		return 0, fmt.Errorf("%w: frame (got %d bytes, want at most %d)", ErrTooLarge, n, most)
	}
	return int(n), nil
}

// ReadExactly reads n bytes. Its buffer grows with the bytes received, not with n.
func ReadExactly(r io.Reader, n int) ([]byte, error) { return readInto(nil, r, n) }

// readInto is like ReadExactly, but reuses the memory of buf. The buffer grows by doubling, so an
// announced length whose bytes never arrive costs at most one step.
func readInto(buf []byte, r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	if buf = buf[:0]; cap(buf) == 0 {
		buf = make([]byte, 0, min(n, step))
	}
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(n, max(2*cap(buf), 512)))
			copy(grown, buf)
			buf = grown
		}
		from := len(buf)
		buf = buf[:min(cap(buf), n)]
		m, err := io.ReadFull(r, buf[from:])
		buf = buf[:from+m]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}
