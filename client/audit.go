package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An AuditEntry is one entry of the audit log.
type AuditEntry struct {
	Index        uint64         `json:"index"`
	Time         int64          `json:"time"` // Unix seconds
	Kind         string         `json:"kind"`
	Actor        string         `json:"actor"`
	ActorVersion uint64         `json:"actor_version"`
	Node         string         `json:"node"`
	RequestID    string         `json:"request_id"`
	Object       map[string]any `json:"object"` // ids by name; numbers are json.Number
	Reason       string         `json:"reason"`
	Outcome      string         `json:"outcome"` // done or refused
	Detail       string         `json:"detail"`
}

// An AuditQuery selects audit entries. Zero fields match any value.
type AuditQuery struct {
	After               string // ERA.INDEX
	Since, Until        string // Unix seconds or RFC 3339
	Kind, Actor, Object string
	Limit               int
}

func (q *AuditQuery) path(follow bool) string {
	v := url.Values{}
	for name, text := range map[string]string{
		"after": q.After, "since": q.Since, "until": q.Until, "kind": q.Kind, "actor": q.Actor, "object": q.Object,
	} {
		if text != "" {
			v.Set(name, text)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if follow {
		v.Set("follow", "true")
	}
	return "/v1/audit?" + v.Encode()
}

// Bounds of a stream that follows the audit log. The node sends a heartbeat every 15 s.
const (
	auditSilence = 45 * time.Second
	auditRetry   = time.Second
	maxAuditLine = 1 << 20
)

// errSilent ends a stream whose node no longer sends heartbeats.
var errSilent = errors.New("the node sent no heartbeat")

// Audit calls fn with each existing entry that q selects, in log order (GET /v1/audit). raw is the
// JSON of the entry, valid only during the call. Audit stops at the first error of fn and returns
// it.
func (c *Client) Audit(ctx context.Context, q AuditQuery, fn func(e AuditEntry, raw []byte) error) error {
	ended, err := c.readAudit(ctx, &auditCursor{AuditQuery: q}, false, fn)
	var own *fnError
	switch {
	case errors.As(err, &own):
		return own.error
	case err == nil && ended != "":
		return fmt.Errorf("read the audit log: the node ended the response: %s", ended)
	}
	return err
}

// FollowAudit is like Audit, but then waits for further entries until ctx ends, and returns its
// cause. If a node fails, it resumes at the next node and neither skips nor repeats an entry. It
// returns a *StatusError if no node accepts the caller, for example after the credential has ended.
func (c *Client) FollowAudit(ctx context.Context, q AuditQuery, fn func(e AuditEntry, raw []byte) error) error {
	at := &auditCursor{AuditQuery: q}
	for {
		_, err := c.readAudit(ctx, at, true, fn)
		var status *StatusError
		var own *fnError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &own):
			return own.error
		case errors.As(err, &status) && status.Status < http.StatusInternalServerError:
			return err
		case err == nil && (q.Until != "" || q.Limit > 0):
			return nil
		}
		select {
		case <-time.After(auditRetry):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// An fnError is an error of the caller's function.
type fnError struct{ error }

// An auditCursor is the position of a reader: it has all entries up to After of its query, and the
// first n of index.
type auditCursor struct {
	AuditQuery
	index uint64
	n     int
}

// readAudit reads one response and moves p past each entry that it passed to fn. If the node ended
// the response, it returns the reason in the last line.
func (c *Client) readAudit(
	ctx context.Context, p *auditCursor, follow bool, fn func(AuditEntry, []byte) error,
) (ended string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(auditSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	r := get("read the audit log", p.path(follow))
	r.accept = "application/x-ndjson"
	resp, addr, err := c.open(ctx, r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	era := resp.Header.Get("Revoked-Era")
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAuditLine)
	skip := p.n // entries of p.index that an earlier response had
	for lines.Scan() {
		silence.Reset(auditSilence)
		var e AuditEntry
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.UseNumber()
		if err := d.Decode(&e); err != nil {
			return "", fmt.Errorf("read the audit log at %s: %w", addr, ErrAnswer)
		}
		if e.Kind == "heartbeat" || e.Kind == "end" {
			p.complete(era, e.Index)
			if e.Kind == "end" {
				return e.Reason, nil
			}
			continue
		}
		switch {
		case e.Index == p.index && skip > 0:
			skip--
			continue
		case e.Index != p.index && p.index != 0:
			p.complete(era, p.index)
			skip = 0
		}
		p.index, p.n = e.Index, p.n+1
		if err := fn(e, lines.Bytes()); err != nil {
			return "", &fnError{err}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read the audit log at %s: %w", addr, cause(ctx, err))
	}
	return "", nil
}

// complete moves p past all entries up to index.
func (p *auditCursor) complete(era string, index uint64) {
	p.After, p.index, p.n = era+"."+strconv.FormatUint(index, 10), 0, 0
}
