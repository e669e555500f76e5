package serve

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of a server. Labels have few values.
type metrics struct {
	connsRefused    *prometheus.CounterVec // by cause
	connsEvicted    prometheus.Counter
	requestsRefused *prometheus.CounterVec // by cause
	http2Errors     *prometheus.CounterVec // by cause
}

// newMetrics registers the metrics of s, unless r is nil. It panics if r already has the metrics of
// a server.
func newMetrics(r prometheus.Registerer, s *Server) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "revoked", Subsystem: "api", Name: name, Help: help}
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), []string{"cause"})
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), func() float64 { return float64(value()) })
	}
	m := &metrics{
		connsRefused: counter("connections_refused_total", "Connections closed or refused at a limit, by cause."),
		connsEvicted: prometheus.NewCounter(prometheus.CounterOpts(
			opts("connections_evicted_total", "Idle connections closed to make room for new ones."))),
		requestsRefused: counter("requests_refused_total", "Requests refused at a limit of the port, by cause."),
		http2Errors:     counter("http2_errors_total", "Protocol errors of HTTP/2 peers, by cause."),
	}
	for _, cause := range []string{causeConnections, causeAddressConnections, causeSilent, causeGone, causeHandshake,
		causeProxyV1, causeProxyV2, causeCleartext, causeNotHTTP, causeFrame, causeBlocks} {
		m.connsRefused.WithLabelValues(cause)
	}
	for cause := range refusals {
		m.requestsRefused.WithLabelValues(cause)
	}
	if r != nil {
		r.MustRegister(m.connsRefused, m.connsEvicted, m.requestsRefused, m.http2Errors,
			gauge("connections", "Open connections.", func() int { open, _ := s.slots.counts(); return open }),
			gauge("idle_connections", "Open connections without a request.",
				func() int { _, idle := s.slots.counts(); return idle }),
			gauge("admitted_requests", "Requests in progress that count for the limits.", s.requests.count))
	}
	return m
}

// rareTime is the minimum time between two warnings with one cause.
const rareTime = time.Minute

// A rareLog writes warnings whose number a peer controls: at most one per cause in rareTime.
type rareLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // time of the last warning, by cause
	left map[string]int       // number of warnings not logged since, by cause
}

// warn logs that a peer was refused, unless it logged the same cause a short time ago.
func (r *rareLog) warn(message, cause, remote string, attrs ...any) {
	r.mu.Lock()
	now := time.Now()
	if at, ok := r.last[cause]; ok && now.Sub(at) < rareTime {
		r.left[cause]++
		r.mu.Unlock()
		return
	}
	left := r.left[cause]
	r.last[cause], r.left[cause] = now, 0
	r.mu.Unlock()
	r.log.Warn(message, append([]any{"cause", cause, "remote", remote, "not_logged", left}, attrs...)...)
}
