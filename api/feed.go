package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
	"revoked/api/serve"
	"revoked/api/stream"
)

// Limits of the feed.
const (
	feedPage      = 512       // events per call to Backend.Events
	feedBytes     = 256 << 10 // bytes after which a page ends, at the end of an index
	feedMaxPage   = 1 << 20   // largest page: a page doubles while one index has more events
	feedHeartbeat = 15 * time.Second
	// feedIdle is how long a reader may leave its connection full before the node drops it.
	feedIdle = 30 * time.Second
)

// getRevocations serves GET /v1/revocations, the feed.
func (a *API) getRevocations(r *request.Request) error {
	return a.serveFeed(r, eventSource(a.cfg.Backend), nil)
}

// serveFeed answers with entries of a source. An NDJSON response ends after the existing entries,
// unless the query has ?follow=true. Server-sent events continue until the client disconnects.
//
// The header Revoked-Index is the index up to which the response was complete when it began.
// Revoked-Era is the era of all indexes in the response. The response has the entries after the
// index that the request names; begin, unless it is nil, replaces this index with a later one.
func (a *API) serveFeed(r *request.Request, src *feedSource, begin func(after uint64) (uint64, error)) error {
	sse := wantsEvents(r.Request().Header.Values("Accept"))
	from, err := feedStart(r, sse)
	if err != nil {
		return err
	}
	follow := sse
	switch r.QueryParam("follow") {
	case "", "false":
	case "true":
		follow = true
	default:
		return fmt.Errorf("%w: query parameter follow: want true or false", revoked.ErrInvalid)
	}
	if r.Request().Method != http.MethodHead {
		release, err := a.streams.feeds.take(r.Client.ID)
		if err != nil {
			return err
		}
		defer release()
	}
	ctx, cancel := serve.UntilShutdown(r.Request())
	defer cancel()
	if src.current && (r.Inner == nil || !r.Inner.Repeated) {
		a.catchUp(ctx)
	}
	era, target, err := a.feedEnd(ctx, from)
	if err != nil {
		return err
	}
	f := &feedReader{a: a, src: src, session: a.access.Open(r.Caller, src.roles...), client: r.Client, era: era,
		after: from.Index, last: target, follow: follow, limit: feedPage, left: src.most, sse: sse}
	if follow {
		f.last = math.MaxUint64
	}
	if begin != nil {
		if f.after, err = begin(f.after); err != nil {
			return err
		}
	}
	// The first page determines the status of the response.
	more, err := f.page(ctx)
	var ended *clientauth.EndedError
	if errors.As(err, &ended) {
		return fmt.Errorf("%w: %s", revoked.ErrActorChanged, ended.Reason)
	}
	if err != nil {
		return err
	}
	f.begin(r, target)
	if r.Request().Method == http.MethodHead {
		return nil
	}
	s := stream.New(r.Response(), r.Request(), feedIdle)
	err = f.run(ctx, s, more)
	if err == nil || ctx.Err() != nil || errors.Is(err, revoked.ErrClosed) {
		return nil // complete, or the reader disconnected, or the node shuts down
	}
	if errors.As(err, &ended) {
		r.Outcome = ended.Reason
		if f.end(s, ended.Reason) == nil && follow {
			return nil
		}
	}
	r.Outcome = cmp.Or(r.Outcome, request.OutcomeOf(err))
	a.cfg.Log.Info("feed aborted", "source", src.name, "error", err)
	panic(http.ErrAbortHandler) // so that the reader does not mistake a part of the feed for all of it
}

// catchUpTimeout bounds the wait of a reader for this node to catch up.
const catchUpTimeout = 2 * time.Second

// catchUp waits until this node has applied everything that was committed before the call. It gives
// up after a short time, so that a reader still gets this node's copy without a quorum.
func (a *API) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	_, _ = a.cfg.Backend.Newest(ctx)
}

// feedStart returns the position after which a request reads the feed. Last-Event-ID, which an SSE
// client sends when it reconnects, takes precedence over the parameter.
func feedStart(r *request.Request, sse bool) (revoked.Position, error) {
	from := r.QueryParam("after")
	if id := r.Request().Header.Get("Last-Event-ID"); sse && id != "" {
		from = id
	}
	if from == "" {
		return revoked.Position{}, nil
	}
	after, err := revoked.ParsePosition(from)
	if err != nil {
		return after, fmt.Errorf("%w: query parameter after: malformed (want ERA.INDEX or an index)", revoked.ErrInvalid)
	}
	return after, nil
}

