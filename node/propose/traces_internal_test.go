package propose

import (
	"context"
	"slices"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"revoked/fsm/command"
	"revoked/internal/tracing"
	"revoked/node/nodepb"
)

func sampledGroup(n int) (*tracing.Tracer, *tracetest.SpanRecorder, tracing.Group) {
	spans := tracetest.NewSpanRecorder()
	tracer := tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	var parents tracing.Parents
	for range n {
		ctx, span := tracer.Root(context.Background(), "root", tracing.Context{})
		parents = append(parents, tracer.Parents(ctx)...)
		span.End("")
	}
	return tracer, spans, tracer.StartAll(parents, "forward")
}

// An earlier version does not support traces. It can still decode the operations of a request with
// traces.
func TestTraces_OldLeader_IgnoresTraces(t *testing.T) {
	_, _, spans := sampledGroup(2)
	req := &nodepb.SubmitRequest{Ops: []*command.Op{{}, {}}, Final: true, Traces: encodeTraces(spans)}
	if len(req.Traces) != 2 || !strings.HasPrefix(req.Traces[0].Traceparent, "00-") {
		t.Fatalf("got traces %v, want two", req.Traces)
	}
	sent, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	old := oldRequest(t)
	if err := proto.Unmarshal(sent, old); err != nil {
		t.Fatal(err)
	}
	fields := old.Descriptor().Fields()
	if fields.ByName("traces") != nil {
		t.Fatal("got a request with traces, want the earlier version")
	}
	if n := old.Get(fields.ByName("ops")).List().Len(); n != 2 || !old.Get(fields.ByName("final")).Bool() {
		t.Errorf("got %d operations, want 2 and final", n)
	}
}

// oldRequest returns a SubmitRequest as a version without the traces field encodes it.
func oldRequest(t *testing.T) *dynamicpb.Message {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(nodepb.File_node_nodepb_rpc_proto)
	for _, m := range file.MessageType {
		if m.GetName() == "SubmitRequest" {
			m.Field = slices.DeleteFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool {
				return f.GetName() == "traces"
			})
		}
	}
	d, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(d.Messages().ByName("SubmitRequest"))
}

// An earlier follower sends no traces. A faulty follower may send invalid traces, or too many.
func TestTraces_Served_AreBounded(t *testing.T) {
	tracer, spans, group := sampledGroup(1)
	r := &Router{cfg: Config{Tracer: tracer}}
	if got := r.traceServed("n2", &nodepb.SubmitRequest{}); got != nil {
		t.Errorf("without traces: got %v, want none", got)
	}
	good := encodeTraces(group)[0]
	bad := []*nodepb.TraceContext{nil, {}, {Traceparent: "x"}, {Traceparent: good.Traceparent + "-more"},
		{Traceparent: strings.TrimSuffix(good.Traceparent, "1") + "0"}}
	if got := r.traceServed("n2", &nodepb.SubmitRequest{Traces: append(bad, good)}); len(got) != 1 {
		t.Errorf("got %d spans, want that of the valid one", len(got))
	}
	if got := r.traceServed("n2", &nodepb.SubmitRequest{Traces: slices.Repeat([]*nodepb.TraceContext{good}, 999)}); len(
		got) != maxTraces {
		t.Errorf("got %d spans, want %d", len(got), maxTraces)
	}
	if got := (&Router{}).traceServed("n2", &nodepb.SubmitRequest{Traces: []*nodepb.TraceContext{good}}); got != nil {
		t.Errorf("without tracing: got %v, want none", got)
	}
	if len(spans.Started()) != 2+1+maxTraces {
		t.Errorf("got %d spans, want %d", len(spans.Started()), 2+1+maxTraces)
	}
}
