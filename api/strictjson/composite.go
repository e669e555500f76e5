package strictjson

import (
	"math"
	"slices"
	"strconv"

	"revoked/internal/textsafe"
)

// maxDepth bounds nesting. A registration needs two levels, its cnf a few more.
const maxDepth = 16

// Object reads an object with the given field names, at most 64. It calls read at most once for
// each field, with the index of its name. A name that is unknown or repeated is an error. With a
// repeated name, a proxy and this server could act on different values (RFC 8259 section 4). read
// must consume exactly one value. After an error, r is in the middle of the text.
func (r *Reader) Object(names []string, read func(k int) error) error {
	outer := r.field
	var seen uint64
	return r.members(func(name []byte) error {
		k := slices.IndexFunc(names, func(n string) bool { return n == string(name) })
		if k < 0 {
			return r.Fail("unknown field" + shownName(name))
		}
		r.field = names[k]
		if seen&(1<<k) != 0 {
			return r.Fail("repeated")
		}
		seen |= 1 << k
		if err := r.colon(); err != nil {
			return err
		}
		if err := read(k); err != nil {
			return err
		}
		r.field = outer
		return nil
	})
}

// Strings reads an object of at most entries strings. Names have 1 to name bytes, values at most
// value bytes; neither may contain control characters. A repeated name is an error. The map is
// never nil, and its strings are copies that outlive the text.
func (r *Reader) Strings(entries, name, value int) (map[string]string, error) {
	m := map[string]string{}
	err := r.members(func(b []byte) error {
		k := string(b)
		if err := r.checkText(b, name); err != nil {
			return err
		}
		if _, repeated := m[k]; repeated || k == "" || !textsafe.Printable(k) {
			return r.Fail("repeated, empty or unprintable name")
		}
		if len(m) == entries {
			return r.Fail("more than " + strconv.Itoa(entries) + " members")
		}
		if err := r.colon(); err != nil {
			return err
		}
		s, err := r.Line(value)
		m[k] = s
		return err
	})
	return m, err
}

// members reads an object. It calls read for each member, between the name and the colon. name is
// valid until the next read of a string.
func (r *Reader) members(read func(name []byte) error) error {
	return r.group('{', '}', "object", func(int) error {
		name, err := r.Text(math.MaxInt)
		if err != nil {
			return err
		}
		return read(name)
	})
}

// colon consumes the colon between a name and its value.
func (r *Reader) colon() error {
	if r.Peek() != ':' {
		return r.Fail("want a colon")
	}
	r.i++
	return nil
}

// shownName returns the name for an error, after a space. It returns an empty text for a name that
// may be a token or a secret: one that is long or not plain.
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

// Array reads an array of at most limit elements and calls read for each. The limit is checked
// before the element that exceeds it is read, so a hostile array costs no more than a valid one.
func (r *Reader) Array(limit int, read func() error) error {
	return r.group('[', ']', "array", func(n int) error {
		if n == limit {
			return r.Fail("more than " + strconv.Itoa(limit) + " elements")
		}
		return read()
	})
}

// Names reads an array of at most elements names and drops repeated names. The list is never nil.
func (r *Reader) Names(elements, limit int) ([]string, error) {
	list := []string{}
	err := r.Array(elements, func() error {
		s, err := r.Name(limit)
		if err == nil && !slices.Contains(list, s) {
			list = append(list, s)
		}
		return err
	})
	return list, err
}

// group reads the delimiters and commas of an object or an array. It calls read for element n.
//
// Invariant: depth is the number of groups around the next byte. It bounds the recursion, and so
// the stack, whatever the caller sends.
func (r *Reader) group(begin, end byte, kind string, read func(n int) error) error {
	if r.Peek() != begin {
		return r.Fail("want an " + kind)
	}
	if r.depth++; r.depth > maxDepth {
		return r.Fail("nested too deeply")
	}
	r.i++
	for n := 0; ; n++ {
		c := r.Peek()
		if c == end {
			break
		}
		if n > 0 {
			if c != ',' {
				return r.Fail("want a comma or the end of the " + kind)
			}
			r.i++
		}
		if err := read(n); err != nil {
			return err
		}
	}
	r.i++
	r.depth--
	return nil
}

// Raw reads any value and returns its bytes, at most limit. They are a part of the text, in the
// form that the caller sent: unlike in Object, names may repeat. Clone them before the text is
// cleared.
func (r *Reader) Raw(limit int) ([]byte, error) {
	r.Peek()
	start := r.i
	if err := r.skip(); err != nil {
		return nil, err
	}
	if r.i-start > limit {
		return nil, r.Fail("longer than " + strconv.Itoa(limit) + " bytes")
	}
	return r.b[start:r.i], nil
}

// skip reads any value. Unlike Object it accepts repeated names.
func (r *Reader) skip() (err error) {
	switch c := r.Peek(); {
	case c == '{':
		return r.members(func([]byte) error {
			if err := r.colon(); err != nil {
				return err
			}
			return r.skip()
		})
	case c == '[':
		return r.Array(math.MaxInt, r.skip)
	case c == '"':
		_, err = r.Text(math.MaxInt)
	case c == 't' || c == 'f':
		_, err = r.Bool()
	case c == '-' || c-'0' < 10:
		_, _, err = r.number()
	case !r.Null():
		err = r.Fail("want a JSON value")
	}
	return err
}
