package propose

import (
	"context"
	"fmt"
	"sync"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
)

// Limits on the number of concurrent calls to the leader. While all calls are in flight, the next
// batch grows, so low limits mean fewer calls for the leader.
const (
	plainCalls = 6
	finalCalls = 2
)

// A forwarder sends proposals to the leader while this node does not lead. One call carries all
// proposals that are queued, and its receiver never forwards them again. Proposals that must be
// final go in separate calls, because they also wait for the leases.
type forwarder struct {
	cfg          Config
	plain, final lane
	wg           sync.WaitGroup
}

type lane struct {
	batcher batcher
	slots   chan struct{}
}

func newLane(calls int) lane {
	return lane{batcher: newBatcher(), slots: make(chan struct{}, calls)}
}

func newForwarder(cfg Config) *forwarder {
	return &forwarder{cfg: cfg, plain: newLane(plainCalls), final: newLane(finalCalls)}
}

// propose queues s and blocks until s is answered, ctx ends or the node stops. The call to the
// leader continues after its caller has given up.
func (f *forwarder) propose(ctx context.Context, s *proposal) error {
	if !f.cfg.HasLeader() {
		return fmt.Errorf("%w: no leader is known", revoked.ErrNoLeader)
	}
	if err := f.checkLeader(ctx, s.ops); err != nil {
		return err
	}
	if s.bulk { // Router.bulk limits the number of these calls
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := f.cancelOnChange(ctx, cancel)
		defer stop()
		f.call(ctx, []*proposal{s})
		return s.err
	}
	b := &f.plain.batcher
	if s.final {
		b = &f.final.batcher
	}
	b.enter(s)
	defer b.leave(s)
	if err := b.push(s); err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: timed out waiting for the leader", revoked.ErrOutcomeUnknown)
	case <-f.cfg.Stopping:
		return fmt.Errorf("%w: node is stopping", revoked.ErrOutcomeUnknown)
	}
}

// checkLeader returns an error if the leader may not support ops. An older leader does not return
// that error itself, and would reject all operations of the call.
func (f *forwarder) checkLeader(ctx context.Context, ops []*command.Op) error {
	version := uint32(1)
	for _, op := range ops {
		version = max(version, command.VersionOf(op))
	}
	if version == 1 {
		return nil
	}
	return f.cfg.LeaderKnows(ctx, version)
}

// cancelOnChange cancels a long call when the leader changes. Otherwise, after a leader has
// crashed, the call would block until its timeout. The caller must call stop.
func (f *forwarder) cancelOnChange(ctx context.Context, cancel func()) (stop func()) {
	changed := f.cfg.LeaderChanged()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-changed:
		case <-f.cfg.Stopping:
		case <-ctx.Done():
		}
		cancel()
	})
	return func() { cancel(); wg.Wait() }
}

func (f *forwarder) run(ctx context.Context) {
	f.wg.Go(func() { f.serve(ctx, &f.plain) })
	f.wg.Go(func() { f.serve(ctx, &f.final) })
	f.wg.Wait()
}

func (f *forwarder) serve(ctx context.Context, l *lane) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		b, ok := l.batcher.next(ctx, nil, maxGather)
		if !ok {
			return
		}
		f.wg.Go(func() {
			sent := time.Now()
			f.call(ctx, b.proposals)
			l.batcher.demand.observe(time.Since(sent))
			<-l.slots
		})
	}
}

// call forwards one batch and answers its proposals, which must have the same values of final and
// bulk.
func (f *forwarder) call(ctx context.Context, batch []*proposal) {
	ctx, cancel := context.WithTimeout(ctx, batch[0].timeout(f.cfg.Timeout))
	defer cancel()
	var ops []*command.Op
	for _, s := range batch {
		ops = append(ops, s.ops...)
	}
	for i, op := range ops {
		if op.Origin != nil && f.cfg.State.Version() < command.Audit { // the leader may be too old to decode an origin
			ops[i] = command.WithoutOrigin(op)
		}
	}
	f.cfg.Metrics.forwarded.Add(float64(max(1, len(ops))))
	var resp nodepb.SubmitResponse
	spans := f.traceCall(batch, len(ops))
	err := f.cfg.Forward(ctx, &nodepb.SubmitRequest{Ops: ops, Final: batch[0].final, Bulk: batch[0].bulk,
		Traces: encodeTraces(spans)}, &resp)
	if err == nil {
		err = nodepb.DecodeError(resp.Code, resp.Detail)
	}
	if err == nil && len(resp.Results) != len(ops) {
		err = fmt.Errorf("%w: leader response: wrong number of results (got %d, want %d)",
			revoked.ErrOutcomeUnknown, len(resp.Results), len(ops))
	}
	spans.End(failure(err))
	if err != nil {
		for _, s := range batch {
			s.finish(0, err)
		}
		return
	}
	next := resp.Results
	for _, s := range batch {
		for i := range s.ops {
			s.results[i] = decodeResult(next[i])
		}
		next = next[len(s.ops):]
		s.finish(resp.Index, nil)
	}
}