// feedEnd returns the era of this node, and an index up to which this node has applied the log. The
// index is at least after.Index. A reader that comes from another node may be ahead of this node;
// feedEnd then waits until this node has caught up. It returns [revoked.ErrGone] if after has
// another era or is ahead of the whole log. In both cases the cluster was restored or recovered,
// and the reader would miss the cut-off of the restore.
func (a *API) feedEnd(ctx context.Context, after revoked.Position) (era string, end uint64, err error) {
	era, end = a.cfg.Backend.Era(), a.cfg.Backend.NodeStatus(ctx).AppliedIndex
	if era == "" || after.IsOf(era) && after.Index > end {
		ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
		defer cancel()
		if end, err = a.cfg.Backend.Newest(ctx); err != nil {
			return "", 0, err
		}
		era = a.cfg.Backend.Era() // a joining node has no era until it has the state
	}
	switch {
	case era == "":
		err = revoked.ErrNoCluster
	case !after.IsOf(era):
		err = fmt.Errorf("%w: the id has another era, because the cluster was restored or recovered: "+
			"load your full state again, then start again from after=0", revoked.ErrGone)
	case after.Index > end:
		err = fmt.Errorf("%w: %d is ahead of the log, which ends at %d: start again from after=0",
			revoked.ErrGone, after.Index, end)
	}
	return era, end, err
}

// wantsEvents reports whether Accept contains server-sent events, and does not prefer NDJSON
// (RFC 9110 section 12.5.1).
func wantsEvents(accept []string) bool {
	all := strings.Join(accept, ",")
	q := weight(all, stream.TypeEventStream)
	return q > 0 && q >= weight(all, stream.TypeNDJSON, "application/*", "*/*")
}

// weight returns the quality value of the first of ranges that accept contains, or 0 if accept does
// not contain any of them.
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

// A feedReader is the state of one reader of the feed. Only the goroutine of its request uses it.
//
// Invariant: buf and the bytes sent contain every event up to f.after that the reader may see, and
// no later event. So a reader that resumes from the last id or index does not miss any event.
type feedReader struct {
	a       *API
	src     *feedSource
	session *clientauth.Session
	client  *revoked.Client // current record of the reader, which decides which events it sees
	era     string          // era of the event ids; it never changes while a node runs
	after   uint64          // all events up to this index are in buf or sent
	last    uint64          // index after which no event is read
	follow  bool            // whether the reader waits for new events after the last page
	limit   int
	left    int  // number of entries that the response may still send; 0: no limit
	ended   bool // whether the response ends before any later entry
	sse     bool
	buf     []byte
	sent    time.Time // time at which the last bytes were sent; zero before the first
}

// page reads the next events that the reader may see into f.buf, in whole indexes, and moves
// f.after. more is false if the node has no event after f.after.
func (f *feedReader) page(ctx context.Context) (more bool, err error) {
	f.buf = nil // a waiting reader does not hold a buffer
	list, upTo, err := f.src.read(ctx, f.after, f.limit)
	if err != nil {
		return false, err
	}
	// The record is at least as new as the events, so a reader that was disabled gets no later event.
	if f.client, err = f.session.Client(); err != nil {
		return false, err
	}
	if upTo <= f.after {
		if list.count() < f.limit {
			return false, nil
		}
		// One index holds more events than the limit.
		if f.limit *= 2; f.limit > feedMaxPage {
			return false, fmt.Errorf("%w: more than %d events share an index", revoked.ErrOutcomeUnknown, feedMaxPage)
		}
		return true, nil
	}
	f.limit = feedPage
	f.after, err = f.fill(list, min(upTo, f.last))
	return !f.ended, err
}

// fill appends the entries up to the index upTo to buf. It returns the last index that buf holds
// completely. That index is below upTo if buf is full or the response ends.
func (f *feedReader) fill(list feedEntries, upTo uint64) (uint64, error) {
	last := f.after
	for i := range list.count() {
		index := list.index(i)
		switch {
		case f.ended && index != last:
			return last, nil
		case index > upTo:
			return upTo, nil
		}
		kind, view, ended := list.view(i, f.client)
		if ended {
			f.ended = true
			return max(f.after, index-1), nil
		}
		if view == nil {
			continue
		}
		// Only the last event of an index has its id. If a reader stops before that event, it gets
		// all events of the index again.
		whole := i+1 == list.count() || list.index(i+1) != index
		if err := f.append(index, kind, view, whole); err != nil {
			return 0, err
		}
		last = index
		if f.left > 0 {
			f.left--
			f.ended = f.left == 0
		}
		if whole && len(f.buf) >= feedBytes {
			f.limit = i + 1 // the next page probably has as many entries
			return index, nil
		}
	}
	return upTo, nil
}

