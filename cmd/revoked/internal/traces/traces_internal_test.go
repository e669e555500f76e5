package traces

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"revoked/internal/await"
	"revoked/internal/tracing"
)

// open returns a Traces that samples everything and exports to an endpoint, with its metrics and
// log.
func open(t *testing.T, endpoint string) (*Traces, *Metrics, *await.Log) {
	t.Helper()
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log := &await.Log{}
	tr, err := Open(Config{Endpoint: endpoint, Sample: 1, NodeID: "node1", Region: "eu", Version: "1.2.3",
		Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr, m, log
}

func record(tr *Traces, n int) {
	for range n {
		_, span := tr.Tracer().Root(context.Background(), "GET /v1/status", tracing.Context{})
		span.End("")
	}
}

func (m *Metrics) count(result string) float64 {
	return testutil.ToFloat64(m.spans.WithLabelValues(result))
}

// OTLP 1.x over HTTP: a POST of protobuf to /v1/traces, with the node as the resource.
func TestTraces_Collector_GetsSpans(t *testing.T) {
	received := make(chan *tracepb.TracesData, 1)
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || r.Method != "POST" || r.URL.Path != "/v1/traces" || len(r.Header["Authorization"]) > 0 ||
			r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("got %s %s %v, %v, want a POST of protobuf", r.Method, r.URL, r.Header, err)
		}
		received <- &data
	}))
	defer c.Close()
	tr, m, _ := open(t, c.URL)
	record(tr, 3)
	tr.Close()
	data := await.Receive(t, received, "the spans")
	if n := len(data.ResourceSpans[0].ScopeSpans[0].Spans); n != 3 {
		t.Errorf("got %d spans, want 3", n)
	}
	resource := data.ResourceSpans[0].Resource.String()
	for _, want := range []string{"service.name", "revoked", "service.instance.id", "node1", "revoked.region", "1.2.3"} {
		if !strings.Contains(resource, want) {
			t.Errorf("got resource %s, want %s in it", resource, want)
		}
	}
	if m.count("ended") != 3 || m.count("exported") != 3 || m.count("failed") != 0 {
		t.Errorf("got %v ended, %v exported, %v failed, want 3, 3, 0", m.count("ended"), m.count("exported"),
			m.count("failed"))
	}
	var none *Traces
	if none.Close(); none.Tracer() != nil {
		t.Error("nil: got a tracer, want none")
	}
}

// Failures are counted, and logged when they begin and end.
func TestReporter_Failures_AreLoggedOnce(t *testing.T) {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log := &await.Log{}
	to := &failingExporter{InMemoryExporter: tracetest.NewInMemoryExporter()}
	r := &reporter{to: to, metrics: m, log: slog.New(slog.NewTextHandler(log, nil))}
	spans := tracetest.SpanStubs{{Name: "a"}, {Name: "b"}}.Snapshots()
	for _, err := range []error{errors.New("collector answered 503"), errors.New("collector answered 500"), nil, nil} {
		to.err = err
		if err := r.ExportSpans(t.Context(), spans); err != nil {
			t.Errorf("got %v, want nil: the SDK prints errors", err)
		}
	}
	if got := log.String(); strings.Count(got, "cannot export traces") != 1 ||
		strings.Count(got, "trace export recovered") != 1 || !strings.Contains(got, "answered 503") {
		t.Errorf("got log %s, want one line for the failures and one for their end", got)
	}
	if m.count("failed") != 4 || m.count("exported") != 4 {
		t.Errorf("got %v failed and %v exported, want 4 and 4", m.count("failed"), m.count("exported"))
	}
}

type failingExporter struct {
	*tracetest.InMemoryExporter
	err error
}

func (f *failingExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if f.err != nil {
		return f.err
	}
	return f.InMemoryExporter.ExportSpans(ctx, spans)
}

// If a collector accepts connections but never answers, requests do not wait for it. Spans beyond
// the queue are dropped.
func TestTraces_HangingCollector_BlocksNoRequest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted, held := make(chan struct{}, 100), sync.WaitGroup{}
	held.Go(func() {
		var conns []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
			accepted <- struct{}{}
		}
		for _, c := range conns {
			c.Close()
		}
	})
	tr, m, _ := open(t, "http://"+ln.Addr().String())
	record(tr, maxBatch)
	await.Receive(t, accepted, "a connection")
	done := make(chan struct{})
	go func() {
		record(tr, 20*maxQueue)
		close(done)
	}()
	await.Receive(t, done, "all requests") // if requests waited for exportLimit, await would fail
	if got := m.count("ended"); got != maxBatch+20*maxQueue || m.count("exported") != 0 {
		t.Errorf("got %v ended and %v exported, want all and 0", got, m.count("exported"))
	}
	began := time.Now()
	tr.Close()
	if took := time.Since(began); took > exportLimit {
		t.Errorf("close: got %v, want at most %v", took, closeLimit)
	}
	if lost := m.count("failed"); lost > 2*maxBatch+maxQueue {
		t.Errorf("got %v spans kept until the end, want at most %d", lost, 2*maxBatch+maxQueue)
	}
	ln.Close()
	held.Wait()
}

// A redirect is not followed, because it would send the spans elsewhere.
func TestTraces_Redirect_IsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("got a request, want none")
	}))
	defer elsewhere.Close()
	c := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer c.Close()
	tr, m, log := open(t, c.URL)
	record(tr, 1)
	tr.Close()
	if m.count("failed") != 1 || !strings.Contains(log.String(), "collector answered 307") {
		t.Errorf("got %v failed and log %s, want 1 and the status", m.count("failed"), log)
	}
}

func TestParseEndpoint_EachURL_IsReadOrRefused(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:4318": "http://127.0.0.1:4318/v1/traces", "https://c.example/": "https://c.example/v1/traces",
		"https://c.example/otlp/v1/traces": "https://c.example/otlp/v1/traces",
	} {
		if got, err := ParseEndpoint(text); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "c.example:4318", "grpc://c.example", "http://", "http://u:canary@c.example",
		"http://c.example?key=canary", "http://c.example/#canary", "http://c.example:x/canary"} {
		if got, err := ParseEndpoint(text); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %q, %v, want an error without the text", text, got, err)
		}
	}
}
