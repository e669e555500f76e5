package jwt

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a JSON text. The reader is recursive, so the depth bounds its
// stack.
const maxDepth = 32

// errJSON is returned for a text that is not strict JSON. It never quotes the text.
var errJSON = errors.New("want JSON without repeated names, lone surrogates or control characters")

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

// A value is a JSON value. Its strings share the memory of the JSON text. So a string that outlives
// the request must be cloned, or it keeps the whole token in memory.
type value struct {
	kind    kind
	text    string // unescaped string of a text, or literal of a number
	raw     string // source of an object
	list    []value
	members []member
}

type member struct {
	name  string
	value value
}

// get returns the member of an object with the given name, or nil. A linear search is faster than a
// map for the few members of a token.
func (v *value) get(name string) *value {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value
		}
	}
	return nil
}

// parseObject reads a JSON text (RFC 8259) that is an object. Unlike encoding/json it rejects
// repeated names at any depth, invalid UTF-8, lone surrogates and control characters, including
// escaped ones.
//
// Two readers of one text must see the same claims. If a name is repeated, a parser that keeps the
// first value and one that keeps the last would disagree about the token.
func parseObject(s string) (value, error) {
	r := reader{s: s}
	v, err := r.value()
	if r.space(); err != nil || r.i != len(s) || v.kind != object {
		return value{}, errJSON
	}
	return v, nil
}

// A reader reads the JSON text s from offset i.
type reader struct {
	s     string
	i     int
	depth int
}

// space skips the four characters that RFC 8259 section 2 allows between tokens.
func (r *reader) space() {
	for r.i < len(r.s) && strings.IndexByte(" \t\r\n", r.s[r.i]) >= 0 {
		r.i++
	}
}

// next returns the next byte that is not a space, or 0 at the end.
func (r *reader) next() byte {
	if r.space(); r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

// value reads one value of any kind. It does not check the text after the value.
func (r *reader) value() (value, error) {
	switch c := r.next(); {
	case c == '{':
		return r.object()
	case c == '[':
		v := value{kind: array}
		err := r.group(']', func() error {
			e, err := r.value()
			v.list = append(v.list, e)
			return err
		})
		return v, err
	case c == '"':
		s, err := r.text()
		return value{kind: text, text: s}, err
	case c == '-' || c-'0' < 10:
		s, err := r.number()
		return value{kind: number, text: s}, err
	}
	for _, word := range [...]struct {
		s string
		k kind
	}{{"true", boolean}, {"false", boolean}, {"null", null}} {
		if strings.HasPrefix(r.s[r.i:], word.s) {
			r.i += len(word.s)
			return value{kind: word.k}, nil
		}
	}
	return value{}, errJSON
}

// object reads an object and rejects a repeated name. From 16 members on, it uses a map of names,
// so that a large object does not take quadratic time.
func (r *reader) object() (value, error) {
	v, start := value{kind: object}, r.i
	var seen map[string]bool // nil for a small object
	err := r.group('}', func() error {
		if r.next() != '"' {
			return errJSON
		}
		name, err := r.text()
		if err != nil || r.next() != ':' {
			return errJSON
		}
		if len(v.members) == 16 {
			seen = make(map[string]bool, 64)
			for _, m := range v.members {
				seen[m.name] = true
			}
		}
		if seen[name] || seen == nil && v.get(name) != nil {
			return errJSON
		}
		if seen != nil {
			seen[name] = true
		}
		r.i++
		e, err := r.value()
		v.members = append(v.members, member{name, e})
		return err
	})
	v.raw = r.s[start:r.i]
	return v, err
}

// group reads the delimiters and commas of an object or an array and calls read for each element.
func (r *reader) group(end byte, read func() error) error {
	if r.depth++; r.depth > maxDepth {
		return errJSON
	}
	defer func() { r.depth-- }()
	r.i++
	if r.next() == end {
		r.i++
		return nil
	}
	for {
		if err := read(); err != nil {
			return err
		}
		c := r.next()
		r.i++
		switch c {
		case ',':
		case end:
			return nil
		default:
			r.i-- // i may be past the end
			return errJSON
		}
	}
}

// number returns the literal of a number in the grammar of RFC 8259 section 6. It does not convert
// the literal, because a float64 would round a NumericDate.
func (r *reader) number() (string, error) {
	start := r.i
	digits := func() int {
		n := r.i
		for r.i < len(r.s) && r.s[r.i]-'0' < 10 {
			r.i++
		}
		return r.i - n
	}
	at := func(set string) bool {
		if r.i == len(r.s) || strings.IndexByte(set, r.s[r.i]) < 0 {
			return false
		}
		r.i++
		return true
	}
	at("-")
	zero := r.i < len(r.s) && r.s[r.i] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		return "", errJSON
	}
	if at(".") && digits() == 0 {
		return "", errJSON
	}
	if at("eE") {
		at("+-")
		if digits() == 0 {
			return "", errJSON
		}
	}
	return r.s[start:r.i], nil
}

