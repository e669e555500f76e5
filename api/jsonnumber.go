package api

import (
	"strconv"

	"revoked"
)

// number reads the bytes of a number and checks its grammar (RFC 8259 section 6). integer is how many
// bytes stand before its fraction or exponent.
func (r *jsonReader) number() (text []byte, integer int, err error) {
	r.space()
	start := r.i
	digits := func() int {
		n := r.i
		for r.i < len(r.b) && r.b[r.i]-'0' < 10 {
			r.i++
		}
		return r.i - n
	}
	at := func(set string) bool {
		for i := range len(set) {
			if r.i < len(r.b) && r.b[r.i] == set[i] {
				r.i++
				return true
			}
		}
		return false
	}
	at("-")
	zero := r.i < len(r.b) && r.b[r.i] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		r.i = start
		return nil, 0, r.fail("want a number")
	}
	integer = r.i - start
	if at(".") && digits() == 0 {
		return nil, 0, r.fail("want a number")
	}
	if at("eE") {
		at("+-")
		if digits() == 0 {
			return nil, 0, r.fail("want a number")
		}
	}
	if r.i-start > 64 {
		return nil, 0, r.fail("number with too many digits")
	}
	return r.b[start:r.i], integer, nil
}

// count reads a whole number from 0 to limit.
func (r *jsonReader) count(limit uint64) (uint64, error) {
	b, integer, err := r.number()
	if err != nil {
		return 0, err
	}
	n, perr := strconv.ParseUint(string(b), 10, 64)
	if integer != len(b) || perr != nil || n > limit {
		return 0, r.fail("want a whole number from 0 to " + strconv.FormatUint(limit, 10))
	}
	return n, nil
}

// lastSecond is the end of the year 9999: a later time is a mistake, most often milliseconds.
const lastSecond = 253402300799

// seconds reads a time: seconds since the Unix epoch, above 0, with a fraction if the sender likes.
// What is finer than a microsecond is dropped.
func (r *jsonReader) seconds() (revoked.Time, error) {
	b, integer, err := r.number()
	if err != nil {
		return 0, err
	}
	whole, perr := strconv.ParseInt(string(b[:integer]), 10, 64)
	frac := b[integer:]
	var us int64
	if len(frac) > 0 && (frac[0] != '.' || indexExponent(frac) >= 0) {
		f, ferr := strconv.ParseFloat(string(b), 64)
		if ferr != nil || f > lastSecond {
			return 0, r.fail("want seconds since 1970, up to the year 9999")
		}
		whole, us = int64(f), int64((f-float64(int64(f)))*1e6)
	} else if len(frac) > 0 {
		scale := int64(100_000)
		for _, c := range frac[1:] {
			us += int64(c-'0') * scale
			scale /= 10
		}
	}
	if perr != nil || whole > lastSecond || whole < 0 || b[0] == '-' || whole == 0 && us == 0 {
		return 0, r.fail("want seconds since 1970, above 0 and up to the year 9999")
	}
	return revoked.Time(whole*1e6 + us), nil
}

func indexExponent(b []byte) int {
	for i, c := range b {
		if c|0x20 == 'e' {
			return i
		}
	}
	return -1
}
