package cluster

import (
	"encoding/binary"
	"errors"
)

// maxFields limits the fields of a message. Messages of memberlist have at most 7.
const maxFields = 16

// errMsgpack is returned for bytes that are not a flat map of text and whole numbers. It does not
// name the position of the problem, because the sender is a program, not an operator.
var errMsgpack = errors.New("not a flat map")

// value is the value of a field: text or bytes, a number, a boolean or nothing.
type value struct {
	text   []byte
	number uint64
	isText bool
}

// flatMap reads one msgpack map of at most maxFields distinct text keys whose values are text,
// bytes, whole numbers, booleans or nil. memberlist encodes all its messages in this form. It
// returns the fields and the rest of b. All lengths fit b, and it allocates nothing that b does not
// contain.
func flatMap(b []byte) (fields map[string]value, rest []byte, err error) {
	n, b, err := mapLength(b)
	if err != nil {
		return nil, nil, err
	}
	fields = make(map[string]value, n)
	for range n {
		var k, v value
		if k, b, err = scalar(b); err != nil {
			return nil, nil, err
		}
		if v, b, err = scalar(b); err != nil {
			return nil, nil, err
		}
		if _, twice := fields[string(k.text)]; twice || !k.isText {
			return nil, nil, errMsgpack
		}
		fields[string(k.text)] = v
	}
	return fields, b, nil
}

// mapLength reads the header of a map. A map 32 is refused: no message has that many fields.
func mapLength(b []byte) (n int, rest []byte, err error) {
	switch {
	case len(b) >= 1 && b[0]&0xf0 == 0x80: // fixmap
		n, rest = int(b[0]&0x0f), b[1:]
	case len(b) >= 3 && b[0] == 0xde: // map 16
		n, rest = int(binary.BigEndian.Uint16(b[1:])), b[3:]
	default:
		return 0, nil, errMsgpack
	}
	if n > maxFields {
		return 0, nil, errMsgpack
	}
	return n, rest, nil
}

// scalar reads one value that contains no others.
func scalar(b []byte) (v value, rest []byte, err error) {
	if len(b) == 0 {
		return v, nil, errMsgpack
	}
	c, b := b[0], b[1:]
	switch {
	case c < 0x80: // positive fixint
		return value{number: uint64(c)}, b, nil
	case c >= 0xa0 && c < 0xc0: // fixstr
		return textOf(b, uint64(c&0x1f))
	case c == 0xc0, c == 0xc2, c == 0xc3: // nil, false, true
		return v, b, nil
	}
	// The other types begin with a big-endian number of 1, 2, 4 or 8 bytes.
	size := 0
	switch c {
	case 0xc4, 0xcc, 0xd0, 0xd9: // bin 8, uint 8, int 8, str 8
		size = 1
	case 0xc5, 0xcd, 0xd1, 0xda:
		size = 2
	case 0xc6, 0xce, 0xd2, 0xdb:
		size = 4
	case 0xcf, 0xd3: // uint 64, int 64
		size = 8
	}
	if size == 0 || len(b) < size {
		return v, nil, errMsgpack
	}
	var n uint64
	for _, x := range b[:size] {
		n = n<<8 | uint64(x)
	}
	b = b[size:]
	switch {
	case c <= 0xc6, c >= 0xd9: // bin, str
		return textOf(b, n)
	case c >= 0xd0 && n>>(8*size-1) == 1: // negative: no field of memberlist
		return v, nil, errMsgpack
	}
	return value{number: n}, b, nil
}

// textOf returns the first n bytes of b without a copy.
func textOf(b []byte, n uint64) (v value, rest []byte, err error) {
	if n > uint64(len(b)) {
		return v, nil, errMsgpack
	}
	return value{text: b[:n], isText: true}, b[n:], nil
}
