// Package tracing records OpenTelemetry spans of requests that are sampled.
//
// A nil [Tracer] and a request that is not sampled cause no allocation: the methods then do
// nothing. Only Root and Begin start a trace. A span contains no token, digest, secret, subject or
// client: callers pass only routes, counts, log indexes and names of nodes.
//
// The package uses only the API of OpenTelemetry. The program passes a provider to [New], which
// exports the spans.
package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// maxState bounds the tracestate that is accepted from others, in bytes. By W3C Trace Context
// section 3.3.1.5, systems should propagate at least that much.
const maxState = 512

// A Tracer starts spans. A nil Tracer starts none. Its methods may be called concurrently.
type Tracer struct{ tracer trace.Tracer }

// New returns a tracer whose spans p records.
func New(p trace.TracerProvider) *Tracer { return &Tracer{p.Tracer("revoked")} }

// An Attr is an attribute of a span.
type Attr = attribute.KeyValue

// Int returns an attribute with a number, such as a log index.
func Int[N ~int | ~uint64](key string, n N) Attr { return attribute.Int64(key, int64(n)) }

// Text returns an attribute with a text.
func Text(key, text string) Attr { return attribute.String(key, text) }

// Texts returns an attribute with a list.
func Texts(key string, list []string) Attr { return attribute.StringSlice(key, list) }

// A Context is the place of a span in its trace, as W3C Trace Context writes it.
type Context struct{ Parent, State string }

// Root starts a span of a request that comes from outside. If parent is valid, it continues the
// trace of parent. Otherwise it begins a new trace. The caller must end the span, even a zero span,
// which is not sampled.
func (t *Tracer) Root(ctx context.Context, name string, parent Context) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(extract(ctx, parent), name, trace.WithSpanKind(trace.SpanKindServer))
}

// Begin starts a span of work that no request caused. It begins a new trace.
func (t *Tracer) Begin(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, name, trace.WithNewRoot())
}

// Start starts a span below the span of ctx. The new span is zero unless the span of ctx is
// sampled.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, Span) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, Span{}
	}
	return t.start(ctx, name)
}

func (t *Tracer) start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, Span) {
	ctx, s := t.tracer.Start(ctx, name, opts...)
	if !s.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	return ctx, Span{s}
}

// extract returns ctx with the remote parent, if it is valid.
func extract(ctx context.Context, parent Context) context.Context {
	carrier := propagation.MapCarrier{"traceparent": parent.Parent}
	if len(parent.State) <= maxState {
		carrier["tracestate"] = parent.State
	}
	return propagation.TraceContext{}.Extract(ctx, carrier)
}

// A Span is a span that was started. The zero Span is not sampled.
type Span struct{ span trace.Span }

// IsSampled reports whether the span is recorded.
func (s Span) IsSampled() bool { return s.span != nil }

// Set sets attributes. Call it only for a sampled span: the attributes cost allocations.
func (s Span) Set(attrs ...Attr) {
	if s.span != nil {
		s.span.SetAttributes(attrs...)
	}
}

// End ends the span. kind is the kind of the failure, such as "unavailable", never the text of an
// error. It is empty after a success.
func (s Span) End(kind string) {
	if s.span == nil {
		return
	}
	if kind != "" {
		s.span.SetStatus(codes.Error, kind)
	}
	s.span.End()
}

// Parents are the spans of several requests that one entry or one call carries together. A step
// that they share is recorded below each of them. Nil: none of the requests is sampled.
type Parents []trace.SpanContext

// Parents returns the span of ctx, or nil if it is not sampled.
func (t *Tracer) Parents(ctx context.Context) Parents {
	if t == nil {
		return nil
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		return Parents{sc}
	}
	return nil
}

// Record records a finished step as a child span of each parent, and returns these spans.
func (t *Tracer) Record(parents Parents, name string, from, to time.Time, kind string, attrs ...Attr) Parents {
	if t == nil || len(parents) == 0 {
		return nil
	}
	steps := make(Parents, 0, len(parents))
	for _, p := range parents {
		_, s := t.tracer.Start(trace.ContextWithSpanContext(context.Background(), p), name, trace.WithTimestamp(from),
			trace.WithAttributes(attrs...))
		if kind != "" {
			s.SetStatus(codes.Error, kind)
		}
		s.End(trace.WithTimestamp(to))
		steps = append(steps, s.SpanContext())
	}
	return steps
}

// A Group is a step in progress that several requests share.
type Group []Span

// StartAll starts a step below each of the parents, with attributes.
func (t *Tracer) StartAll(parents Parents, name string, attrs ...Attr) Group {
	if t == nil || len(parents) == 0 {
		return nil
	}
	g := make(Group, 0, len(parents))
	for _, p := range parents {
		_, s := t.start(trace.ContextWithSpanContext(context.Background(), p), name, trace.WithAttributes(attrs...))
		if s.IsSampled() {
			g = append(g, s)
		}
	}
	return g
}

// End ends the spans, see [Span.End].
func (g Group) End(kind string) {
	for _, s := range g {
		s.End(kind)
	}
}

// Parents returns the spans as parents.
func (g Group) Parents() Parents {
	if len(g) == 0 {
		return nil
	}
	p := make(Parents, len(g))
	for i, s := range g {
		p[i] = s.span.SpanContext()
	}
	return p
}

// Contexts returns the contexts of at most limit spans, to be sent to another node.
func (g Group) Contexts(limit int) []Context {
	var all []Context
	for _, s := range g[:min(len(g), limit)] {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), s.span.SpanContext()), carrier)
		all = append(all, Context{carrier["traceparent"], carrier["tracestate"]})
	}
	return all
}

// Remote returns, from the contexts that another node sent, those that are valid and sampled.
func (t *Tracer) Remote(sent []Context) Parents {
	if t == nil {
		return nil
	}
	var all Parents
	for _, c := range sent {
		sc := trace.SpanContextFromContext(extract(context.Background(), c))
		if sc.IsSampled() {
			all = append(all, sc)
		}
	}
	return all
}
