package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/transport"
)

// Forwarded batches in flight at once. Those that must be final wait for the commit and for every member:
// with few in flight the next ones gather meanwhile, and the leader has fewer calls to answer.
const (
	plainAhead = 6
	finalAhead = 3
)

// A forwarder brings the submissions of a node that does not lead to the leader: one hop, all that
// waits in one call. The receiving node never forwards again.
//
// What must be final goes in calls of its own, for it waits for more than the commit, and must not
// hold up the rest.
type forwarder struct {
	n            *Node
	plain, final forwardLane
	wg           sync.WaitGroup
}

type forwardLane struct {
	gather gatherer
	queue  chan *submission
	slots  chan struct{}
}

func newForwardLane(ahead int) forwardLane {
	return forwardLane{queue: make(chan *submission, maxQueue), slots: make(chan struct{}, ahead)}
}

func newForwarder(n *Node) *forwarder {
	return &forwarder{n: n, plain: newForwardLane(plainAhead), final: newForwardLane(finalAhead)}
}

// submit queues s and waits. A caller that gives up leaves its submission to run its course.
func (f *forwarder) submit(ctx context.Context, s *submission) error {
	if f.n.leaderAddress() == "" {
		return fmt.Errorf("%w: none is known here", revoked.ErrNoLeader)
	}
	lane := &f.plain
	if s.final {
		lane = &f.final
	}
	lane.gather.enter(s)
	defer lane.gather.leave(s)
	select {
	case lane.queue <- s:
	default:
		return fmt.Errorf("%w: %d calls wait to be forwarded", revoked.ErrOverloaded, maxQueue)
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: the leader did not answer in time", revoked.ErrOutcomeUnknown)
	case <-f.n.ctx.Done():
		return fmt.Errorf("%w: this node is stopping", revoked.ErrOutcomeUnknown)
	}
}

func (f *forwarder) run(ctx context.Context) {
	f.wg.Go(func() { f.serve(ctx, &f.plain, false) })
	f.wg.Go(func() { f.serve(ctx, &f.final, true) })
	f.wg.Wait()
}

func (f *forwarder) serve(ctx context.Context, lane *forwardLane, final bool) {
	for {
		select {
		case lane.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		b, ok := lane.gather.next(ctx, lane.queue, nil)
		if !ok {
			return
		}
		f.wg.Go(func() {
			f.call(ctx, b.subs, final)
			<-lane.slots
		})
	}
}

func (f *forwarder) call(ctx context.Context, batch []*submission, final bool) {
	ctx, cancel := context.WithTimeout(ctx, f.n.cfg.RequestTimeout)
	defer cancel()
	var ops []*fsm.Op
	for _, s := range batch {
		ops = append(ops, s.ops...)
	}
	f.n.metrics.forwarded.Add(float64(max(1, len(ops))))
	var resp SubmitResponse
	err := f.n.callLeader(ctx, pathSubmit, &SubmitRequest{Ops: ops, Final: final}, &resp)
	if err == nil {
		err = errorOf(resp.Code, resp.Detail)
	}
	if err == nil && len(resp.Results) != len(ops) {
		err = fmt.Errorf("%w: %d results for %d operations", revoked.ErrOutcomeUnknown, len(resp.Results), len(ops))
	}
	next := 0
	for _, s := range batch {
		if err != nil {
			s.finish(0, err)
			continue
		}
		for i := range s.ops {
			r := resp.Results[next]
			s.results[i] = opResult{err: errorOf(r.Code, r.Detail), index: r.Index, created: r.Created, revoked: r.Revoked, grantID: r.GrantId}
			next++
		}
		s.finish(resp.Index, nil)
	}
}

// errorOf rebuilds an error that crossed the wire.
func errorOf(code uint32, detail string) error {
	err := revoked.FromCode(code)
	if err == nil || detail == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, detail)
}

// detailOf is the text of err that crosses the wire, without the sentinel's own words.
func detailOf(err error) string {
	if err == nil {
		return ""
	}
	text, sentinel := err.Error(), revoked.FromCode(revoked.Code(err)).Error()
	if len(text) > len(sentinel)+2 && text[:len(sentinel)+2] == sentinel+": " {
		return text[len(sentinel)+2:]
	}
	if text == sentinel {
		return ""
	}
	return text
}

// callLeader makes one call to the leader as Raft knows it. ErrNoLeader: certainly nothing happened
// there; any other failure of the call leaves the outcome unknown.
func (n *Node) callLeader(ctx context.Context, path string, req, resp proto.Message) error {
	addr := n.leaderAddress()
	if addr == "" {
		return fmt.Errorf("%w: none is known here", revoked.ErrNoLeader)
	}
	name, host, err := transport.SplitAddress(addr)
	if err != nil {
		return err
	}
	return n.call(ctx, host, name, path, req, resp)
}

// call makes one node-to-node call.
func (n *Node) call(ctx context.Context, host, name, path string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	b, err := n.trans.Call(ctx, host, name, path, body)
	switch {
	case errors.Is(err, transport.ErrNotSent):
		return fmt.Errorf("%w: %v", revoked.ErrNoLeader, err)
	case err != nil:
		return fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
	}
	if err := proto.Unmarshal(b, resp); err != nil {
		return fmt.Errorf("%w: answer of %s: %v", revoked.ErrOutcomeUnknown, host, err)
	}
	return nil
}
