package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"revoked"
	"revoked/api/stream"
)

// Limits of a pipeline.
const (
	batchLines = 512     // number of lines per batch; each call to Register takes one batch
	batchBytes = 1 << 20 // size of a batch
	workers    = 4       // number of concurrent calls to Register
	maxQueue   = 8       // number of batches whose results are not yet written
)

// PipelineConfig configures a [Pipeline]. All fields are required.
type PipelineConfig struct {
	Register Func // called concurrently by several goroutines
	Out      io.Writer
	Now      func() time.Time
	// AppendError appends the line that reports err for a line of the body.
	AppendError func(out []byte, err error, line int) []byte
	ErrorsOnly  bool // write no line for a registration that succeeded
}

// A Pipeline is a running bulk registration. The goroutine of Run adds lines to pending. Each
// worker takes all of pending as a batch, registers it, and writes the results of finished batches
// in the order of their lines. Pending grows while all workers are busy, so batches are large when
// the cluster is slow, and a single line is not delayed.
//
// Invariant: a grant is in at most one batch in flight, so that its bodies are committed in order.
// Invariant: at most maxQueue batches are in memory.
type Pipeline struct {
	cfg PipelineConfig
	ctx context.Context // ends when the client is gone

	mu       sync.Mutex
	changed  *sync.Cond
	pending  *batch
	blocked  bool                // pending contains a grant that is in inFlight
	inFlight map[string]struct{} // grants of batches being registered
	queue    []*batch            // taken batches, in order, whose results are not yet written
	ended    bool
	broken   error // error of the Write to Out that failed

	writing sync.Mutex // held while results are written; guards the fields below
	counts  counts
	buf     []byte
}

// counts holds the numbers of the summary line of ?results=errors.
type counts struct {
	registered, known, revoked, failed, lines int
}

// A line is one body of a bulk registration: regs[reg] of its batch, or an invalid body with err.
type line struct {
	n   int
	reg int
	err error
}

// A batch is the content of one call to Register.
type batch struct {
	lines   []line
	regs    []revoked.Registration // nil once registered
	grants  []string               // ids of the registered grants, once registered
	bytes   int
	results []revoked.RegisterResult
	err     error
	done    bool
}

// full reports whether the batch accepts no further line. One line may exceed batchBytes, so a
// batch has at most batchBytes plus the longest line.
func (b *batch) full() bool { return len(b.lines) >= batchLines || b.bytes >= batchBytes }

