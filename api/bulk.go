package api

import (
	"cmp"
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
	"revoked/api/registration"
	"revoked/api/stream"
	"revoked/internal/textsafe"
)

// Limits of a bulk registration.
const (
	bulkLines   = 512     // lines of a batch; each call of Register takes one batch
	bulkBytes   = 1 << 20 // bytes per batch
	bulkWorkers = 4       // concurrent calls
	bulkQueue   = 8       // batches whose results are not yet written
)

// registerLines is POST /v1/grants with an NDJSON body.
func (a *API) registerLines(r *request) error {
	return a.streamLines(r, registration.MaxBody, func(l *lineStream) error {
		b := newBulk(l.ctx, registration.WithRetry(a.registerWhile(l.session)), l.out)
		b.describe, b.errorsOnly = a.describeLine, l.errorsOnly
		l.summary = func() []byte { return b.counts.append(nil) }
		return a.readLines(b, l.lines)
	})
}

// A lineStream is a request with one body a line, and its results.
type lineStream struct {
	ctx        context.Context // ends when the client is gone
	session    *clientauth.Session
	lines      *stream.LineReader
	out        io.Writer
	errorsOnly bool
	summary    func() []byte // the last line if errorsOnly
}

// streamLines serves an NDJSON body with lines of at most limit bytes. run reads the lines, writes
// the results, and returns the error that ended the body early. The status is always 200: it is
// sent before the lines are read. A client may send everything before it reads anything, because
// unread results wait in a [stream.Spool]. Once the spool is full, the body waits until the client
// reads.
func (a *API) streamLines(r *request, limit int, run func(l *lineStream) error) error {
	results := r.QueryParam("results")
	if results != "" && results != "all" && results != "errors" {
		return malformed("results must be all or errors")
	}
	release, err := a.streams.bulks.take(r.client.ID)
	if err != nil {
		return err
	}
	defer release()
	s := stream.New(r.Response(), r.Request(), stream.Idle)
	if err := s.EnableFullDuplex(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Request().Context())
	session := a.auth.Open(r.caller, issuerRoles...)
	var watch sync.WaitGroup
	watch.Go(func() { session.Watch(ctx, s.StopReading) })
	defer watch.Wait()
	defer cancel()
	lines := stream.NewLineReader(s, limit)
	// Read before the first write: a client that waits for 100 Continue gets it.
	if err := lines.WaitFirst(); err != nil {
		if _, ended := session.Client(); ended != nil {
			return fmt.Errorf("%w: %w", revoked.ErrActorChanged, ended)
		}
		return malformed("the body could not be read")
	}
	r.Response().Header().Set(echo.HeaderContentType, stream.TypeNDJSON)
	r.Response().WriteHeader(http.StatusOK)

	out := stream.NewSpool(stream.SpoolConfig{
		Dir: a.cfg.TempDir, Limit: a.cfg.SpoolLimitPerRequest, Budget: a.streams.spools, Full: s.Stall,
		Failed: s.Abort,
	})
	defer out.Close() // also after a panic, so that Drain returns
	drained := make(chan error, 1)
	go func() {
		err := out.Drain(s, s.Flush)
		if err != nil {
			cancel()
			s.StopReading()
		}
		drained <- err
	}()
	l := &lineStream{ctx: ctx, session: session, lines: lines, out: out, errorsOnly: results == "errors"}
	readErr := run(l)
	if readErr != nil {
		if _, ended := session.Client(); ended != nil {
			readErr = ended
		}
		code, detail := unreadable(readErr)
		_, _ = out.Write(appendLineError(nil, code, detail, lines.Line()))
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
		r.outcome = ended.Reason
	case readErr != nil:
		r.outcome = "aborted"
		return fmt.Errorf("read lines: %w", readErr)
	}
	return nil
}

