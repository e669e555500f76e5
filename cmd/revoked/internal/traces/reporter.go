package traces

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Metrics count spans.
type Metrics struct{ spans *prometheus.CounterVec }

// NewMetrics registers the metrics in reg.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{spans: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "revoked_trace_spans_total",
		Help: "Spans of sampled requests by result: ended, exported, failed (the collector did not accept them). " +
			"Spans that ended and are neither exported nor failed were dropped or still wait.",
	}, []string{"result"})}
	for _, result := range []string{"ended", "exported", "failed"} {
		m.spans.WithLabelValues(result)
	}
	if err := reg.Register(m.spans); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// ended counts the spans that have ended.
type ended struct{ spans prometheus.Counter }

var _ sdk.SpanProcessor = ended{}

func (e ended) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (e ended) OnEnd(sdk.ReadOnlySpan)                     { e.spans.Inc() }
func (e ended) Shutdown(context.Context) error             { return nil }
func (e ended) ForceFlush(context.Context) error           { return nil }

// A reporter counts what an exporter sends. It logs when exports begin to fail and when they
// succeed again.
type reporter struct {
	to      sdk.SpanExporter
	metrics *Metrics
	log     *slog.Logger

	mu     sync.Mutex
	failed bool
}

var _ sdk.SpanExporter = (*reporter)(nil)

// ExportSpans implements [sdk.SpanExporter]. It never returns an error, because the SDK would print
// it.
func (r *reporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := r.to.ExportSpans(ctx, spans)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && !r.failed:
		r.log.Warn("cannot export traces", "error", err)
	case err == nil && r.failed:
		r.log.Info("trace export recovered")
	}
	r.failed = err != nil
	result := "exported"
	if err != nil {
		result = "failed"
	}
	r.metrics.spans.WithLabelValues(result).Add(float64(len(spans)))
	return nil
}

// Shutdown implements [sdk.SpanExporter].
func (r *reporter) Shutdown(ctx context.Context) error { return r.to.Shutdown(ctx) }
