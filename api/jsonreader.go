package api

import (
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"revoked"
)

// maxDepth is how deep a body may nest. Registrations need two levels, a cnf a few more.
const maxDepth = 16

// A jsonReader reads one JSON text (RFC 8259) that is held in memory. It is stricter than
// encoding/json: names match exactly, an unknown or repeated name is an error, and so are invalid
// UTF-8 and lone surrogates. Its errors wrap [revoked.ErrInvalid], say which field and which byte, and
// never quote the text: it may hold a token or a secret.
//
// encoding/json is not used for bodies because its errors quote their input, it takes any spelling of a
// name and the last of several equal ones, and it costs twice the time of all else that a bulk
// registration does here.
type jsonReader struct {
	b       []byte
	i       int
	depth   int
	field   string // innermost known field, for messages
	scratch []byte // unescaped strings
}

func (r *jsonReader) reset(b []byte) {
	r.b, r.i, r.depth, r.field = b, 0, 0, ""
}

// wipe forgets the text of strings that had to be unescaped.
func (r *jsonReader) wipe() { clear(r.scratch[:cap(r.scratch)]) }

func (r *jsonReader) fail(what string) error {
	if r.field != "" {
		return fmt.Errorf("%w: %s: %s (byte %d)", revoked.ErrInvalid, r.field, what, r.i)
	}
	return fmt.Errorf("%w: %s (byte %d)", revoked.ErrInvalid, what, r.i)
}

func (r *jsonReader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is no space, 0 at the end.
func (r *jsonReader) peek() byte {
	r.space()
	if r.i == len(r.b) {
		return 0
	}
	return r.b[r.i]
}

// end makes sure that nothing follows.
func (r *jsonReader) end() error {
	if r.peek() != 0 || r.i != len(r.b) {
		r.field = ""
		return r.fail("more than one JSON value")
	}
	return nil
}

// null consumes the literal null, if it comes next: the same as the absence of the field.
func (r *jsonReader) null() bool {
	if r.peek() == 'n' && len(r.b)-r.i >= 4 && string(r.b[r.i:r.i+4]) == "null" {
		r.i += 4
		return true
	}
	return false
}

// object reads an object. names are the fields it may have, at most 64; read is called for each that is
// there, at most once, with its place in names.
func (r *jsonReader) object(names []string, read func(k int) error) error {
	if r.peek() != '{' {
		return r.fail("want an object")
	}
	if r.depth++; r.depth > maxDepth {
		return r.fail("nested too deep")
	}
	r.i++
	outer := r.field
	var seen uint64
	for first := true; ; first = false {
		more, err := r.another(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		name, err := r.text(256)
		if err != nil {
			return err
		}
		k := indexName(names, name)
		if k < 0 {
			return r.fail("unknown field" + shownName(name))
		}
		r.field = names[k]
		if seen&(1<<k) != 0 {
			return r.fail("given twice")
		}
		seen |= 1 << k
		if r.peek() != ':' {
			return r.fail("want a colon")
		}
		r.i++
		if err := read(k); err != nil {
			return err
		}
		r.field = outer
	}
	r.i++
	r.depth--
	return nil
}

func indexName(names []string, name []byte) int {
	for i, n := range names {
		if n == string(name) {
			return i
		}
	}
	return -1
}

// shownName returns a name for a message if it is plainly a name: lower-case words, too short and too
// plain to be a token or a secret.
func shownName(name []byte) string {
	if len(name) == 0 || len(name) > 32 {
		return ""
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && c != '_' {
			return ""
		}
	}
	return " " + string(name)
}

// array reads an array of at most limit elements.
func (r *jsonReader) array(limit int, read func() error) error {
	if r.peek() != '[' {
		return r.fail("want an array")
	}
	if r.depth++; r.depth > maxDepth {
		return r.fail("nested too deep")
	}
	r.i++
	for n := 0; ; n++ {
		c := r.peek()
		if c == ']' && n == 0 {
			break
		}
		if n > 0 {
			if c == ']' {
				break
			}
			if c != ',' {
				return r.fail("want a comma or the end of the array")
			}
			r.i++
		}
		if n == limit {
			return r.fail("more than " + strconv.Itoa(limit) + " elements")
		}
		if err := read(); err != nil {
			return err
		}
	}
	r.i++
	r.depth--
	return nil
}

// text reads a string of at most limit bytes. What it returns is good until the next call.
func (r *jsonReader) text(limit int) ([]byte, error) {
	if r.peek() != '"' {
		return nil, r.fail("want a string")
	}
	r.i++
	start := r.i
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			s := r.b[start:i]
			r.i = i + 1
			return s, r.checkText(s, limit)
		case c == '\\':
			r.i = i
			return r.escaped(start, limit)
		case c < 0x20:
			r.i = i
			return nil, r.fail("control character in a string")
		}
	}
	r.i = len(r.b)
	return nil, r.fail("string without an end")
}