// bulkAborted records why the results could not be sent.
func (a *API) bulkAborted(r *request, line int, err error) {
	r.outcome = "aborted"
	level, advice := slog.LevelInfo, ""
	switch {
	case errors.Is(err, stream.ErrSpool):
		r.outcome, level, advice = "spool_failed", slog.LevelWarn, "free space in temp_dir, or set another folder"
	case errors.Is(err, stream.ErrIdle):
		r.outcome, advice = "results_unread", "read the results while sending, or ask for results=errors"
	}
	a.cfg.Log.Log(r.Request().Context(), level, "bulk request aborted", "line", line, "client_id",
		textsafe.Clean(r.client.ID, maxLogged), "error", err, "advice", advice)
}

// readLines registers the lines and returns when all results are written. It returns the error that
// ended the stream early, or nil.
func (a *API) readLines(b *bulk, lines *stream.LineReader) error {
	var workers sync.WaitGroup
	for range bulkWorkers {
		workers.Go(b.work)
	}
	defer workers.Wait()
	defer b.end()
	var d registration.Decoder
	defer d.Wipe()
	now := revoked.TimeOf(a.cfg.Now())
	for {
		line, tooLong, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if lines.Line()%bulkLines == 0 {
			now = revoked.TimeOf(a.cfg.Now())
		}
		var reg revoked.Registration
		switch {
		case tooLong:
			err = fmt.Errorf("%w: the line is longer than %d bytes", revoked.ErrInvalid, registration.MaxBody)
		case stream.Blank(line):
			continue
		default:
			reg, err = d.Decode(line, now)
		}
		if err := b.add(lines.Line(), len(line), reg, err); err != nil {
			return err
		}
	}
}

// A bulkLine is one body of a bulk registration: regs[reg] of its batch, or an invalid body with
// err.
type bulkLine struct {
	n   int
	reg int
	err error
}

// A bulkBatch is the content of one call of Register.
type bulkBatch struct {
	lines   []bulkLine
	regs    []revoked.Registration // nil once registered
	grants  []string               // their ids, once registered
	bytes   int
	results []revoked.RegisterResult
	err     error
	done    bool
}

func (b *bulkBatch) full() bool { return len(b.lines) >= bulkLines || b.bytes >= bulkBytes }

// A bulk is a running bulk registration. The handler's goroutine adds lines to pending. Each worker
// takes all of pending as a batch, registers it, and writes the results of finished batches in the
// order of their lines. Pending grows while all workers are busy, so batches are large when the
// cluster is slow, and a single line is not delayed.
//
// Invariant: a grant is in at most one batch in flight, so that its bodies are committed in order.
// Invariant: at most bulkQueue batches are in memory.
type bulk struct {
	ctx        context.Context // ends when the client is gone
	register   registration.Func
	describe   func(error) (code, detail string)
	out        io.Writer
	errorsOnly bool

	mu       sync.Mutex
	changed  *sync.Cond
	pending  *bulkBatch
	blocked  bool                // pending has a grant of inFlight
	inFlight map[string]struct{} // grants of batches being registered
	queue    []*bulkBatch        // taken batches, in order, whose results are not yet written
	ended    bool
	broken   error // error that ended out

	writing sync.Mutex // held while results are written; guards the fields below
	counts  bulkCounts
	buf     []byte
}

