package fsm

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// errRow is returned for a row whose bytes are not what this version writes.
var errRow = fmt.Errorf("row is %w", revoked.ErrDamaged)

// A rowReader takes values off the front of a row. After the first failure it is stuck and returns
// zero values; end tells. It never allocates more than the row holds.
type rowReader struct {
	b   []byte
	bad bool
}

func (r *rowReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *rowReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// take returns n bytes of the row itself.
func (r *rowReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *rowReader) bytes() []byte  { return r.take(r.uvarint()) }
func (r *rowReader) string() string { return string(r.bytes()) }

func (r *rowReader) digest() (d revoked.Digest) {
	copy(d[:], r.take(uint64(len(d))))
	return d
}

// time reads what appendTime wrote.
func (r *rowReader) time() revoked.Time {
	v := r.uvarint()
	t := revoked.Time(v >> 1)
	if v&1 == 0 {
		if t > revoked.MaxTime/1e6 {
			r.fail()
			return 0
		}
		t *= 1e6
	}
	return t
}

func (r *rowReader) strings() []string {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.fail()
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = r.string()
	}
	return s
}

func (r *rowReader) fail() { r.bad, r.b = true, nil }

// end returns an error unless the row was whole and nothing is left of it.
func (r *rowReader) end() error {
	if r.bad || len(r.b) != 0 {
		return errRow
	}
	return nil
}

// appendTime writes whole seconds in five bytes and anything else exactly: most token times are whole
// seconds. Negative times do not exist in rows.
func appendTime(b []byte, t revoked.Time) []byte {
	if t%1e6 == 0 {
		return binary.AppendUvarint(b, uint64(t/1e6)<<1)
	}
	return binary.AppendUvarint(b, uint64(t)<<1|1)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendStrings(b []byte, s []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	for _, v := range s {
		b = appendString(b, v)
	}
	return b
}
