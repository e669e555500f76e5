package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the longest frame of a Stream, in bytes.
const MaxFrame = 1 << 20

// ErrTooLarge is returned for a frame, request or answer beyond its limit.
var ErrTooLarge = errors.New("too large")

// frameHeader is the length of a frame's header:
//
//	+--------+--------+--------+--------+----------------+
//	| length of the payload, big-endian | payload ...    |
//	+--------+--------+--------+--------+----------------+
const frameHeader = 4

// appendFrame appends the frame that holds payload to dst. ErrTooLarge beyond MaxFrame.
func appendFrame(dst, payload []byte) ([]byte, error) {
	if len(payload) > MaxFrame {
		return dst, fmt.Errorf("%w: frame of %d bytes, at most %d", ErrTooLarge, len(payload), MaxFrame)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...), nil
}

// readFrame reads one frame. io.EOF between two frames, io.ErrUnexpectedEOF within one, ErrTooLarge
// beyond MaxFrame. It never allocates more than the peer has sent, rounded up to 64 KiB.
func readFrame(r io.Reader) ([]byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return nil, fmt.Errorf("%w: frame of %d bytes, at most %d", ErrTooLarge, n, MaxFrame)
	}
	return readExactly(r, int(n))
}

// readExactly reads n bytes, growing with what has come rather than with what was announced.
func readExactly(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	buf := make([]byte, 0, min(n, step))
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(n, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		from := len(buf)
		buf = buf[:cap(buf)]
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
