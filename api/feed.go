package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

const (
	typeEventStream = "text/event-stream"
	feedPage        = 512     // events asked for at once
	feedMaxPage     = 1 << 20 // of one index, if it holds so many
	feedHeartbeat   = 15 * time.Second
	// feedIdle is how long a reader may leave its connection full before it is dropped.
	feedIdle = 30 * time.Second
)

// feedEvent is one event of the feed as JSON. Times are Unix seconds.
type feedEvent struct {
	Index        uint64            `json:"index"`
	Time         unixTime          `json:"time"`
	Kind         revoked.EventKind `json:"kind"`
	Digests      []string          `json:"digests,omitempty"`
	Selector     *revoked.Selector `json:"selector,omitempty"`
	IssuedBefore *unixTime         `json:"issued_before,omitempty"`
	Action       string            `json:"action,omitempty"`
	// Withheld: the selector has conditions more, which this reader may not see. What it shows
	// matches more than what was revoked.
	Withheld bool   `json:"withheld,omitempty"`
	Actor    string `json:"actor,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// A feedReader is one reader of the feed: where it stands, and what it may see.
type feedReader struct {
	a     *API
	who   *revoked.Client
	after uint64 // everything up to here was sent
	limit int
	sse   bool
	buf   []byte
}

// page reads the next events that the reader may see into r.buf, whole indexes only, up to index last,
// and moves r.after. more is false when the node holds nothing after r.after.
func (r *feedReader) page(ctx context.Context, last uint64) (more bool, err error) {
	r.buf = r.buf[:0]
	events, upTo, err := r.a.cfg.Backend.Events(ctx, r.after, r.limit)
	if err != nil {
		return false, err
	}
	if upTo <= r.after {
		if len(events) < r.limit {
			return false, nil
		}
		// One index holds more events than were asked for.
		if r.limit *= 2; r.limit > feedMaxPage {
			return false, fmt.Errorf("%w: more than %d events share an index", revoked.ErrOutcomeUnknown, feedMaxPage)
		}
		return true, nil
	}
	r.limit = feedPage
	upTo = min(upTo, last)
	for i := range events {
		e := &events[i]
		if e.Index > upTo {
			break
		}
		shown, ok := r.show(e)
		if !ok {
			continue
		}
		// Only the last event of an index carries its id: who stops in between gets all of it again.
		whole := i+1 == len(events) || events[i+1].Index != e.Index
		if err := r.append(&shown, whole); err != nil {
			return false, err
		}
	}
	r.after = upTo
	return true, nil
}

// show returns the event as the reader may see it. A resource server sees digests of tokens that it is
// an audience of, and no subjects, sessions or reasons.
func (r *feedReader) show(e *revoked.Event) (feedEvent, bool) {
	out := feedEvent{Index: e.Index, Time: unixTime(e.Time), Kind: e.Kind, Action: e.Action, Actor: e.Actor}
	sel := e.Selector
	admin := r.who.Has(revoked.RoleAdmin)
	if admin {
		out.Reason = e.Reason
	} else {
		out.Withheld = e.Kind == revoked.EventCutoff && (sel.Subject != "" || sel.Session != "")
		sel.Subject, sel.Session = "", ""
	}
	if !sel.IsZero() || e.Kind == revoked.EventCutoff {
		out.Selector = &sel
	}
	if e.Kind == revoked.EventCutoff {
		t := unixTime(e.IssuedBefore)
		out.IssuedBefore = &t
	}
	mine := r.who.HasAudiences()
	for i, d := range e.Digests {
		if !admin && i < len(e.Audiences) {
			t := revoked.Token{Audience: e.Audiences[i]}
			if !t.HasAudience(mine) {
				continue
			}
		}
		out.Digests = append(out.Digests, d.String())
	}
	return out, admin || len(e.Digests) == 0 || len(out.Digests) > 0
}

func (r *feedReader) append(e *feedEvent, whole bool) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if !r.sse {
		r.buf = append(append(r.buf, b...), '\n')
		return nil
	}
	if whole {
		r.buf = append(r.buf, "id: "...)
		r.buf = strconv.AppendUint(r.buf, e.Index, 10)
		r.buf = append(r.buf, '\n')
	}
	r.buf = append(r.buf, "event: "...)
	r.buf = append(r.buf, e.Kind...)
	r.buf = append(r.buf, "\ndata: "...)
	r.buf = append(r.buf, b...)
	r.buf = append(r.buf, "\n\n"...)
	return nil
}

// heartbeat says that the reader has everything up to r.after. In SSE it moves Last-Event-ID.
func (r *feedReader) heartbeat() []byte {
	if r.sse {
		return fmt.Appendf(r.buf[:0], ": heartbeat\nid: %d\n\n", r.after)
	}
	return fmt.Appendf(r.buf[:0], `{"index":%d,"kind":"heartbeat"}`+"\n", r.after)
}

// allowed reports whether who reads may still do so: clients change while a stream is open.
func (r *feedReader) allowed() bool {
	now, ok := r.a.cfg.Backend.Client(r.who.ID)
	if !ok || now.Disabled || !hasAny(now, []revoked.Role{revoked.RoleAdmin, revoked.RoleResourceServer}) {
		return false
	}
	r.who = now
	return true
}

// feedStart reads from where a request wants the feed. Last-Event-ID, which an SSE client sends when it
// comes back, goes before the parameter.
func feedStart(c echo.Context, sse bool) (uint64, error) {
	from := c.QueryParam("after")
	if id := c.Request().Header.Get("Last-Event-ID"); sse && id != "" {
		from = id
	}
	if from == "" {
		return 0, nil
	}
	after, err := strconv.ParseUint(from, 10, 64)
	if err != nil || from[0] == '+' {
		return 0, fmt.Errorf("%w: after must be an index, a whole number", revoked.ErrInvalid)
	}
	return after, nil
}

// wantsEvents reports whether server-sent events are asked for by name, and NDJSON is not liked better
// (RFC 9110, 12.5.1).
func wantsEvents(accept []string) bool {
	all := strings.Join(accept, ",")
	q := weight(all, typeEventStream)
	return q > 0 && q >= weight(all, typeNDJSON, "application/*", "*/*")
}

// weight returns the quality value of the first of the media ranges that accept holds, 0 where it holds none.
func weight(accept string, ranges ...string) float64 {
	for _, want := range ranges {
		for part := range strings.SplitSeq(accept, ",") {
			name, params, err := mime.ParseMediaType(part)
			if err != nil || name != want {
				continue
			}
			if q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64); err == nil {
				return q
			}
			return 1
		}
	}
	return 0
}

// getRevocations is GET /v1/revocations. As NDJSON it sends what is there now and ends, or goes on with
// ?follow=true; the header Revoked-Index says up to which index it was complete when it began. As SSE it
// goes on until the client leaves.
func (a *API) getRevocations(c echo.Context, open *endings) error {
	sse := wantsEvents(c.Request().Header.Values("Accept"))
	after, err := feedStart(c, sse)
	if err != nil {
		return a.problem(c, err)
	}
	follow := sse
	switch c.QueryParam("follow") {
	case "", "false":
	case "true":
		follow = true
	default:
		return a.problem(c, fmt.Errorf("%w: follow must be true or false", revoked.ErrInvalid))
	}
	ctx, cancel := open.context(c.Request())
	defer cancel()
	r := &feedReader{a: a, who: a.caller(c), after: after, limit: feedPage, sse: sse}
	target, err := a.feedEnd(ctx, after)
	if err != nil {
		return a.problem(c, err)
	}
	last := target
	if follow {
		last = ^uint64(0)
	}
	// The first page decides the status.
	more, err := r.page(ctx, last)
	if err != nil {
		return a.problem(c, err)
	}
	h := c.Response().Header()
	h.Set("Revoked-Index", strconv.FormatUint(target, 10))
	h.Set(echo.HeaderContentType, typeNDJSON)
	if sse {
		h.Set(echo.HeaderContentType, typeEventStream)
		h.Set("X-Accel-Buffering", "no") // nginx
	}
	c.Response().WriteHeader(http.StatusOK)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	s := newStream(c)
	s.idle = feedIdle
	if err := r.run(ctx, s, more, target, follow); err != nil {
		return a.endFeed(ctx, c, err)
	}
	return nil
}

// feedEnd returns the index up to which this node has the log, after or a higher one. A reader that was at
// another node may be ahead of this one, which then catches up first. The error is [revoked.ErrGone] for one
// that is ahead of the whole log: the cluster was restored from a backup, and what the reader waits for would
// be what comes long after it missed something.
func (a *API) feedEnd(ctx context.Context, after uint64) (uint64, error) {
	if end := a.cfg.Backend.NodeStatus(ctx).AppliedIndex; after <= end {
		return end, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	end, err := a.cfg.Backend.Newest(ctx)
	if err == nil && after > end {
		err = fmt.Errorf("%w: %d is ahead of the log, which ends at %d: start again from after=0", revoked.ErrGone, after, end)
	}
	return end, err
}

func (r *feedReader) run(ctx context.Context, s *stream, more bool, target uint64, follow bool) (err error) {
	last := target
	if follow {
		last = ^uint64(0)
		// An answer that has nothing yet must reach the client too: it waits for the status.
		if len(r.buf) == 0 {
			r.buf = r.heartbeat()
		}
	}
	for {
		if len(r.buf) > 0 {
			if _, err := s.Write(r.buf); err != nil {
				return err
			}
			if err := s.flush(); err != nil {
				return err
			}
		}
		switch {
		case !follow && (!more || r.after >= target):
			return nil
		case !more:
			if err := r.wait(ctx, s); err != nil {
				return err
			}
		}
		if !r.allowed() {
			return fmt.Errorf("%w: the reader may not read the feed any more", revoked.ErrForbidden)
		}
		if more, err = r.page(ctx, last); err != nil {
			return err
		}
	}
}

// wait returns when there may be something after r.after. Meanwhile it keeps the connection alive.
func (r *feedReader) wait(ctx context.Context, s *stream) error {
	for {
		wctx, cancel := context.WithTimeout(ctx, feedHeartbeat)
		err := r.a.cfg.Backend.WaitApplied(wctx, r.after+1)
		timedOut := wctx.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return nil
		case !timedOut:
			return err
		}
		if _, err := s.Write(r.heartbeat()); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		if !r.allowed() {
			return fmt.Errorf("%w: the reader may not read the feed any more", revoked.ErrForbidden)
		}
	}
}

// endFeed ends a feed that was begun. A reader that left, or a node that stops, is the normal end of a
// feed that follows; of anything else the reader must not think that it has all.
func (a *API) endFeed(ctx context.Context, c echo.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, revoked.ErrClosed) {
		return nil
	}
	a.note(c, a.answerFor(err).outcome)
	a.cfg.Log.Info("feed ended", "error", err)
	panic(http.ErrAbortHandler)
}
