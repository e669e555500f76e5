package rows

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// ErrRow is returned for a row with bytes that this version does not write.
var ErrRow = fmt.Errorf("row is %w", revoked.ErrDamaged)

// A coder encodes a row or decodes one, so that one list of fields describes both directions.
// Encoding appends to b and does not write to the fields. Decoding takes values off the front of b.
// After the first failure every later field decodes to zero, and end returns ErrRow.
type coder struct {
	b        []byte
	key      []byte // key of the row being decoded
	decoding bool
	bad      bool
}

// A Row is a value with an encoding: one of the types of this package.
type Row interface{ code(c *coder) }

// Append appends the encoding of r.
func Append(b []byte, r Row) []byte {
	c := coder{b: b}
	r.code(&c)
	return c.b
}

// Parse decodes the row with that key into r, which must be zero.
func Parse(key, row []byte, r Row) error {
	c := coder{b: row, key: key, decoding: true}
	r.code(&c)
	if c.bad || len(c.b) != 0 {
		return fmt.Errorf("%T: %w", r, ErrRow)
	}
	return nil
}

// fail drops the rest of the row, so that every later field decodes to zero.
func (c *coder) fail() { c.bad, c.b = true, nil }

// end returns an error unless decoding consumed the whole row.
func (c *coder) end(kind string) error {
	if c.bad || len(c.b) != 0 {
		return fmt.Errorf("%s: %w", kind, ErrRow)
	}
	return nil
}

// version encodes the first byte of most rows, which is 1.
func (c *coder) version() {
	v := byte(1)
	if c.byte(&v); v != 1 {
		c.fail()
	}
}

// form encodes the first byte of a row that has several forms: a number from 1 to the argument
// most. A later program adds forms and keeps the bytes of the older ones, so a state does not
// depend on the program that wrote it.
func (c *coder) form(v *byte, most byte) {
	if c.byte(v); *v < 1 || *v > most {
		c.fail()
		*v = 1
	}
}

func (c *coder) byte(v *byte) {
	if !c.decoding {
		c.b = append(c.b, *v)
		return
	}
	if len(c.b) == 0 {
		c.fail()
		*v = 0
		return
	}
	*v, c.b = c.b[0], c.b[1:]
}

// bitsOf returns a number whose i-th bit is set if set[i] is true.
func bitsOf(set ...bool) (bits uint64) {
	for i, b := range set {
		if b {
			bits |= 1 << i
		}
	}
	return bits
}

// flag encodes or decodes a boolean as one byte.
func (c *coder) flag(v *bool) {
	var b byte
	if *v {
		b = 1
	}
	if c.byte(&b); b > 1 {
		c.fail()
	}
	if c.decoding {
		*v = b == 1
	}
}

func (c *coder) uvarint(values ...*uint64) {
	for _, v := range values {
		if !c.decoding {
			c.b = binary.AppendUvarint(c.b, *v)
			continue
		}
		*v = c.takeUvarint()
	}
}

func (c *coder) takeUvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// time encodes whole seconds in five bytes, and other times in more bytes, without loss. Most token
// times are whole seconds. Times in rows are never negative.
func (c *coder) time(values ...*revoked.Time) {
	for _, v := range values {
		if !c.decoding {
			c.b = appendTime(c.b, *v)
			continue
		}
		n := c.takeUvarint()
		if *v = revoked.Time(n >> 1); n&1 == 0 {
			if *v > revoked.MaxTime/1e6 {
				c.fail()
				*v = 0
			}
			*v *= 1e6
		}
	}
}

func appendTime(b []byte, t revoked.Time) []byte {
	if t%1e6 == 0 {
		return binary.AppendUvarint(b, uint64(t/1e6)<<1)
	}
	return binary.AppendUvarint(b, uint64(t)<<1|1)
}

// take returns the next n bytes of the row, without copying them.
func (c *coder) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// hash encodes the bytes as they are, without a length.
func (c *coder) hash(v *[32]byte) {
	if !c.decoding {
		c.b = append(c.b, v[:]...)
		return
	}
	copy(v[:], c.take(uint64(len(v))))
}

func (c *coder) digest(d *revoked.Digest) { c.hash((*[32]byte)(d)) }

func (c *coder) string(values ...*string) {
	for _, v := range values {
		if !c.decoding {
			c.b = appendString(c.b, *v)
			continue
		}
		*v = string(c.take(c.takeUvarint()))
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// bytes copies the values that it decodes. An empty value decodes to nil.
func (c *coder) bytes(values ...*[]byte) {
	for _, v := range values {
		if !c.decoding {
			c.b = appendBytes(c.b, *v)
			continue
		}
		*v = append([]byte(nil), c.take(c.takeUvarint())...)
	}
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// length encodes the length of a list whose elements take at least size bytes each.
func (c *coder) length(n, size int) int {
	v := uint64(n)
	c.uvarint(&v)
	if c.decoding && v > uint64(len(c.b)/size) {
		c.fail()
		return 0
	}
	return int(v)
}

// strings decodes an empty list to nil.
func (c *coder) strings(v *[]string) {
	n := c.length(len(*v), 1)
	if c.decoding && n > 0 {
		*v = make([]string, n)
	}
	for i := range *v {
		c.string(&(*v)[i])
	}
}

// AppendPair appends a key and a value in the format of a snapshot.
func AppendPair(b, key, val []byte) []byte { return appendBytes(appendBytes(b, key), val) }

// TakePair takes a key and a value off the front of b, without copying. It reports false for
// malformed bytes.
func TakePair(b []byte) (key, val, rest []byte, ok bool) {
	c := coder{b: b, decoding: true}
	key = c.take(c.takeUvarint())
	val = c.take(c.takeUvarint())
	return key, val, c.b, !c.bad
}