// append appends one entry to buf. whole reports that the entry is the last one of its index. The
// id of such an entry moves the reader past the index.
func (f *feedReader) append(index uint64, kind string, view any, whole bool) error {
	b, err := json.Marshal(view)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if !f.sse {
		f.buf = append(append(f.buf, b...), '\n')
		return nil
	}
	id := ""
	if whole {
		id = f.id(index)
	}
	f.buf = stream.AppendEvent(f.buf, id, kind, b)
	return nil
}

// begin sends the header of the response, which is complete up to target.
func (f *feedReader) begin(r *request.Request, target uint64) {
	h := r.Response().Header()
	h.Set("Revoked-Era", f.era)
	h.Set("Revoked-Index", strconv.FormatUint(target, 10))
	h.Set(echo.HeaderContentType, stream.TypeNDJSON)
	if f.sse {
		h.Set(echo.HeaderContentType, stream.TypeEventStream)
		h.Set("X-Accel-Buffering", "no") // nginx
	}
	r.Response().WriteHeader(http.StatusOK)
}

// id returns the id of an SSE event, after which a reader may resume.
func (f *feedReader) id(index uint64) string {
	return revoked.Position{Era: f.era, Index: index}.String()
}

// heartbeat returns a line that confirms f.after. In SSE it moves Last-Event-ID.
func (f *feedReader) heartbeat() []byte {
	if f.sse {
		return stream.AppendHeartbeat(f.buf[:0], f.id(f.after))
	}
	return fmt.Appendf(f.buf[:0], `{"index":%d,"kind":"heartbeat"}`+"\n", f.after)
}

// end sends the last line of a stream that ends early. The reader then has all events up to the
// index of that line.
func (f *feedReader) end(s *stream.Stream, reason string) error {
	data := fmt.Appendf(nil, `{"index":%d,"kind":"end","reason":%q}`, f.after, reason)
	if f.sse {
		f.buf = stream.AppendEvent(f.buf[:0], f.id(f.after), "end", data)
	} else {
		f.buf = append(append(f.buf[:0], data...), '\n')
	}
	return f.send(s)
}

// run sends f.buf and the pages after it. It returns nil once it has sent the maximum for a
// response or, if follow is not set, all entries up to last. It returns the cause of ctx if ctx
// ends first.
func (f *feedReader) run(ctx context.Context, s *stream.Stream, more bool) (err error) {
	for {
		if f.follow && len(f.buf) == 0 && time.Since(f.sent) >= feedHeartbeat {
			f.buf = f.heartbeat() // the first heartbeat also sends the status
		}
		if err := f.send(s); err != nil {
			return err
		}
		switch {
		case f.ended, !f.follow && (!more || f.after >= f.last):
			return nil
		case !more:
			if err := f.wait(ctx); err != nil {
				return err
			}
		}
		if more, err = f.page(ctx); err != nil {
			return err
		}
	}
}

// send writes f.buf and flushes it. It blocks while the reader does not read, at most for feedIdle.
func (f *feedReader) send(s *stream.Stream) error {
	if len(f.buf) == 0 {
		return nil
	}
	if _, err := s.Write(f.buf); err != nil {
		return err
	}
	f.sent = time.Now()
	return s.Flush()
}

// wait blocks until there may be an event after f.after, a heartbeat is due or the credential ends.
// The heartbeat interval begins when bytes were last sent. An idle cluster commits entries without
// events all the time, which must not wake every reader. The page that run reads before a heartbeat
// moves f.after past these entries.
func (f *feedReader) wait(ctx context.Context) error {
	for {
		heartbeat := time.Until(f.sent.Add(feedHeartbeat))
		pause := min(heartbeat, f.session.Pause())
		due, cancel := context.WithTimeout(ctx, pause)
		err := f.src.wait(due, f.after)
		timedOut := due.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil || !timedOut:
			return err
		case pause >= heartbeat:
			return nil
		}
		if _, err := f.session.Client(); err != nil {
			return err
		}
	}
}
