package api

import (
	"bytes"
	"fmt"

	"revoked"
)

// The parameters that this package knows. Each may come once; unknown ones are ignored however often
// they come (RFC 6749 sections 3.1 and 3.2).
const (
	paramToken = iota
	paramHint
	paramClientID
	paramClientSecret
	paramAssertion
	paramAssertionType
	params
)

// paramNumber returns the number of a parameter, params for one that is not known.
func paramNumber(name []byte) int {
	switch string(name) {
	case "token":
		return paramToken
	case "token_type_hint":
		return paramHint
	case "client_id":
		return paramClientID
	case "client_secret":
		return paramClientSecret
	case "client_assertion":
		return paramAssertion
	case "client_assertion_type":
		return paramAssertionType
	}
	return params
}

// A form is a decoded application/x-www-form-urlencoded body or query. Its values lie in the bytes it
// was decoded from.
type form struct {
	values [params][]byte // empty: absent (RFC 6749 section 3.1)
	seen   [params]int
}

// decode reads raw in place. It returns an error that wraps [revoked.ErrInvalid] for a bad escape or
// a semicolon anywhere; repeats are the caller's to judge, by [form.repeated].
func (f *form) decode(raw []byte) error {
	for len(raw) > 0 {
		var pair []byte
		pair, raw, _ = bytes.Cut(raw, []byte{'&'})
		if len(pair) == 0 {
			continue
		}
		if bytes.IndexByte(pair, ';') >= 0 {
			return fmt.Errorf("%w: semicolon in a form", revoked.ErrInvalid)
		}
		name, value, _ := bytes.Cut(pair, []byte{'='})
		name, ok1 := unescape(name, true)
		value, ok2 := unescape(value, true)
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: bad escape in a form", revoked.ErrInvalid)
		}
		n := paramNumber(name)
		if n == params {
			continue
		}
		f.seen[n]++
		if len(value) > 0 {
			f.values[n] = value
		}
	}
	return nil
}

// repeated reports whether a known parameter came more than once.
func (f *form) repeated() bool {
	for _, n := range f.seen {
		if n > 1 {
			return true
		}
	}
	return false
}

// credentials reports whether anything that says who asks has a value.
func (f *form) credentials() bool {
	return f.has(paramClientID) || f.has(paramClientSecret) || f.has(paramAssertion) || f.has(paramAssertionType)
}

// has reports whether the parameter has a value.
func (f *form) has(n int) bool { return len(f.values[n]) > 0 }
