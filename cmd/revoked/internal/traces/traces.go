// Package traces exports the spans of a node to an OpenTelemetry collector: OTLP over HTTP, as
// protobuf.
//
// A slow, hanging or unreachable collector never blocks a request. The package keeps at most
// maxQueue plus maxBatch spans, and drops later ones. It connects only to the endpoint, without a
// proxy, and does not follow redirects. Of the variables whose names begin with OTEL_, only
// OTEL_RESOURCE_ATTRIBUTES has an effect.
//
// It uses the SDK with its own client. The exporter of OpenTelemetry for OTLP over HTTP links gRPC,
// which would make the program 7 MB larger.
package traces

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"revoked/internal/tracing"
)

// Bounds of the spans that wait for their export.
const (
	maxQueue    = 2048
	maxBatch    = 512
	batchTime   = 2 * time.Second
	exportLimit = 10 * time.Second // time limit of one export
	closeLimit  = 3 * time.Second  // time limit of the last export
)

// Bounds of one span. The spans of a node stay far below them.
const (
	maxAttributes = 32
	maxText       = 256 // bytes of an attribute
)

// Config configures the export. All fields but CAFile are required.
type Config struct {
	Endpoint string  // URL of the collector; see [ParseEndpoint]
	CAFile   string  // PEM file of its CA; empty: those of the system
	Sample   float64 // share of the requests, 0 to 1

	NodeID, Region, Version string

	Log     *slog.Logger
	Metrics *Metrics
}

// A Traces exports spans until Close.
type Traces struct {
	provider *sdk.TracerProvider
	client   *client
	tracer   *tracing.Tracer
}

// Open starts to export. It connects when the first spans are ready.
func Open(cfg Config) (*Traces, error) {
	endpoint, err := ParseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	c, err := newClient(endpoint, cfg.CAFile)
	if err != nil {
		return nil, err
	}
	to, err := otlptrace.New(context.Background(), c)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	exporter := &reporter{to: to, metrics: cfg.Metrics, log: cfg.Log}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.Sample))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "revoked"), attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.NodeID), attribute.String("revoked.region", cfg.Region))),
		sdk.WithRawSpanLimits(sdk.SpanLimits{AttributeCountLimit: maxAttributes, AttributeValueLengthLimit: maxText}),
		sdk.WithSpanProcessor(ended{cfg.Metrics.spans.WithLabelValues("ended")}),
		sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(maxQueue), sdk.WithMaxExportBatchSize(maxBatch),
			sdk.WithBatchTimeout(batchTime), sdk.WithExportTimeout(exportLimit)),
	)
	return &Traces{provider: provider, client: c, tracer: tracing.New(provider)}, nil
}

// Tracer returns the tracer whose spans are exported. For a nil Traces it returns nil.
func (t *Traces) Tracer() *tracing.Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// Close exports the spans that wait, within closeLimit, and stops. It may be called on nil.
func (t *Traces) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the reporter has logged a failure
	t.client.close()
}
