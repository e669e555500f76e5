package tokens

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"

	"revoked"
	"revoked/api/request"
)

// maxForm limits the body of an OAuth request, and a query that carries its parameters, in bytes.
const maxForm = 16 << 10

// Sizes of the buffers of forms, in bytes. A request whose body does not arrive occupies a buffer,
// so the first buffer of a request is small. The pool keeps buffers up to the size of a form with a
// large JWT.
const (
	firstForm  = 512
	pooledForm = 4 << 10
)

// The known parameters of an OAuth request. Each may occur once; unknown ones are ignored however
// often they occur (RFC 6749 sections 3.1 and 3.2).
const (
	paramToken = iota
	paramHint
	paramClientID
	paramClientSecret
	paramAssertion
	paramAssertionType
	params
)

// paramNumber returns the number of a parameter, or params for an unknown one.
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

// A form is a decoded application/x-www-form-urlencoded body or query. Its values are slices of the
// bytes that it was decoded from.
type form struct {
	values [params][]byte // empty: absent (RFC 6749 section 3.1)
	seen   [params]int
}

// decode reads raw in place. It returns false for an invalid escape or a semicolon. Repeated
// parameters are reported by [form.repeated].
func (f *form) decode(raw []byte) bool {
	for len(raw) > 0 {
		var pair []byte
		pair, raw, _ = bytes.Cut(raw, []byte{'&'})
		if len(pair) == 0 {
			continue
		}
		if bytes.IndexByte(pair, ';') >= 0 {
			return false
		}
		name, value, _ := bytes.Cut(pair, []byte{'='})
		name, ok1 := unescape(name)
		value, ok2 := unescape(value)
		if !ok1 || !ok2 {
			return false
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
	return true
}

// unescape decodes percent escapes and "+" for a space in place. It reports whether every escape is
// well-formed.
func unescape(b []byte) ([]byte, bool) {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b, true
	}
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch c {
		case '%':
			if _, err := hex.Decode(b[n:n+1], b[i+1:min(i+3, len(b))]); err != nil || i+2 >= len(b) {
				return nil, false
			}
			c = b[n]
			i += 2
		case '+':
			c = ' '
		}
		b[n] = c
		n++
	}
	return b[:n], true
}

// repeated reports whether a known parameter occurs more than once.
func (f *form) repeated() bool {
	for _, n := range f.seen {
		if n > 1 {
			return true
		}
	}
	return false
}

// credentials reports whether a parameter that identifies the caller has a value.
func (f *form) credentials() bool {
	return f.has(paramClientID) || f.has(paramClientSecret) || f.has(paramAssertion) || f.has(paramAssertionType)
}

// has reports whether the parameter has a value.
func (f *form) has(n int) bool { return len(f.values[n]) > 0 }

// presented returns the token.
func (f *form) presented() revoked.PresentedToken { return presented(f.values[paramToken]) }

// presented returns a raw token as a caller sent it. A JWT is a slice of raw, not a copy.
func presented(raw []byte) revoked.PresentedToken {
	p := revoked.PresentedToken{Digest: revoked.DigestToken(raw)}
	if revoked.HasThreeParts(raw) {
		p.JWT = raw
	}
	return p
}

// An oauthRequest is the content of a request to one of the two endpoints. Its form is in buf.
type oauthRequest struct {
	form
	buf   []byte
	query form
	out   []byte // the response
}

// acquire returns an empty oauthRequest from the pool.
func (e *Endpoints) acquire() *oauthRequest {
	if q, ok := e.forms.Get().(*oauthRequest); ok {
		return q
	}
	return &oauthRequest{buf: make([]byte, 0, firstForm)}
}

// release clears the input, including the token, and returns q to the pool.
func (e *Endpoints) release(q *oauthRequest) {
	clear(q.buf)
	*q = oauthRequest{buf: q.buf[:0], out: q.out[:0]}
	if cap(q.buf) <= pooledForm {
		e.forms.Put(q)
	}
}

// grow doubles the buffer, up to one byte more than a form may have, and clears the old one.
func (q *oauthRequest) grow() {
	old := q.buf
	q.buf = append(make([]byte, 0, min(2*cap(old), maxForm+1)), old...)
	clear(old)
}

// badForm returns the answer to a request that is malformed for every caller.
func badForm(status int, outcome, description string) error {
	return &request.Failure{Status: status, Title: description, Outcome: outcome}
}

// errNoToken is returned after authentication: bad credentials get 401 even without a token.
var errNoToken = badForm(http.StatusBadRequest, "no_token", "the token is missing")

// read reads a request into q. It checks the request in the order that the API contract requires:
// method, content type, size, decoding, repeated parameters.
func (e *Endpoints) read(r *http.Request, q *oauthRequest) error {
	const bad = http.StatusBadRequest
	switch {
	case r.Method == http.MethodPost:
		if err := readForm(r, q); err != nil {
			return err
		}
		switch {
		case !q.form.decode(q.buf):
			return badForm(bad, "undecodable", "the body is not a well-formed form")
		case !q.query.decode([]byte(r.URL.RawQuery)):
			return badForm(bad, "undecodable", "the query is not well-formed")
		case q.query.has(paramToken) || q.query.credentials():
			return badForm(bad, "query", "token and credentials belong in the body")
		case q.query.repeated() || q.query.has(paramHint) && q.seen[paramHint] > 0:
			return badForm(bad, "repeated", "a parameter is repeated")
		}
	case r.Method == http.MethodGet && !e.cfg.RequirePost:
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			return badForm(bad, "body", "GET must not have a body")
		}
		if len(r.URL.RawQuery) > maxForm {
			return badForm(http.StatusRequestEntityTooLarge, "too_large", "the request is too large")
		}
		q.buf = append(q.buf[:0], r.URL.RawQuery...)
		switch {
		case !q.form.decode(q.buf):
			return badForm(bad, "undecodable", "the query is not well-formed")
		case q.credentials():
			return badForm(bad, "query", "credentials never belong in the query")
		}
	default:
		return &request.Failure{Status: http.StatusMethodNotAllowed, Title: "method not allowed", Outcome: "method",
			Allow: e.Methods()}
	}
	if q.form.repeated() {
		return badForm(bad, "repeated", "a parameter is repeated")
	}
	return nil
}

// readForm checks the content type and reads the body into q.buf.
func readForm(r *http.Request, q *oauthRequest) error {
	types := r.Header["Content-Type"]
	if len(types) != 1 || !isForm(types[0]) {
		return badForm(http.StatusBadRequest, "content_type", "the content type must be application/x-www-form-urlencoded")
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return badForm(http.StatusUnsupportedMediaType, "content_encoding", "content encodings are not supported")
	}
	tooLarge := r.ContentLength > maxForm
	for !tooLarge {
		if len(q.buf) == cap(q.buf) {
			q.grow()
		}
		n, err := r.Body.Read(q.buf[len(q.buf):cap(q.buf)])
		q.buf = q.buf[:len(q.buf)+n]
		tooLarge = len(q.buf) > maxForm
		switch {
		case tooLarge:
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return badForm(http.StatusBadRequest, "truncated", "the body is incomplete")
		}
	}
	return badForm(http.StatusRequestEntityTooLarge, "too_large", "the request is too large")
}

// isForm reports whether a content type is that of a form. It ignores parameters: some clients send
// a charset, which the content type of forms does not have.
func isForm(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded")
}
