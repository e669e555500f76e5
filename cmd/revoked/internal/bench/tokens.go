package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	tokenLength  = 43 // length of a token: that of 256 random bits in base64url
	tokenDigits  = 10 // digits of a token's number, at the end of the token
	bulkSubjects = 5
)

// tokens generates the tokens of one run: pair n has an access token and a refresh token. Numbered
// tokens cost the same as random ones: the state machine sees only digests.
type tokens struct {
	run      string // random, so that a second run on the same cluster uses other tokens
	clientID string
	issued   int64
	subjects uint64 // pairs below this number belong to one of bulkSubjects subjects
	ends     int64  // if not 0, Unix time from which tokens expire, spread over expiryTime
}

// access and refresh return a token without its number.
func (t tokens) access() string  { return t.prefix("a") }
func (t tokens) refresh() string { return t.prefix("r") }

func (t tokens) prefix(kind string) string {
	p := "bench-" + kind + "-" + t.run + "-"
	return p + strings.Repeat("x", tokenLength-tokenDigits-len(p))
}

func (t tokens) subject(n uint64) string {
	if n < t.subjects {
		return t.bulk(n % bulkSubjects)
	}
	return "bench-" + t.run + "-s" + strconv.FormatUint(n, 10)
}

func (t tokens) bulk(k uint64) string {
	return "bench-" + t.run + "-bulk" + strconv.FormatUint(k, 10)
}

func form(prefix string, n uint64) []byte { return appendNumber([]byte("token="+prefix), n) }

func appendNumber(b []byte, n uint64) []byte { return fmt.Appendf(b, "%0*d", tokenDigits, n) }

// putNumber replaces the number at the end of b.
func putNumber(b []byte, n uint64) {
	for i := len(b) - 1; i >= len(b)-tokenDigits; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// registration appends the body that registers pair n.
func (t tokens) registration(b []byte, n uint64) []byte {
	token := func(kind, prefix string, life int64) {
		b = append(b, `,"`+kind+`":{"token":"`...)
		b = appendNumber(append(b, prefix...), n)
		b = strconv.AppendInt(append(b, `","issued_at":`...), t.issued, 10)
		b = strconv.AppendInt(append(b, `,"expires_at":`...), t.issued+life, 10)
		b = append(b, '}')
	}
	b = append(b, `{"client_id":"`+t.clientID+`","subject":"`+t.subject(n)+`","scope":"read write"`...)
	access, refresh := int64(24*3600), int64(30*24*3600)
	if t.ends != 0 {
		access = t.ends + int64(n%uint64(expiryTime/time.Second)) - t.issued
		refresh = access
	}
	token("access_token", t.access(), access)
	token("refresh_token", t.refresh(), refresh)
	return append(b, "}\n"...)
}

// A pairReader is an io.Reader that generates the pairs low to high - 1 as NDJSON.
type pairReader struct {
	tokens
	low, high uint64
	sent      *atomic.Uint64 // counts the pairs; may be nil
	buf, rest []byte
}

func (r *pairReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		r.buf = r.buf[:0]
		for ; r.low < r.high && len(r.buf) < 32<<10; r.low++ {
			r.buf = r.registration(r.buf, r.low)
			if r.sent != nil {
				r.sent.Add(1)
			}
		}
		r.rest = r.buf
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// A numbers function returns a function for one connection. That function returns the number of the
// next pair, and false at the end.
type numbers func(connection int) func() (uint64, bool)

// anyOf returns endless random numbers below n. Every connection of every load gets other numbers:
// a node answers from its cache if a token is asked again.
func anyOf(n uint64) numbers {
	return func(int) func() (uint64, bool) {
		return func() (uint64, bool) { return rand.Uint64N(n), true }
	}
}

// A pool returns each number from low to high - 1 once. It is safe for concurrent use.
type pool struct {
	low, high uint64
	taken     atomic.Uint64
}

func (p *pool) take() (uint64, bool) {
	n := p.low + p.taken.Add(1) - 1
	return n, n < p.high
}

func (p *pool) each(int) func() (uint64, bool) { return p.take }

// forms returns the bodies of a load: one form with a token per request.
func forms(prefix string, ns numbers) func(int) func() ([]byte, bool) {
	return func(connection int) func() ([]byte, bool) {
		body, next := form(prefix, 0), ns(connection)
		return func() ([]byte, bool) {
			n, ok := next()
			putNumber(body, n)
			return body, ok
		}
	}
}

func (t tokens) registrations(p *pool) func(int) func() ([]byte, bool) {
	return func(int) func() ([]byte, bool) {
		var body []byte
		return func() ([]byte, bool) {
			n, ok := p.take()
			body = t.registration(body[:0], n)
			return body, ok
		}
	}
}