func (r *jsonReader) checkText(s []byte, limit int) error {
	if len(s) > limit {
		return r.fail("longer than " + strconv.Itoa(limit) + " bytes")
	}
	if !utf8.Valid(s) {
		return r.fail("not valid UTF-8")
	}
	return nil
}

// escaped reads the rest of a string that began at start and has an escape at r.i.
func (r *jsonReader) escaped(start, limit int) ([]byte, error) {
	s := append(r.scratch[:0], r.b[start:r.i]...)
	for r.i < len(r.b) {
		c := r.b[r.i]
		switch {
		case c == '"':
			r.i++
			r.scratch = s
			return s, r.checkText(s, limit)
		case c < 0x20:
			return nil, r.fail("control character in a string")
		case c != '\\':
			s = append(s, c)
			r.i++
			continue
		}
		if r.i+1 >= len(r.b) {
			break
		}
		c = r.b[r.i+1]
		r.i += 2
		switch c {
		case '"', '\\', '/':
			s = append(s, c)
		case 'b':
			s = append(s, '\b')
		case 'f':
			s = append(s, '\f')
		case 'n':
			s = append(s, '\n')
		case 'r':
			s = append(s, '\r')
		case 't':
			s = append(s, '\t')
		case 'u':
			u, err := r.unicode()
			if err != nil {
				return nil, err
			}
			s = utf8.AppendRune(s, u)
		default:
			return nil, r.fail("unknown escape in a string")
		}
	}
	r.i = len(r.b)
	return nil, r.fail("string without an end")
}

// unicode reads what follows a \u: one code point, of which the escapes of a surrogate pair make one.
func (r *jsonReader) unicode() (rune, error) {
	u, ok := r.hex4()
	if !ok {
		return 0, r.fail("bad escape in a string")
	}
	if !utf16.IsSurrogate(u) {
		return u, nil
	}
	if len(r.b)-r.i >= 2 && r.b[r.i] == '\\' && r.b[r.i+1] == 'u' {
		r.i += 2
		if low, ok := r.hex4(); ok {
			if p := utf16.DecodeRune(u, low); p != utf8.RuneError {
				return p, nil
			}
		}
	}
	return 0, r.fail("lone surrogate in a string")
}

func (r *jsonReader) hex4() (rune, bool) {
	if len(r.b)-r.i < 4 {
		return 0, false
	}
	var u rune
	for _, c := range r.b[r.i : r.i+4] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			u = u<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	r.i += 4
	return u, true
}

// boolean reads true or false.
func (r *jsonReader) boolean() (bool, error) {
	c := r.peek()
	rest := r.b[r.i:]
	switch {
	case c == 't' && len(rest) >= 4 && string(rest[:4]) == "true":
		r.i += 4
		return true, nil
	case c == 'f' && len(rest) >= 5 && string(rest[:5]) == "false":
		r.i += 5
		return false, nil
	}
	return false, r.fail("want true or false")
}

// skip reads any value and returns its bytes, at most limit.
func (r *jsonReader) skip(limit int) ([]byte, error) {
	r.space()
	start := r.i
	if err := r.value(); err != nil {
		return nil, err
	}
	if r.i-start > limit {
		return nil, r.fail("longer than " + strconv.Itoa(limit) + " bytes")
	}
	return r.b[start:r.i], nil
}

func (r *jsonReader) value() error {
	switch c := r.peek(); {
	case c == '{':
		return r.anyObject()
	case c == '[':
		return r.array(1<<(bits.UintSize-2), r.value)
	case c == '"':
		_, err := r.text(len(r.b))
		return err
	case c == 't' || c == 'f':
		_, err := r.boolean()
		return err
	case c == 'n' && r.null():
		return nil
	case c == '-' || c-'0' < 10:
		_, _, err := r.number()
		return err
	}
	return r.fail("want a JSON value")
}

// another moves to the next member of an object, over the comma before it; false at the object's end.
func (r *jsonReader) another(first bool) (bool, error) {
	switch c := r.peek(); {
	case c == '}':
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, r.fail("want a comma or the end of the object")
	}
	r.i++
	r.space()
	return true, nil
}

func (r *jsonReader) anyObject() error {
	if r.depth++; r.depth > maxDepth {
		return r.fail("nested too deep")
	}
	r.i++
	for first := true; ; first = false {
		more, err := r.another(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if _, err := r.text(len(r.b)); err != nil {
			return err
		}
		if r.peek() != ':' {
			return r.fail("want a colon")
		}
		r.i++
		if err := r.value(); err != nil {
			return err
		}
	}
	r.i++
	r.depth--
	return nil
}
