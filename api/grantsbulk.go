package api

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"

	"revoked"
)

// Bounds of a bulk registration.
const (
	bulkLines   = 512     // lines a call of Register takes at most
	bulkBytes   = 1 << 20 // and bytes of their bodies
	bulkFlights = 4       // calls at once
	bulkQueue   = 16      // batches whose results are not written yet

	overloadTries = 8 // of a batch that meets a full queue: 1.4 s of waiting
	unknownTries  = 3 // of a batch whose outcome is unknown, or that finds no leader, each for request_timeout
)

// A registerFunc is Backend.Register for one caller.
type registerFunc func(context.Context, []revoked.Registration) ([]revoked.RegisterResult, error)

// A bulkLine is one body of a bulk registration: it stands in a batch's regs at place reg, or err says
// what is wrong with it.
type bulkLine struct {
	n   int
	reg int
	err error
}

// A bulkBatch is what one call of Register takes.
type bulkBatch struct {
	lines   []bulkLine
	regs    []revoked.Registration
	bytes   int
	results []revoked.RegisterResult
	err     error
	done    bool
}

func (b *bulkBatch) full() bool { return len(b.lines) >= bulkLines || b.bytes >= bulkBytes }

// bulkCounts is the summary of ?results=errors.
type bulkCounts struct {
	registered, known, revoked, failed, lines int
}

// A bulk is one bulk registration on its way. The handler's goroutine reads lines into pending; a few
// flights take pending as a whole, call Register, and write the results of the batches that are
// finished in the order of the lines. While all flights are busy pending grows, so batches are as big
// as the cluster is slow, and a lone line does not wait for company.
//
// Invariants: bodies of one grant are never in two flights at once, so they are committed in their
// order; memory is bounded by bulkQueue batches, whatever the client sends and however little it reads.
type bulk struct {
	ctx      context.Context // ends when the client is gone
	register registerFunc
	describe func(error) (code, detail string)
	out      io.Writer
	onlyErrs bool

	mu      sync.Mutex
	changed *sync.Cond
	pending *bulkBatch
	blocked bool                // pending holds a grant of flying
	flying  map[string]struct{} // grants in flight
	queue   []*bulkBatch        // taken, in order, results not yet written
	ended   bool
	broken  error // of out

	writing sync.Mutex // held by the flight that writes results; protects what follows
	counts  bulkCounts
	buf     []byte
}

func newBulk() *bulk {
	b := &bulk{pending: new(bulkBatch), flying: make(map[string]struct{})}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// add takes the next body. It waits while the batch that gathers is full, and fails when the results
// cannot be written any more.
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
		if _, ok := b.flying[reg.GrantID]; ok {
			b.blocked = true
		}
	}
	b.changed.Broadcast()
	return nil
}

// end says that no more bodies will come.
func (b *bulk) end() {
	b.mu.Lock()
	b.ended = true
	b.changed.Broadcast()
	b.mu.Unlock()
}

// fly takes batches and registers them until there are no more.
func (b *bulk) fly() {
	for {
		batch := b.take()
		if batch == nil {
			return
		}
		if len(batch.regs) > 0 {
			batch.results, batch.err = b.register(b.ctx, batch.regs)
			if batch.err == nil && len(batch.results) != len(batch.regs) {
				batch.err = fmt.Errorf("%w: got %d results for %d registrations", revoked.ErrOutcomeUnknown, len(batch.results), len(batch.regs))
			}
		}
		b.land(batch)
	}
}

// take waits for a batch and returns it, nil when there will be none.
func (b *bulk) take() *bulkBatch {
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
				b.flying[batch.regs[i].GrantID] = struct{}{}
			}
			b.queue = append(b.queue, batch)
			b.changed.Broadcast()
			return batch
		}
		b.changed.Wait()
	}
}

// land books a batch as finished and writes the results of all that are finished, in order.
func (b *bulk) land(batch *bulkBatch) {
	b.mu.Lock()
	batch.done = true
	for i := range batch.regs {
		delete(b.flying, batch.regs[i].GrantID)
	}
	if b.blocked {
		b.blocked = false
		for i := range b.pending.regs {
			if _, ok := b.flying[b.pending.regs[i].GrantID]; ok {
				b.blocked = true
				break
			}
		}
	}
	b.changed.Broadcast()
	b.mu.Unlock()

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

func (b *bulk) appendResults(out []byte, batch *bulkBatch) []byte {
	for _, l := range batch.lines {
		b.counts.lines++
		err := l.err
		if err == nil {
			err = batch.err
		}
		var res revoked.RegisterResult
		if err == nil {
			res = batch.results[l.reg]
			if res.GrantID == "" {
				res.GrantID = batch.regs[l.reg].GrantID
			}
			err = res.Err
		}
		if err != nil {
			b.counts.failed++
			code, detail := b.describe(err)
			out = appendLineError(out, code, detail, l.n)
			continue
		}
		switch {
		case res.Created:
			b.counts.registered++
		default:
			b.counts.known++
		}
		if res.Revoked {
			b.counts.revoked++
		}
		if !b.onlyErrs {
			out = append(appendRegistered(out, &res), '\n')
		}
	}
	return out
}

// appendRegistered appends {"grant_id","index","state"}.
func appendRegistered(out []byte, res *revoked.RegisterResult) []byte {
	out = append(out, `{"grant_id":`...)
	out = appendString(out, res.GrantID)
	out = append(out, `,"index":`...)
	out = strconv.AppendUint(out, res.Index, 10)
	if res.Revoked {
		return append(out, `,"state":"revoked"}`...)
	}
	return append(out, `,"state":"active"}`...)
}

func appendLineError(out []byte, code, detail string, line int) []byte {
	out = append(out, `{"error":`...)
	out = appendString(out, code)
	out = append(out, `,"detail":`...)
	out = appendString(out, detail)
	out = append(out, `,"line":`...)
	out = strconv.AppendInt(out, int64(line), 10)
	return append(out, "}\n"...)
}

func (n bulkCounts) append(out []byte) []byte {
	return fmt.Appendf(out, `{"registered":%d,"known":%d,"revoked":%d,"failed":%d,"lines":%d}`+"\n",
		n.registered, n.known, n.revoked, n.failed, n.lines)
}