// NewPipeline returns a pipeline that has no goroutine yet. ctx must end when the client is gone,
// because it bounds every call to Register.
func NewPipeline(ctx context.Context, cfg PipelineConfig) *Pipeline {
	p := &Pipeline{ctx: ctx, cfg: cfg, pending: new(batch), inFlight: make(map[string]struct{})}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// Run registers the lines and returns when all results are written. It returns the error that ended
// the lines early, or nil. It is called once.
func (p *Pipeline) Run(lines *stream.LineReader) error {
	var running sync.WaitGroup
	for range workers {
		running.Go(p.work)
	}
	defer running.Wait()
	defer p.end()
	var d Decoder
	defer d.Wipe()
	now := revoked.TimeOf(p.cfg.Now())
	for {
		text, tooLong, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if lines.Line()%batchLines == 0 {
			now = revoked.TimeOf(p.cfg.Now())
		}
		var reg revoked.Registration
		switch {
		case tooLong:
			err = fmt.Errorf("%w: the line is longer than %d bytes", revoked.ErrInvalid, MaxBody)
		case stream.Blank(text):
			continue
		default:
			reg, err = d.Decode(text, now)
		}
		if err := p.add(lines.Line(), len(text), reg, err); err != nil {
			return err
		}
	}
}

// AppendSummary appends the line that ends an answer with errors only. Call it after Run.
func (p *Pipeline) AppendSummary(out []byte) []byte {
	n := &p.counts
	return fmt.Appendf(out, `{"registered":%d,"known":%d,"revoked":%d,"failed":%d,"lines":%d}`+"\n",
		n.registered, n.known, n.revoked, n.failed, n.lines)
}

// add appends a body to pending. It blocks while pending is full, and fails once the results can no
// longer be written. A blocked add stops the reading of the request, and so, by flow control, its
// sender: memory stays bounded however slow the cluster is.
func (p *Pipeline) add(n, size int, reg revoked.Registration, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.pending.full() && p.broken == nil {
		p.changed.Wait()
	}
	if p.broken != nil {
		return p.broken
	}
	b := p.pending
	b.bytes += size
	if err != nil {
		b.lines = append(b.lines, line{n: n, err: err})
	} else {
		b.lines = append(b.lines, line{n: n, reg: len(b.regs)})
		b.regs = append(b.regs, reg)
		p.blocked = p.blocked || p.isInFlight(reg.GrantID)
	}
	p.changed.Broadcast()
	return nil
}

// isInFlight reports whether a batch in progress has a registration for the grant. The caller holds
// mu.
func (p *Pipeline) isInFlight(grant string) bool {
	_, ok := p.inFlight[grant]
	return ok
}

// end records that no further body follows.
func (p *Pipeline) end() {
	p.mu.Lock()
	p.ended = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

// work registers batches until the last one is done. An error of a whole call becomes the error of
// each of its lines, so the caller knows which lines to send again.
func (p *Pipeline) work() {
	for b := p.next(); b != nil; b = p.next() {
		if len(b.regs) > 0 {
			b.results, b.err = p.cfg.Register(p.ctx, b.regs)
			if got, want := len(b.results), len(b.regs); b.err == nil && got != want {
				b.err = fmt.Errorf("%w: wrong number of results (got %d, want %d)", revoked.ErrOutcomeUnknown, got, want)
			}
		}
		p.complete(b)
		p.writeResults()
	}
}

// next blocks until a batch can start, and takes it. It returns nil after the last batch, or once
// the results can no longer be written.
func (p *Pipeline) next() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.broken != nil || p.ended && len(p.pending.lines) == 0:
			return nil
		case len(p.pending.lines) > 0 && !p.blocked && len(p.queue) < maxQueue:
			b := p.pending
			p.pending = new(batch)
			for i := range b.regs {
				p.inFlight[b.regs[i].GrantID] = struct{}{}
			}
			p.queue = append(p.queue, b)
			p.changed.Broadcast()
			return b
		}
		p.changed.Wait()
	}
}

// complete marks a batch as registered and releases its grants, which may let the pending batch
// start.
func (p *Pipeline) complete(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.done = true
	for i := range b.regs {
		delete(p.inFlight, b.regs[i].GrantID)
		b.grants = append(b.grants, b.regs[i].GrantID)
	}
	b.regs = nil // the results may wait a long time until the client reads them
	if p.blocked {
		p.blocked = false
		for i := range p.pending.regs {
			p.blocked = p.blocked || p.isInFlight(p.pending.regs[i].GrantID)
		}
	}
	p.changed.Broadcast()
}

// writeResults writes the results of the finished batches at the front of the queue. It holds mu
// only between writes: a slow reader of the results must not stop the workers. The lock writing
// keeps the order of the results, because the batch stays at the head until it has been written.
func (p *Pipeline) writeResults() {
	p.writing.Lock()
	defer p.writing.Unlock()
	for {
		p.mu.Lock()
		if len(p.queue) == 0 || !p.queue[0].done || p.broken != nil {
			p.mu.Unlock()
			return
		}
		first := p.queue[0]
		p.mu.Unlock()
		p.buf = p.appendResults(p.buf[:0], first)
		_, err := p.cfg.Out.Write(p.buf)
		p.mu.Lock()
		p.queue = append(p.queue[:0], p.queue[1:]...)
		if err != nil {
			p.broken = err
		}
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

// appendResults appends a line per body of the batch and counts it.
func (p *Pipeline) appendResults(out []byte, b *batch) []byte {
	for _, l := range b.lines {
		p.counts.lines++
		err := cmp.Or(l.err, b.err)
		var res revoked.RegisterResult
		if err == nil {
			res = b.results[l.reg]
			res.GrantID = cmp.Or(res.GrantID, b.grants[l.reg])
			err = res.Err
		}
		if err != nil {
			p.counts.failed++
			out = p.cfg.AppendError(out, err, l.n)
			continue
		}
		if res.Created {
			p.counts.registered++
		} else {
			p.counts.known++
		}
		if res.Revoked {
			p.counts.revoked++
		}
		if !p.cfg.ErrorsOnly {
			out = append(AppendResult(out, &res), '\n')
		}
	}
	return out
}