// newBulk returns a bulk without workers. ctx must end when the client is gone.
func newBulk(ctx context.Context, register registration.Func, out io.Writer) *bulk {
	b := &bulk{ctx: ctx, register: register, out: out, pending: new(bulkBatch), inFlight: make(map[string]struct{})}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// add appends a body to pending. It blocks while pending is full, and fails once the results can no
// longer be written.
func (b *bulk) add(n, size int, reg revoked.Registration, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.pending.full() && b.broken == nil {
		b.changed.Wait()
	}
	if b.broken != nil {
		return b.broken
	}
	p := b.pending
	p.bytes += size
	if err != nil {
		p.lines = append(p.lines, bulkLine{n: n, err: err})
	} else {
		p.lines = append(p.lines, bulkLine{n: n, reg: len(p.regs)})
		p.regs = append(p.regs, reg)
		b.blocked = b.blocked || b.isInFlight(reg.GrantID)
	}
	b.changed.Broadcast()
	return nil
}

func (b *bulk) isInFlight(grant string) bool {
	_, ok := b.inFlight[grant]
	return ok
}

// end reports that no further body follows.
func (b *bulk) end() {
	b.mu.Lock()
	b.ended = true
	b.changed.Broadcast()
	b.mu.Unlock()
}

// work registers batches until the last one is done.
func (b *bulk) work() {
	for batch := b.next(); batch != nil; batch = b.next() {
		if len(batch.regs) > 0 {
			batch.results, batch.err = b.register(b.ctx, batch.regs)
			if got, want := len(batch.results), len(batch.regs); batch.err == nil && got != want {
				batch.err = fmt.Errorf("%w: results (got %d, want %d)", revoked.ErrOutcomeUnknown, got, want)
			}
		}
		b.complete(batch)
		b.writeResults()
	}
}

// next blocks until a batch can start, and takes it. It returns nil after the last batch, or once
// the results can no longer be written.
func (b *bulk) next() *bulkBatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.broken != nil || b.ended && len(b.pending.lines) == 0:
			return nil
		case len(b.pending.lines) > 0 && !b.blocked && len(b.queue) < bulkQueue:
			batch := b.pending
			b.pending = new(bulkBatch)
			for i := range batch.regs {
				b.inFlight[batch.regs[i].GrantID] = struct{}{}
			}
			b.queue = append(b.queue, batch)
			b.changed.Broadcast()
			return batch
		}
		b.changed.Wait()
	}
}

// complete marks a batch as registered.
func (b *bulk) complete(batch *bulkBatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch.done = true
	for i := range batch.regs {
		delete(b.inFlight, batch.regs[i].GrantID)
		batch.grants = append(batch.grants, batch.regs[i].GrantID)
	}
	batch.regs = nil // results may wait for long until the client reads
	if b.blocked {
		b.blocked = false
		for i := range b.pending.regs {
			b.blocked = b.blocked || b.isInFlight(b.pending.regs[i].GrantID)
		}
	}
	b.changed.Broadcast()
}

// writeResults writes the results of the finished batches at the head of the queue.
func (b *bulk) writeResults() {
	b.writing.Lock()
	defer b.writing.Unlock()
	for {
		b.mu.Lock()
		if len(b.queue) == 0 || !b.queue[0].done || b.broken != nil {
			b.mu.Unlock()
			return
		}
		first := b.queue[0]
		b.mu.Unlock()
		b.buf = b.appendResults(b.buf[:0], first)
		_, err := b.out.Write(b.buf)
		b.mu.Lock()
		b.queue = append(b.queue[:0], b.queue[1:]...)
		if err != nil {
			b.broken = err
		}
		b.changed.Broadcast()
		b.mu.Unlock()
	}
}

// appendResults appends a line per body of the batch and counts it.
func (b *bulk) appendResults(out []byte, batch *bulkBatch) []byte {
	for _, l := range batch.lines {
		b.counts.lines++
		err := cmp.Or(l.err, batch.err)
		var res revoked.RegisterResult
		if err == nil {
			res = batch.results[l.reg]
			res.GrantID = cmp.Or(res.GrantID, batch.grants[l.reg])
			err = res.Err
		}
		if err != nil {
			b.counts.failed++
			code, detail := b.describe(err)
			out = appendLineError(out, code, detail, l.n)
			continue
		}
		if res.Created {
			b.counts.registered++
		} else {
			b.counts.known++
		}
		if res.Revoked {
			b.counts.revoked++
		}
		if !b.errorsOnly {
			out = append(registration.AppendResult(out, &res), '\n')
		}
	}
	return out
}
