package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"revoked"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/api/strictjson"
	"revoked/internal/retry"
)

// postRevocations serves POST /v1/revocations: a cut-off, or the revocation of a jti.
// An NDJSON body is a deny list.
func (a *API) postRevocations(r *request.Request) error {
	t, err := request.MediaType(r.Request(), request.TypeJSON, stream.TypeNDJSON)
	if err != nil {
		return err
	}
	if t == stream.TypeNDJSON {
		return a.denyLines(r)
	}
	req, err := decodeRevocation(r)
	r.Unaudited = req.DryRun
	r.Object.ClientID, r.Object.GrantID, r.Object.Issuer = req.ClientID, req.GrantID, req.Issuer
	if req.hasJTI {
		r.Kind = revoked.AuditJTIRevoke
	}
	if !req.hasJTI {
		err = cmp.Or(r.Client.Require(cutoffMakers...), err)
	}
	if err != nil {
		return err
	}
	if req.hasJTI {
		return a.revokeJTI(r, &req)
	}
	// Apply checks issued_before again, but a dry run does not reach Apply.
	settings := a.cfg.Backend.Settings()
	if err := settings.CheckIssuedBefore(req.IssuedBefore, revoked.TimeOf(a.cfg.Now())); err != nil {
		return err
	}
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	res, err := a.cfg.Backend.RevokeMatching(ctx, r.Actor(), req.CutoffRequest)
	if errors.Is(err, revoked.ErrExpectation) {
		f := request.FailureOf(r.Request().URL.Path, err)
		f.Matched = res.Matched
		return f
	}
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, request.IndexView{Index: res.Index, Matched: res.Matched})
}

// revokeJTI revokes a JWT that the request does not contain. Apply decides whether the caller may
// revoke it: the rights of the caller may have changed since this node read them.
func (a *API) revokeJTI(r *request.Request, req *revocationBody) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	index, err := a.cfg.Backend.RevokeJTI(ctx, r.Actor(), revoked.JTIRevocation{
		Issuer: req.Issuer, JTI: req.jti, ExpiresAt: req.expiresAt, Reason: req.Reason,
	})
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, request.IndexView{Index: index})
}

// A revocationBody is the body of POST /v1/revocations.
type revocationBody struct {
	revoked.CutoffRequest
	jti       string
	hasJTI    bool
	expiresAt revoked.Time
}

// decodeRevocation reads the body. It returns what it has read even with an error: the role that
// the body requires is checked first, and 403 takes precedence over 400.
func decodeRevocation(r *request.Request) (req revocationBody, err error) {
	err = r.Decode(request.TypesJSON,
		request.Into("client_id", &req.ClientID, request.Name(request.MaxID)),
		request.Into("subject", &req.Subject, request.Name(request.MaxID)),
		request.Into("session", &req.Session, request.Name(request.MaxID)),
		request.Into("grant_id", &req.GrantID, request.Name(request.MaxID)),
		request.Into("issuer", &req.Issuer, request.Name(request.MaxURI)),
		request.Into("jti", &req.jti, func(j *strictjson.Reader) (string, error) {
			req.hasJTI = true
			return j.Name(request.MaxID)
		}),
		request.Into("expires_at", &req.expiresAt, (*strictjson.Reader).Time),
		request.Into("issued_before", &req.IssuedBefore, (*strictjson.Reader).Time),
		request.Into("reason", &req.Reason, request.ReadReason),
		request.Into("dry_run", &req.DryRun, (*strictjson.Reader).Bool),
		request.Into("expect", &req.Expect, func(j *strictjson.Reader) (*int, error) {
			n, err := j.Uint(1 << 40)
			expect := int(n)
			return &expect, err
		}))
	if err == nil {
		err = req.check()
	}
	return req, err
}

// check refuses members that contradict each other.
func (b *revocationBody) check() error {
	only := revoked.Selector{Issuer: b.Issuer}
	switch {
	case !b.hasJTI && b.expiresAt != 0:
		return fmt.Errorf("%w: jti is missing: expires_at requires it", revoked.ErrInvalid)
	case !b.hasJTI && b.Selector.IsZero():
		return fmt.Errorf("%w: want at least one of client_id, subject, session, grant_id and issuer", revoked.ErrInvalid)
	case b.hasJTI && b.Issuer == "":
		return fmt.Errorf("%w: issuer is missing: jti requires it", revoked.ErrInvalid)
	case b.hasJTI && (b.Selector != only || b.IssuedBefore != 0):
		return fmt.Errorf("%w: want only issuer, expires_at and reason beside jti", revoked.ErrInvalid)
	case b.hasJTI && (b.DryRun || b.Expect != nil):
		return fmt.Errorf("%w: dry_run, expect: not allowed with a jti", revoked.ErrUnprocessable)
	}
	return nil
}

// denyLines serves POST /v1/revocations with an NDJSON body: a deny list with one jti per line.
func (a *API) denyLines(r *request.Request) error {
	return a.streamLines(r, request.MaxBody, func(l *lineStream) error {
		d := denyList{a: a, lineStream: l, pending: make(chan denyLine, denyBatch), done: make(chan struct{})}
		l.summary = d.counts
		go d.work()
		err := d.read()
		close(d.pending)
		<-d.done
		return err
	})
}

