package propose

import (
	"errors"
	"time"

	"revoked"
	"revoked/fsm"
	"revoked/internal/tracing"
	"revoked/node/nodepb"
)

// maxTraces is the maximum number of sampled requests in a call to the leader. The leader records
// no spans for further requests.
const maxTraces = 64

// Attributes of the spans.
const (
	attrIndex = "revoked.index"
	attrOps   = "revoked.operations"
	attrTerm  = "revoked.term"
	attrVia   = "revoked.via"
	attrWait  = "revoked.waited_for"
)

// failures lists the kinds of errors that spans contain instead of error texts. The text of an
// error may name a client or a subject.
var failures = []struct {
	err  error
	kind string
}{
	{revoked.ErrNoLeader, "no leader"}, {revoked.ErrOutcomeUnknown, "outcome unknown"},
	{revoked.ErrOverloaded, "overloaded"}, {revoked.ErrClosed, "closed"}, {revoked.ErrInvalid, "invalid"},
}

// failure returns the kind of err, "" for nil.
func failure(err error) string {
	if err == nil {
		return ""
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.kind
		}
	}
	return "failed"
}

// traceCall starts a span for each sampled proposal of a call to the leader.
func (f *forwarder) traceCall(batch []*proposal, ops int) tracing.Group {
	var parents tracing.Parents
	for _, s := range batch {
		parents = append(parents, s.parents...)
	}
	if parents == nil {
		return nil
	}
	return f.cfg.Tracer.StartAll(parents, "forward", tracing.Int(attrOps, ops))
}

func encodeTraces(spans tracing.Group) []*nodepb.TraceContext {
	var all []*nodepb.TraceContext
	for _, c := range spans.Contexts(maxTraces) {
		all = append(all, &nodepb.TraceContext{Traceparent: c.Parent, Tracestate: c.State})
	}
	return all
}

// traceServed starts a span for each sampled request in a call from the member via.
func (r *Router) traceServed(via string, req *nodepb.SubmitRequest) tracing.Group {
	if r.cfg.Tracer == nil || len(req.Traces) == 0 {
		return nil
	}
	var sent []tracing.Context
	for _, c := range req.Traces[:min(len(req.Traces), maxTraces)] {
		sent = append(sent, tracing.Context{Parent: c.GetTraceparent(), State: c.GetTracestate()})
	}
	return r.cfg.Tracer.StartAll(r.cfg.Tracer.Remote(sent), "serve", tracing.Text(attrVia, via),
		tracing.Int(attrOps, len(req.Ops)))
}

// traceCommit records a span from the proposal of an entry to its commit. As a child of that span,
// it records how long applying the entry took.
func (p *Proposer) traceCommit(shares []share, ops int, started time.Time, out *fsm.Outcome, err error) {
	if p.cfg.Tracer == nil {
		return
	}
	var parents tracing.Parents
	for _, s := range shares {
		parents = append(parents, s.parents...)
	}
	if parents == nil {
		return
	}
	now := time.Now()
	if out == nil {
		p.cfg.Tracer.Record(parents, "commit", started, now, failure(ApplyError(err)), tracing.Int(attrOps, ops))
		return
	}
	commits := p.cfg.Tracer.Record(parents, "commit", started, now, "", tracing.Int(attrIndex, out.Index),
		tracing.Int(attrTerm, p.term), tracing.Int(attrOps, ops))
	p.cfg.Tracer.Record(commits, "apply", now.Add(-out.Took), now, "")
}

// traceWait records the wait for the leases, with the nodes that the leader waited for.
func (p *Proposer) traceWait(final []*proposal, index uint64, wait Wait, from, to time.Time, err error) {
	if p.cfg.Tracer == nil {
		return
	}
	var parents tracing.Parents
	for _, s := range final {
		parents = append(parents, s.parents...)
	}
	if parents != nil {
		p.cfg.Tracer.Record(parents, "acknowledge", from, to, failure(err), tracing.Int(attrIndex, index),
			tracing.Texts(attrWait, wait.For))
	}
}
