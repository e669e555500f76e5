package tracing_test

import (
	"context"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"revoked/internal/tracing"
)

const (
	parentID = "0af7651916cd43dd8448eb211c80319c"
	parent   = "00-" + parentID + "-b7ad6b7169203331-01"
)

func newTracer(t *testing.T, sample float64) (*tracing.Tracer, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	p := sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(sample))),
		sdk.WithSpanProcessor(spans))
	return tracing.New(p), spans
}

// A nil tracer and a request that is not sampled cause no allocation.
func TestTracer_NotSampled_DoesNotAllocate(t *testing.T) {
	unsampled, recorded := newTracer(t, 0)
	for name, tracer := range map[string]*tracing.Tracer{"nil": nil, "unsampled": unsampled} {
		ctx, root := tracer.Root(t.Context(), "root", tracing.Context{})
		if root.IsSampled() {
			t.Errorf("%s: got a sampled root, want none", name)
		}
		work := func() {
			ctx, span := tracer.Start(ctx, "step")
			parents := tracer.Parents(ctx)
			group := tracer.StartAll(parents, "call")
			tracer.Record(parents, "past", time.Time{}, time.Time{}, "")
			if len(group.Contexts(9))+len(group.Parents()) > 0 {
				t.Errorf("%s: got spans, want none", name)
			}
			group.End("failed")
			span.End("failed")
		}
		if n := testing.AllocsPerRun(100, work); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
	if _, span := (*tracing.Tracer)(nil).Begin(t.Context(), "work"); span.IsSampled() {
		t.Error("nil: got a sampled span, want none")
	}
	if n := len(recorded.Ended()); n != 0 {
		t.Errorf("got %d spans, want none", n)
	}
}

// W3C Trace Context: a root continues a valid parent, and begins a new trace after any other.
func TestRoot_EachParent_ContinuesValidOnes(t *testing.T) {
	zeros, long := strings.Repeat("0", 32), strings.Repeat("x", 600)
	for name, tt := range map[string]struct {
		sample             float64
		parent             tracing.Context
		sampled, continues bool
		state              string
	}{
		"none":         {1, tracing.Context{}, true, false, ""},
		"sampled":      {0, tracing.Context{Parent: parent, State: "a=1"}, true, true, "a=1"},
		"not sampled":  {1, tracing.Context{Parent: strings.TrimSuffix(parent, "1") + "0"}, false, false, ""},
		"malformed":    {1, tracing.Context{Parent: parent + "x"}, true, false, ""},
		"zeros":        {1, tracing.Context{Parent: strings.ReplaceAll(parent, parentID, zeros)}, true, false, ""},
		"a long state": {0, tracing.Context{Parent: parent, State: "a=" + long}, true, true, ""},
	} {
		tracer, spans := newTracer(t, tt.sample)
		_, span := tracer.Root(t.Context(), "root", tt.parent)
		if span.IsSampled() != tt.sampled {
			t.Errorf("%s: got sampled %v, want %v", name, span.IsSampled(), tt.sampled)
		}
		span.End("")
		if !tt.sampled {
			continue
		}
		got := spans.Ended()[0].SpanContext()
		if (got.TraceID().String() == parentID) != tt.continues || got.TraceState().String() != tt.state {
			t.Errorf("%s: got trace %v with state %q, want continued %v and %q", name, got.TraceID(), got.TraceState(),
				tt.continues, tt.state)
		}
	}
}

// Requests that are forwarded in one call each get the spans of that call, on both nodes.
func TestGroup_TwoRequests_EachHasTheSteps(t *testing.T) {
	here, spans := newTracer(t, 1)
	there, remote := newTracer(t, 0)
	var parents tracing.Parents
	for range 2 {
		ctx, root := here.Root(context.Background(), "root", tracing.Context{})
		parents = append(parents, here.Parents(ctx)...)
		root.End("")
	}
	calls := here.StartAll(parents, "forward")
	served := there.StartAll(there.Remote(append(calls.Contexts(9), tracing.Context{Parent: "no"})), "serve")
	if n := len(calls.Contexts(1)); n != 1 {
		t.Errorf("with a limit: got %d places, want 1", n)
	}
	began := time.Now().Add(-time.Minute)
	commits := there.Record(served.Parents(), "commit", began, began.Add(time.Second), "")
	there.Record(commits, "apply", began, began, "late")
	served.End("failed")
	calls.End("")
	names := map[string]string{}
	for _, s := range append(spans.Ended(), remote.Ended()...) {
		names[s.SpanContext().SpanID().String()] = s.Name()
	}
	traces := map[string]string{}
	for _, s := range append(spans.Ended(), remote.Ended()...) {
		traces[s.SpanContext().TraceID().String()] += names[s.Parent().SpanID().String()] + ">" + s.Name() + " " +
			s.Status().Description + " "
	}
	if len(traces) != 2 {
		t.Fatalf("got %d traces, want 2", len(traces))
	}
	for id, got := range traces {
		if want := ">root  root>forward  serve>commit  commit>apply late forward>serve failed "; got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}