// denyBatch limits the lines of a deny list that one entry commits.
const denyBatch = 512

// A denyLine is a line of a deny list. err is set if the line is malformed.
type denyLine struct {
	n   int
	req revoked.JTIRevocation
	err error
}

// A denyList is a deny list that is being imported. One goroutine reads lines. Another one commits,
// in one entry, all lines that were read since its last commit. So a single line is not delayed,
// and entries are large when the cluster is slow.
type denyList struct {
	a *API
	*lineStream
	pending       chan denyLine
	done          chan struct{}
	total, failed int
	buf           []byte
}

// read sends the lines to the goroutine that runs [denyList.work], and blocks while that goroutine
// is behind by denyBatch lines. It returns the error that ended the body early, or nil.
func (d *denyList) read() error {
	for {
		line, tooLong, err := d.lines.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case tooLong:
			err = fmt.Errorf("%w: the line is longer than %d bytes", revoked.ErrInvalid, request.MaxBody)
		case stream.Blank(line):
			continue
		}
		next := denyLine{n: d.lines.Line(), err: err}
		if err == nil {
			next.req, next.err = decodeDenial(line)
		}
		d.pending <- next
	}
}

// decodeDenial reads a line. The only selectors of a line are the issuer and the jti.
func decodeDenial(line []byte) (revoked.JTIRevocation, error) {
	var req revocationBody
	err := request.DecodeObject(line, []request.Field{
		request.Into("issuer", &req.Issuer, request.Name(request.MaxURI)),
		request.Into("jti", &req.jti, func(j *strictjson.Reader) (string, error) {
			req.hasJTI = true
			return j.Name(request.MaxID)
		}),
		request.Into("expires_at", &req.expiresAt, (*strictjson.Reader).Time),
		request.Into("reason", &req.Reason, request.ReadReason),
	})
	switch {
	case err == nil && !req.hasJTI:
		err = fmt.Errorf("%w: jti is missing", revoked.ErrInvalid)
	case err == nil:
		err = req.check()
	}
	return revoked.JTIRevocation{Issuer: req.Issuer, JTI: req.jti, ExpiresAt: req.expiresAt, Reason: req.Reason}, err
}

// work commits lines until the last one. It runs concurrently with [denyList.read], and is the only
// writer of the results.
func (d *denyList) work() {
	defer close(d.done)
	for first := range d.pending {
		batch := []denyLine{first}
		for len(batch) < denyBatch && len(d.pending) > 0 {
			batch = append(batch, <-d.pending)
		}
		d.commit(batch)
	}
}

// commit revokes the tokens of a batch and writes a line for each, in the order of the body. An
// error of the whole entry applies to each of its lines.
func (d *denyList) commit(batch []denyLine) {
	var list []revoked.JTIRevocation
	for _, l := range batch {
		if l.err == nil {
			list = append(list, l.req)
		}
	}
	var results []error
	var index uint64
	var err error
	if len(list) > 0 {
		results, index, err = d.revoke(list)
	}
	d.buf = d.buf[:0]
	for _, l := range batch {
		d.total++
		failure := l.err
		if failure == nil {
			if failure = err; err == nil {
				failure, results = results[0], results[1:]
			}
		}
		switch {
		case failure != nil:
			d.failed++
			d.buf = request.AppendLineError(d.buf, failure, l.n)
		case !d.errorsOnly:
			d.buf = append(strconv.AppendUint(append(d.buf, `{"index":`...), index, 10), "}\n"...)
		}
	}
	_, _ = d.out.Write(d.buf) // an error also ends the body
}

// revoke commits a batch. It retries errors for which a retry is safe and may succeed.
func (d *denyList) revoke(list []revoked.JTIRevocation) (results []error, index uint64, err error) {
	tries := func(err error) int {
		if errors.Is(err, revoked.ErrOverloaded) || errors.Is(err, revoked.ErrActorChanged) ||
			errors.Is(err, revoked.ErrNoLeader) {
			return 5
		}
		return 1
	}
	err = retry.Do(d.ctx, 100*time.Millisecond, tries, func() error {
		client, err := d.session.Client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(d.ctx, d.a.cfg.RequestTimeout)
		defer cancel()
		by := d.session.Actor(client)
		by.RequestID = d.requestID
		results, index, err = d.a.cfg.Backend.RevokeJTIs(ctx, by, list)
		for _, result := range results {
			if errors.Is(result, revoked.ErrActorChanged) {
				return result
			}
		}
		if err == nil && len(results) != len(list) {
			err = fmt.Errorf("%w: number of results (got %d, want %d)", revoked.ErrOutcomeUnknown, len(results), len(list))
		}
		return err
	})
	return results, index, err
}

// counts returns the last line of an answer that contains only errors.
func (d *denyList) counts() []byte {
	return fmt.Appendf(nil, "{\"lines\":%d,\"revoked\":%d,\"failed\":%d}\n", d.total, d.total-d.failed, d.failed)
}
