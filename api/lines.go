package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/internal/textsafe"
)

// A lineStream is a request whose body has one JSON object in each line, and the stream of results.
// session returns the current rights of the caller, because a stream may outlive the credential
// that opened it.
type lineStream struct {
	ctx        context.Context // ends when the client disconnects
	session    *clientauth.Session
	lines      *stream.LineReader
	out        io.Writer
	errorsOnly bool
	requestID  string
	summary    func() []byte // returns the last line of the results if errorsOnly is set
}

// streamLines serves an NDJSON body with lines of at most limit bytes. run reads the lines, writes
// the results, and returns the error that ended the body early. The status is always 200: it is
// sent before the lines are read. A client may send everything before it reads anything, because
// unread results wait in a [stream.Spool]. Once the spool is full, the body waits until the client
// reads.
func (a *API) streamLines(r *request.Request, limit int, run func(l *lineStream) error) error {
	results := r.QueryParam("results")
	if results != "" && results != "all" && results != "errors" {
		return request.Malformed("query parameter results: want all or errors")
	}
	release, err := a.streams.bulks.take(r.Client.ID)
	if err != nil {
		return err
	}
	defer release()
	s := stream.New(r.Response(), r.Request(), stream.Idle)
	if err := s.EnableFullDuplex(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Request().Context())
	session := a.access.Open(r.Caller, issuers...)
	var watch sync.WaitGroup
	watch.Go(func() { session.Watch(ctx, s.StopReading) })
	defer watch.Wait()
	defer cancel()
	lines := stream.NewLineReader(s, limit)
	// Read before the first write, so that a client that waits for 100 Continue gets it.
	if err := lines.WaitFirst(); err != nil {
		if _, ended := session.Client(); ended != nil {
			return fmt.Errorf("%w: %w", revoked.ErrActorChanged, ended)
		}
		return request.Malformed("the body could not be read")
	}
	r.Response().Header().Set(echo.HeaderContentType, stream.TypeNDJSON)
	r.Response().WriteHeader(http.StatusOK)

	out := stream.NewSpool(stream.SpoolConfig{
		Dir: a.cfg.TempDir, Limit: a.cfg.SpoolLimitPerRequest, Budget: a.streams.spools, Full: s.Stall,
		Failed: s.Abort,
	})
	defer out.Close() // even after a panic, so that Drain returns
	drained := make(chan error, 1)
	go func() {
		err := out.Drain(s, s.Flush)
		if err != nil {
			cancel()
			s.StopReading()
		}
		drained <- err
	}()
	l := &lineStream{ctx: ctx, session: session, lines: lines, out: out, errorsOnly: results == "errors",
		requestID: r.ID()}
	readErr := run(l)
	if readErr != nil {
		if _, ended := session.Client(); ended != nil {
			readErr = ended
		}
		_, _ = out.Write(request.AppendUnread(nil, readErr, lines.Line()))
	}
	if l.errorsOnly {
		_, _ = out.Write(l.summary())
	}
	out.Close()
	if err := <-drained; err != nil {
		a.bulkAborted(r, lines.Line(), err)
		panic(http.ErrAbortHandler) // so that the client does not mistake some of the results for all
	}
	var ended *clientauth.EndedError
	switch {
	case errors.As(readErr, &ended):
		r.Outcome = ended.Reason
	case readErr != nil:
		r.Outcome = "aborted"
		return fmt.Errorf("read lines: %w", readErr)
	}
	return nil
}

// bulkAborted records why the results could not be sent.
func (a *API) bulkAborted(r *request.Request, line int, err error) {
	r.Outcome = "aborted"
	level, advice := slog.LevelInfo, ""
	switch {
	case errors.Is(err, stream.ErrSpool):
		r.Outcome, level, advice = "spool_failed", slog.LevelWarn, "free space in temp_dir, or set another directory"
	case errors.Is(err, stream.ErrIdle):
		r.Outcome, advice = "results_unread", "read the results while sending, or ask for results=errors"
	}
	a.cfg.Log.Log(r.Request().Context(), level, "bulk request aborted", "line", line, "client_id",
		textsafe.Clean(r.Client.ID, maxLogged), "error", err, "advice", advice)
}
