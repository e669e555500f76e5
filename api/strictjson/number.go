package strictjson

import (
	"bytes"
	"strconv"

	"revoked"
)

// number reads a number (RFC 8259 section 6). The first integer bytes of text precede its
// fraction or exponent.
func (r *Reader) number() (text []byte, integer int, err error) {
	r.Peek()
	start := r.i
	digits := func() int {
		n := r.i
		for r.i < len(r.b) && r.b[r.i]-'0' < 10 {
			r.i++
		}
		return r.i - n
	}
	at := func(set string) bool {
		if r.i == len(r.b) || bytes.IndexByte([]byte(set), r.b[r.i]) < 0 {
			return false
		}
		r.i++
		return true
	}
	at("-")
	zero := r.i < len(r.b) && r.b[r.i] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		r.i = start
		return nil, 0, r.Fail("want a number")
	}
	integer = r.i - start
	if at(".") && digits() == 0 {
		return nil, 0, r.Fail("want a number")
	}
	if at("eE") {
		at("+-")
		if digits() == 0 {
			return nil, 0, r.Fail("want a number")
		}
	}
	// No value of the API needs that many digits.
	if r.i-start > 64 {
		return nil, 0, r.Fail("number with too many digits")
	}
	return r.b[start:r.i], integer, nil
}

// Uint reads a whole number from 0 to limit. It rejects 1.0 and 1e3: a count has digits only.
func (r *Reader) Uint(limit uint64) (uint64, error) {
	b, integer, err := r.number()
	if err != nil {
		return 0, err
	}
	n, perr := strconv.ParseUint(string(b), 10, 64)
	if integer != len(b) || perr != nil || n > limit {
		return 0, r.Fail("want a whole number from 0 to " + strconv.FormatUint(limit, 10))
	}
	return n, nil
}

// lastSecond is the end of the year 9999. A later time is a mistake, most often milliseconds.
const lastSecond = 253402300799

// Time reads a time in Unix seconds: above 0, up to the year 9999, with an optional fraction. It
// truncates to microseconds, the precision of [revoked.Time]. It reads decimals exactly, without
// float64, so that a caller gets back the digits that it sent. Only an exponent needs float64.
func (r *Reader) Time() (revoked.Time, error) {
	b, integer, err := r.number()
	if err != nil {
		return 0, err
	}
	whole, perr := strconv.ParseInt(string(b[:integer]), 10, 64)
	frac := b[integer:]
	var us int64
	switch {
	case bytes.ContainsAny(frac, "eE"):
		f, ferr := strconv.ParseFloat(string(b), 64)
		if ferr != nil || f > lastSecond {
			return 0, r.Fail("want seconds since 1970, above 0 and up to the year 9999")
		}
		whole, us = int64(f), int64((f-float64(int64(f)))*1e6)
	case len(frac) > 0:
		scale := int64(100_000)
		for _, c := range frac[1:] {
			us += int64(c-'0') * scale
			scale /= 10
		}
	}
	if perr != nil || whole > lastSecond || whole < 0 || b[0] == '-' || whole == 0 && us == 0 {
		return 0, r.Fail("want seconds since 1970, above 0 and up to the year 9999")
	}
	return revoked.Time(whole*1e6 + us), nil
}
