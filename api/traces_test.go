package api_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"revoked/api"
	"revoked/internal/tracing"
)

// W3C Trace Context: the traceparent of a caller is used only if it comes from a configured
// network. Probes have no span. No span contains anything that the caller sent.
func TestTraces_Traceparent_UsedOnlyFromNetworks(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	parent := "00-" + trace + "-b7ad6b7169203331-01"
	for _, tt := range []struct {
		name      string
		networks  []netip.Prefix
		parents   []string
		sample    float64
		spans     int
		continues bool
	}{
		{"a stranger that asks for sampling", nil, []string{parent}, 0, 0, false},
		{"a stranger that asks not to be sampled", nil, []string{strings.TrimSuffix(parent, "1") + "0"}, 1, 2, false},
		{"a stranger", nil, []string{parent}, 1, 2, false},
		{"a gateway", everywhere, []string{parent}, 0, 2, true},
		{"a gateway that does not sample", everywhere, []string{strings.TrimSuffix(parent, "1") + "0"}, 1, 0, false},
		{"a gateway without a trace", everywhere, nil, 1, 2, false},
		{"a gateway with two traces", everywhere, []string{parent, parent}, 1, 2, false},
	} {
		recorder := tracetest.NewSpanRecorder()
		provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(tt.sample))),
			sdk.WithSpanProcessor(recorder))
		b := newBench(t, func(c *api.Config) { c.Tracer, c.TraceNetworks = tracing.New(provider), tt.networks })
		header := http.Header{"Traceparent": tt.parents}
		serveCall(b.api.Handler(), call{path: pathIntrospect + "?canary", body: "token=canary-token", auth: as("rs1"),
			header: header})
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			serveCall(b.api.Handler(), call{method: "GET", path: path, header: header})
		}
		spans := recorder.Ended()
		if len(spans) != tt.spans {
			t.Errorf("%s: got %d spans, want %d", tt.name, len(spans), tt.spans)
		}
		for _, s := range spans {
			if got := s.SpanContext().TraceID().String() == trace; got != tt.continues {
				t.Errorf("%s: got trace %s, want continued %v", tt.name, s.SpanContext().TraceID(), tt.continues)
			}
			for _, a := range s.Attributes() {
				if v := a.Value.String(); strings.Contains(v, "canary") || strings.Contains(v, "rs1") {
					t.Errorf("%s: got attribute %s=%s, want nothing of the caller", tt.name, a.Key, v)
				}
			}
		}
	}
}

func BenchmarkIntrospectTraced(b *testing.B) {
	for name, sample := range map[string]float64{"unsampled": 0, "sampled": 1} {
		b.Run(name, func(b *testing.B) {
			provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.TraceIDRatioBased(sample)))
			h := newBench(b, withFixedNode, func(c *api.Config) { c.Tracer = tracing.New(provider) }).api.Handler()
			benchmarkHandler(b, h, pathIntrospect, as("rs1"), "token=AT1")
		})
	}
}
