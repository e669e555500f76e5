package frames

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A kind is the first byte of a message.
type kind byte

// The kinds. The numbers are part of the protocol "revoked-frames/1": a change needs a new name.
const (
	kindHello   kind = 1  // first message of the accepting side: it has accepted the connection
	kindCall    kind = 2  // id, path, size of the body, first part of it
	kindAnswer  kind = 3  // id, status, code, size of the body, first part of it
	kindPart    kind = 4  // id, next part of the body of a call or an answer
	kindCancel  kind = 5  // id: the caller gave up
	kindAborted kind = 6  // id: the handler gave no answer
	kindPing    kind = 7  // answered with kindPong
	kindPong    kind = 8  // shows that the peer is alive
	kindStream  kind = 9  // path; first message of the dialing side: the connection becomes a stream
	kindAccept  kind = 10 // the stream is accepted
	kindFrame   kind = 11 // payload of a stream
)

const (
	maxPath    = 1 << 10              // length of a path, in bytes
	maxPart    = 64 << 10             // bytes of a body in one message, so that other messages can be sent between
	maxMessage = MaxFrame + 2*maxPath // size of a message, in bytes
)

// A message is one frame of a connection, big-endian:
//
//	kind    1 byte
//	id      8 bytes, of a call; kinds 2 to 6 have it
//	path    2 bytes of length, and its bytes; kinds 2 and 9
//	status  2 bytes, an HTTP status; kind 3
//	code    4 bytes, a revoked.Code; kind 3
//	size    4 bytes, of the whole body; kinds 2 and 3
//	body    the rest; kinds 2 to 4 and 11
type message struct {
	kind   kind
	id     uint64
	path   string
	status int
	code   uint32
	size   int
	body   []byte
}

func (k kind) hasID() bool   { return k >= kindCall && k <= kindAborted }
func (k kind) hasPath() bool { return k == kindCall || k == kindStream }
func (k kind) hasBody() bool { return k >= kindCall && k <= kindPart || k == kindFrame }

// append appends the frame of m to dst.
func (m *message) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(m.kind))
	if m.kind.hasID() {
		dst = binary.BigEndian.AppendUint64(dst, m.id)
	}
	if m.kind.hasPath() {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.path)))
		dst = append(dst, m.path...)
	}
	if m.kind == kindAnswer {
		dst = binary.BigEndian.AppendUint16(dst, uint16(m.status))
		dst = binary.BigEndian.AppendUint32(dst, m.code)
	}
	if m.kind == kindCall || m.kind == kindAnswer {
		dst = binary.BigEndian.AppendUint32(dst, uint32(m.size))
	}
	dst = append(dst, m.body...)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-header))
	return dst
}

// errMalformed ends the connection: the two sides no longer agree where a message begins.
var errMalformed = errors.New("malformed message")

// parse decodes a message that append has encoded, without the length. The body of the message
// shares the memory of b. parse does not panic, whatever b contains.
func parse(b []byte) (m message, err error) {
	take := func(n int) (field []byte) {
		if len(b) < n {
			err = errMalformed
			return make([]byte, n)
		}
		field, b = b[:n], b[n:]
		return field
	}
	m.kind = kind(take(1)[0])
	if m.kind < kindHello || m.kind > kindFrame {
		return m, fmt.Errorf("%w: unknown kind %d", errMalformed, m.kind)
	}
	if m.kind.hasID() {
		m.id = binary.BigEndian.Uint64(take(8))
	}
	if m.kind.hasPath() {
		n := int(binary.BigEndian.Uint16(take(2)))
		if n > maxPath {
			return m, fmt.Errorf("%w: path is too long (got %d bytes, want at most %d)", errMalformed, n, maxPath)
		}
		m.path = string(take(n))
	}
	if m.kind == kindAnswer {
		m.status = int(binary.BigEndian.Uint16(take(2)))
		m.code = binary.BigEndian.Uint32(take(4))
	}
	if m.kind == kindCall || m.kind == kindAnswer {
		m.size = int(binary.BigEndian.Uint32(take(4)))
	}
	switch {
	case err != nil:
	case m.kind.hasBody():
		m.body = b
	case len(b) > 0:
		err = fmt.Errorf("%w: %d bytes after the last field", errMalformed, len(b))
	}
	if err == nil && (m.kind == kindCall || m.kind == kindAnswer) && len(m.body) > m.size {
		err = fmt.Errorf("%w: first part of a body is too long (got %d bytes, want at most %d)",
			errMalformed, len(m.body), m.size)
	}
	return m, err
}

// A body collects the parts of the body of a call or an answer.
type body struct {
	size  int
	bytes []byte
}

// add appends a copy of a part and reports whether the body is complete.
func (b *body) add(part []byte) (whole bool, err error) {
	if len(b.bytes)+len(part) > b.size {
		return false, fmt.Errorf("%w: part of %d bytes after %d of the %d bytes of a body",
			errMalformed, len(part), len(b.bytes), b.size)
	}
	b.bytes = append(b.bytes, part...)
	return len(b.bytes) == b.size, nil
}
