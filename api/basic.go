package api

import (
	"encoding/base64"
	"slices"
	"strings"
)

// maxBasic bounds the base64 text of Basic credentials.
const maxBasic = 8 << 10

// A credential is one reading of what a caller presented.
type credential struct{ id, secret string }

// maxSpellings is how many readings of an id, and of a secret, are tried: nine pairs at most.
const maxSpellings = 3

// decodeBasic reads the parameter of an Authorization header of scheme Basic. Clients spell id and
// secret each in a way of its own (form-encoded as RFC 6749 section 2.3.1 says, percent-encoded, with
// only the colon escaped, raw), so it returns every reading of the one with every reading of the other:
// the standard's first, those of an id together, none twice, none at all when the header is malformed.
// The pair is split at the first colon: a raw secret may hold more of them.
func decodeBasic(param string) []credential {
	if len(param) > maxBasic {
		return nil
	}
	var room [256]byte // on the stack, for all but the longest
	b, err := base64.StdEncoding.AppendDecode(room[:0], []byte(param))
	if err != nil {
		if b, err = base64.RawStdEncoding.AppendDecode(room[:0], []byte(param)); err != nil {
			return nil
		}
	}
	id, secret, ok := strings.Cut(string(b), ":")
	clear(b)
	if !ok || id == "" || secret == "" {
		return nil
	}
	if !strings.ContainsAny(id, "%+") && !strings.ContainsAny(secret, "%+") {
		return []credential{{id, secret}}
	}
	secrets := spellings(secret)
	readings := make([]credential, 0, maxSpellings*maxSpellings)
	for _, i := range spellings(id) {
		for _, s := range secrets {
			readings = append(readings, credential{i, s})
		}
	}
	return readings
}

// spellings returns the different texts that s may stand for, the standard's first. All four differ only
// where s has a plus sign, an escaped colon and another escape: the colon alone is not tried then.
func spellings(s string) []string {
	list := make([]string, 0, maxSpellings)
	for _, decode := range []func(string) (string, bool){decodeForm, decodePercent, asItIs, decodeColon} {
		if t, ok := decode(s); ok && len(list) < maxSpellings && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

func asItIs(s string) (string, bool) { return s, true }

func decodeForm(s string) (string, bool) {
	b, ok := unescape([]byte(s), true)
	return string(b), ok
}

func decodePercent(s string) (string, bool) {
	b, ok := unescape([]byte(s), false)
	return string(b), ok
}

func decodeColon(s string) (string, bool) {
	return strings.ReplaceAll(strings.ReplaceAll(s, "%3A", ":"), "%3a", ":"), true
}

// unescape decodes percent escapes, and with plus also "+" for a blank, in place. It reports whether
// every escape was well-formed.
func unescape(b []byte, plus bool) ([]byte, bool) {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '%':
			if i+2 >= len(b) {
				return nil, false
			}
			hi, ok1 := unhex(b[i+1])
			lo, ok2 := unhex(b[i+2])
			if !ok1 || !ok2 {
				return nil, false
			}
			c = hi<<4 | lo
			i += 2
		case c == '+' && plus:
			c = ' '
		}
		b[n] = c
		n++
	}
	return b[:n], true
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