// text reads a string. It copies only a string with escapes.
func (r *reader) text() (string, error) {
	r.i++
	start := r.i
	var unescaped []byte
	escaped := false
	for r.i < len(r.s) {
		at := r.i
		c, n := utf8.DecodeRuneInString(r.s[at:])
		switch {
		case c == '"':
			r.i++
			if escaped {
				return string(unescaped), nil
			}
			return r.s[start:at], nil
		case c == '\\':
			if !escaped {
				escaped, unescaped = true, append(unescaped, r.s[start:at]...)
			}
			e, err := r.escape()
			if err != nil || isControl(e) {
				return "", errJSON
			}
			unescaped = utf8.AppendRune(unescaped, e)
			continue
		case c == utf8.RuneError && n == 1 || isControl(c):
			return "", errJSON
		}
		r.i += n
		if escaped {
			unescaped = append(unescaped, r.s[at:r.i]...)
		}
	}
	return "", errJSON
}

// isControl reports whether c is a control character. It includes DEL and the C1 controls, which
// RFC 8259 allows, because logs and terminals interpret them.
func isControl(c rune) bool { return c < ' ' || 0x7f <= c && c <= 0x9f }

// escape reads one escape, or both escapes of a surrogate pair.
func (r *reader) escape() (rune, error) {
	if r.i+1 >= len(r.s) {
		return 0, errJSON
	}
	switch c := r.s[r.i+1]; c {
	case '"', '\\', '/':
		r.i += 2
		return rune(c), nil
	case 'u':
	default: // \b \f \n \r \t are control characters
		return 0, errJSON
	}
	c, err := r.hex()
	if err != nil || !utf16.IsSurrogate(c) {
		return c, err
	}
	low, err := r.hex()
	if c = utf16.DecodeRune(c, low); err != nil || c == utf8.RuneError {
		return 0, errJSON
	}
	return c, nil
}

// hex reads an escape of the form \uXXXX.
func (r *reader) hex() (rune, error) {
	if len(r.s)-r.i < 6 || r.s[r.i] != '\\' || r.s[r.i+1] != 'u' {
		return 0, errJSON
	}
	n, err := strconv.ParseUint(r.s[r.i+2:r.i+6], 16, 32)
	if err != nil {
		return 0, errJSON
	}
	r.i += 6
	return rune(n), nil
}

// lastSecond is the end of the year 9999 (RFC 3339).
const lastSecond = 253402300799

// wholeSeconds returns a NumericDate (RFC 7519 section 2) in whole seconds, computed in decimal and
// rounded down, or up if up is set. It returns false outside of the years 1970 to 9999.
func wholeSeconds(literal string, up bool) (int64, bool) {
	if len(literal) > 64 {
		return 0, false
	}
	positive, exponent := strings.TrimPrefix(literal, "-"), 0
	if k := strings.IndexAny(positive, "eE"); k >= 0 {
		e, err := strconv.Atoi(positive[k+1:])
		if err != nil || e < -1000 || e > 1000 {
			return 0, false
		}
		positive, exponent = positive[:k], e
	}
	whole, fraction, _ := strings.Cut(positive, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	point := len(whole) + exponent - (len(whole) + len(fraction) - len(digits)) // in digits
	switch {
	case digits == "":
		return 0, true
	case literal[0] == '-' || point > len("253402300799"):
		return 0, false
	}
	digits += strings.Repeat("0", max(0, point-len(digits)))
	cut := max(0, point)
	n, err := strconv.ParseInt("0"+digits[:cut], 10, 64)
	rest := strings.Trim(digits[cut:], "0") != ""
	if err != nil || n > lastSecond || n == lastSecond && rest {
		return 0, false
	}
	if rest && up {
		n++
	}
	return n, true
}
