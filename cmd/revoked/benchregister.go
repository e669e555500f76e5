package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// benchTokens makes the tokens of one run. Pair n has an access token and a refresh token of 43
// characters each, as long as 256 random bits in base64url. They are told by their number: the state
// machine sees digests only, and a digest is as good as random.
type benchTokens struct {
	run      string // drawn for the run, so that a second one on the same cluster meets no old token
	clientID string
	issued   int64
	subjects uint64 // every pair below this number belongs to one of bulkSubjects subjects
}

const (
	tokenLength  = 43
	bulkSubjects = 5
)

// access returns the prefix of access tokens; the number follows.
func (t benchTokens) access() string { return t.prefix("a") }

// refresh returns the prefix of refresh tokens.
func (t benchTokens) refresh() string { return t.prefix("r") }

func (t benchTokens) prefix(kind string) string {
	p := "bench-" + kind + "-" + t.run + "-"
	for len(p) < tokenLength-tokenDigits {
		p += "x"
	}
	return p
}

// subject returns the subject of pair n.
func (t benchTokens) subject(n uint64) string {
	if n < t.subjects {
		return t.bulk(n % bulkSubjects)
	}
	return "bench-" + t.run + "-s" + strconv.FormatUint(n, 10)
}

func (t benchTokens) bulk(k uint64) string {
	return "bench-" + t.run + "-bulk" + strconv.FormatUint(k, 10)
}

// A pairReader is the NDJSON of the pairs from low up to high.
type pairReader struct {
	tokens    benchTokens
	low, high uint64
	access    string
	refresh   string
	buf       []byte
	rest      []byte
}

func newPairReader(t benchTokens, low, high uint64) *pairReader {
	return &pairReader{tokens: t, low: low, high: high, access: t.access(), refresh: t.refresh()}
}

func (r *pairReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		r.buf = r.buf[:0]
		for ; r.low < r.high && len(r.buf) < 32<<10; r.low++ {
			r.line(r.low)
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

// line appends the body of pair n.
func (r *pairReader) line(n uint64) {
	token := func(b []byte, prefix string, life int64) []byte {
		b = append(b, `{"token":"`...)
		b = append(b, prefix...)
		b = append(b, "0000000000"...)
		putDigits(b[len(b)-tokenDigits:], n)
		b = append(b, `","issued_at":`...)
		b = strconv.AppendInt(b, r.tokens.issued, 10)
		b = append(b, `,"expires_at":`...)
		b = strconv.AppendInt(b, r.tokens.issued+life, 10)
		return append(b, '}')
	}
	b := append(r.buf, `{"client_id":"`...)
	b = append(b, r.tokens.clientID...)
	b = append(b, `","subject":"`...)
	b = append(b, r.tokens.subject(n)...)
	b = append(b, `","scope":"read write","access_token":`...)
	b = token(b, r.access, 24*3600)
	b = append(b, `,"refresh_token":`...)
	b = token(b, r.refresh, 30*24*3600)
	r.buf = append(b, "}\n"...)
}

// register sends the pairs from low up to high, one stream a node, and returns how long it took. Every
// pair must be new.
func (c *benchCluster) register(ctx context.Context, t benchTokens, low, high uint64) (time.Duration, error) {
	streams := uint64(len(c.dev.Nodes))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, streams)
	start := time.Now()
	for i := range streams {
		from, to := low+(high-low)*i/streams, low+(high-low)*(i+1)/streams
		go func() {
			err := c.registerAll(ctx, int(i), t, from, to)
			if err != nil {
				cancel(err)
			}
			done <- err
		}()
	}
	for range streams {
		<-done
	}
	return time.Since(start), context.Cause(ctx)
}

// registerAll sends the pairs from low up to high to node i, again where some failed: those that are
// known already stay as they are.
func (c *benchCluster) registerAll(ctx context.Context, i int, t benchTokens, low, high uint64) error {
	const tries = 5
	var err error
	for range tries {
		if low == high {
			return nil
		}
		if err = c.registerStream(ctx, i, newPairReader(t, low, high), high-low); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// registerStream sends one stream to node i. It fails unless every pair is registered then.
func (c *benchCluster) registerStream(ctx context.Context, i int, pairs io.Reader, want uint64) error {
	resp, addr, err := c.client("issuer", i).open(ctx, call{
		what: "register pairs", method: http.MethodPost, path: "/v1/grants?results=errors",
		contentType: "application/x-ndjson", accept: "application/x-ndjson", stream: pairs,
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var failure string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var l resultLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("register pairs at %s: a result that is no JSON", addr)
		}
		switch {
		case l.Lines == nil:
			failure = first(failure, fmt.Sprintf("line %d: %s: %s", l.Line, printable(l.Error), printable(l.Detail)))
		case l.Registered+l.Known != want:
			return fmt.Errorf("register pairs at %s: %d of %d registered; %s", addr, l.Registered+l.Known, want, failure)
		default:
			return nil
		}
	}
	return fmt.Errorf("register pairs at %s: %w", addr, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}
