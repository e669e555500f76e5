package strictjson

import (
	"bytes"
	"fmt"

	"revoked"
)

// A Reader reads one JSON text (RFC 8259) in memory. Each method reads the next value and returns
// an error that wraps [revoked.ErrInvalid] if the value has another type or exceeds its limit.
// After an error, call Reset. One goroutine may use a Reader; the zero value reads an empty text.
type Reader struct {
	b       []byte
	i       int // offset of the next byte
	depth   int
	field   string // innermost known field, for errors
	scratch []byte // unescaped strings
}

// Reset begins a new text. The reader keeps b until the next Reset. It ignores a byte order mark
// (RFC 8259 section 8.1), which some editors and shells write.
func (r *Reader) Reset(b []byte) {
	r.b, r.i, r.depth, r.field = b, 0, 0, ""
	if bytes.HasPrefix(b, bom) {
		r.i = len(bom)
	}
}

var bom = []byte("\ufeff")

// Wipe clears the copies of strings that had escapes. It does not clear the text, which belongs to
// the caller. Call it before the reader is kept for another request.
func (r *Reader) Wipe() { clear(r.scratch[:cap(r.scratch)]) }

// Fail returns an error that wraps [revoked.ErrInvalid] and names the current field and byte.
func (r *Reader) Fail(problem string) error {
	if r.field != "" {
		return fmt.Errorf("%w: %s: %s (byte %d)", revoked.ErrInvalid, r.field, problem, r.i)
	}
	return fmt.Errorf("%w: %s (byte %d)", revoked.ErrInvalid, problem, r.i)
}

// Peek returns the next byte after white space, or 0 at the end of the text.
func (r *Reader) Peek() byte {
	for ; r.i < len(r.b); r.i++ {
		if c := r.b[r.i]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// End returns an error unless only white space is left.
func (r *Reader) End() error {
	if r.Peek() != 0 || r.i != len(r.b) {
		r.field = ""
		return r.Fail("unexpected text after the JSON value")
	}
	return nil
}

// literal consumes word if it comes next, and reports whether it did.
func (r *Reader) literal(word string) bool {
	r.Peek()
	if len(r.b)-r.i < len(word) || string(r.b[r.i:r.i+len(word)]) != word {
		return false
	}
	r.i += len(word)
	return true
}

// Null consumes null if it comes next, and reports whether it did. Call it before another method to
// accept null for a field.
func (r *Reader) Null() bool { return r.literal("null") }

// Bool reads true or false.
func (r *Reader) Bool() (bool, error) {
	if r.literal("true") {
		return true, nil
	}
	if r.literal("false") {
		return false, nil
	}
	return false, r.Fail("want true or false")
}
