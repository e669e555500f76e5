package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

// registerLines is POST /v1/grants with an NDJSON body. The status is 200 whatever becomes of the
// lines: it is sent before they are read. The client may send everything before it reads anything:
// what it does not fetch waits in a [spool].
func (a *API) registerLines(c echo.Context) error {
	onlyErrs := false
	switch c.QueryParam("results") {
	case "", "all":
	case "errors":
		onlyErrs = true
	default:
		return a.problemWith(c, http.StatusBadRequest, "malformed request", "results is all or errors")
	}
	s := newStream(c)
	if err := s.rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return a.problem(c, err)
	}
	if c.Request().ProtoMajor >= 2 {
		s.hold = newHold()
	}
	lines := newLineReader(s, maxRegistration)
	// The first byte of the body comes before the first of the answer: a client that waits for
	// 100 Continue gets it.
	if _, err := lines.br.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return a.problemWith(c, http.StatusBadRequest, "malformed request", "the body could not be read")
	}
	c.Response().Header().Set(echo.HeaderContentType, typeNDJSON)
	c.Response().WriteHeader(http.StatusOK)

	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	out := newSpool("")
	defer out.finish() // also when something panics: drain must end
	b := newBulk()
	b.ctx, b.out, b.onlyErrs, b.describe = ctx, out, onlyErrs, a.describeLine
	b.register = patient(a.registerFor(a.caller(c)))

	drained := make(chan error, 1)
	go func() {
		err := out.drain(s, s.flush)
		if err != nil {
			cancel()
			s.stopReading()
		}
		drained <- err
	}()
	rerr := a.readLines(b, lines)
	if rerr != nil {
		last := appendLineError(nil, "body_unreadable", "the body broke off; nothing from this line on was read", lines.n)
		_, _ = out.Write(last)
	}
	if onlyErrs {
		_, _ = out.Write(b.counts.append(nil))
	}
	out.finish()
	if err := <-drained; err != nil {
		// The client has not all results: it must not take the answer for whole.
		a.note(c, "aborted")
		a.cfg.Log.Info("bulk registration broken off", "line", lines.n, "error", err)
		panic(http.ErrAbortHandler)
	}
	if rerr != nil {
		a.note(c, "aborted")
		return fmt.Errorf("read registrations: %w", rerr)
	}
	return nil
}

// readLines feeds the lines to b and returns when the results of all are written, with the error that
// broke the stream.
func (a *API) readLines(b *bulk, lines *lineReader) error {
	var flights sync.WaitGroup
	for range bulkFlights {
		flights.Go(b.fly)
	}
	defer flights.Wait()
	defer b.end()
	var d registrationDecoder
	defer d.r.wipe()
	now := revoked.TimeOf(a.cfg.Now())
	for {
		line, tooLong, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if lines.n%bulkLines == 0 {
			now = revoked.TimeOf(a.cfg.Now())
		}
		var reg revoked.Registration
		switch {
		case tooLong:
			err = fmt.Errorf("%w: the line is longer than %d bytes", revoked.ErrInvalid, maxRegistration)
		case blank(line):
			continue
		default:
			reg, err = d.decode(line, now)
		}
		if err := b.add(lines.n, len(line), reg, err); err != nil {
			return err
		}
	}
}

// registerFor returns Backend.Register in the name of caller, under the request timeout.
func (a *API) registerFor(caller *revoked.Client) registerFunc {
	actor := revoked.ActorOf(caller)
	return func(ctx context.Context, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
		ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
		defer cancel()
		return a.cfg.Backend.Register(ctx, actor, regs)
	}
}

// patient returns register with patience: a bulk registration slows down instead of failing where the
// queue of a node is full, and goes on through a change of leader. Registering twice changes nothing.
func patient(register registerFunc) registerFunc {
	return func(ctx context.Context, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
		for try := 1; ; try++ {
			results, err := register(ctx, regs)
			tries := 1
			switch {
			case errors.Is(err, revoked.ErrOverloaded):
				tries = overloadTries
			case errors.Is(err, revoked.ErrNoLeader), errors.Is(err, revoked.ErrOutcomeUnknown):
				tries = unknownTries
			}
			if try >= tries || !pause(ctx, time.Duration(try)*50*time.Millisecond) {
				return results, err
			}
		}
	}
}

// describeLine says what went wrong with one line: a word to act on, and a sentence.
func (a *API) describeLine(err error) (code, detail string) {
	x := a.answerFor(err)
	if x.status == http.StatusServiceUnavailable {
		return codeUnavailable, x.title
	}
	if x.opaque {
		return x.outcome, x.title
	}
	return x.outcome, err.Error()
}
