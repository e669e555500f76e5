package strictjson

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"revoked/internal/textsafe"
)

// Text reads a string of at most limit bytes, counted after unescaping. The result is valid until
// the next call: it is a part of the text, or of scratch if the string has an escape. A caller that
// reads a secret must clear the result.
func (r *Reader) Text(limit int) ([]byte, error) {
	if r.Peek() != '"' {
		return nil, r.Fail("want a string")
	}
	r.i++
	start := r.i
	for i, c := range r.b[start:] {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		r.i = start + i
		switch c {
		case '"':
			r.i++
			s := r.b[start : start+i]
			return s, r.checkText(s, limit)
		case '\\':
			return r.escaped(start, limit)
		}
		return nil, r.Fail("control character in a string")
	}
	r.i = len(r.b)
	return nil, r.Fail("unterminated string")
}

// checkText returns an error for a string that is too long or not UTF-8 (RFC 8259 section 8.1).
func (r *Reader) checkText(s []byte, limit int) error {
	if len(s) > limit {
		return r.Fail("longer than " + strconv.Itoa(limit) + " bytes")
	}
	if !utf8.Valid(s) {
		return r.Fail("not valid UTF-8")
	}
	return nil
}

// escapes maps the byte after a backslash to the byte that it encodes, except \u.
var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped reads the rest of a string that began at start and has an escape at r.i.
//
// Invariant: s stays in scratch, so that Wipe clears every copy. An escape is never shorter than
// the character that it encodes. So the length of the rest of the text is always enough for
// scratch.
func (r *Reader) escaped(start, limit int) ([]byte, error) {
	if rest := len(r.b) - start; cap(r.scratch) < rest {
		r.Wipe()
		r.scratch = make([]byte, 0, rest)
	}
	s := append(r.scratch[:0], r.b[start:r.i]...)
	for r.i < len(r.b) {
		c := r.b[r.i]
		r.i++
		switch {
		case c == '"':
			return s, r.checkText(s, limit)
		case c < 0x20:
			r.i--
			return nil, r.Fail("control character in a string")
		case c != '\\':
			s = append(s, c)
			continue
		case r.i == len(r.b):
			return nil, r.Fail("unterminated string")
		}
		c = r.b[r.i]
		r.i++
		if plain, ok := escapes[c]; ok {
			s = append(s, plain)
			continue
		}
		if c != 'u' {
			return nil, r.Fail("unknown escape in a string")
		}
		u, err := r.unicode()
		if err != nil {
			return nil, err
		}
		s = utf8.AppendRune(s, u)
	}
	return nil, r.Fail("unterminated string")
}

// unicode reads the code point of a \u escape, from its digits on. A surrogate pair has a second
// escape.
func (r *Reader) unicode() (rune, error) {
	u, ok := r.hex4()
	if !ok {
		return 0, r.Fail("invalid escape in a string")
	}
	if !utf16.IsSurrogate(u) {
		return u, nil
	}
	if bytes.HasPrefix(r.b[r.i:], []byte(`\u`)) {
		r.i += 2
		if low, ok := r.hex4(); ok {
			if p := utf16.DecodeRune(u, low); p != utf8.RuneError {
				return p, nil
			}
		}
	}
	return 0, r.Fail("lone surrogate in a string")
}

// hex4 reads four hexadecimal digits. It consumes nothing if they are malformed.
func (r *Reader) hex4() (rune, bool) {
	if len(r.b)-r.i < 4 {
		return 0, false
	}
	var u [2]byte
	if _, err := hex.Decode(u[:], r.b[r.i:r.i+4]); err != nil {
		return 0, false
	}
	r.i += 4
	return rune(binary.BigEndian.Uint16(u[:])), true
}

// Line reads a string of at most limit bytes without control characters. It may be empty.
func (r *Reader) Line(limit int) (string, error) {
	b, err := r.Text(limit)
	if err == nil && !textsafe.Printable(b) {
		err = r.Fail("control character")
	}
	return string(b), err
}

// Name reads a string of 1 to limit bytes without control characters.
func (r *Reader) Name(limit int) (string, error) {
	s, err := r.Line(limit)
	if err == nil && s == "" {
		err = r.Fail("empty")
	}
	return s, err
}
