package api

import (
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of the API. A label has few values; a client id is never a label.
type metrics struct {
	requests     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	inFlight     prometheus.Gauge
	panics       prometheus.Counter
	authFailures *prometheus.CounterVec // label kind: none presented, failed
	throttled    *prometheus.CounterVec // label budget: a limiter, or a kind of slots
	auditLost    *prometheus.CounterVec // label cause: limit, error
}

// newMetrics registers the metrics. It fails if r already has the metrics of an API.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Namespace: "revoked", Subsystem: "api", Name: name, Help: help}
		return prometheus.NewCounterVec(opts, labels)
	}
	m := &metrics{
		requests: counter("requests_total", "Requests answered, by route, status and outcome.", "route", "status", "outcome"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "revoked", Subsystem: "api", Name: "request_duration_seconds",
			Help:    "Time from the request's header to the end of its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "revoked", Subsystem: "api", Name: "in_flight_requests",
			Help: "Requests being answered now."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "revoked", Subsystem: "api", Name: "panics_total",
			Help: "Handlers that panicked."}),
		authFailures: counter("authentication_failures_total",
			"Failed authentications, by kind: none presented, or failed.", "kind"),
		throttled: counter("throttled_total", "Requests refused with 429 by a limit of this node, by budget.", "budget"),
		auditLost: counter("audit_entries_lost_total",
			"Audit entries of refused calls and backups that were not recorded: over the limit, or not committed.", "cause"),
	}
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.inFlight, m.panics, m.authFailures,
		m.throttled, m.auditLost} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, cause := range []string{"limit", "error"} {
		m.auditLost.WithLabelValues(cause) // starts at 0, so that a rate includes the first loss
	}
	return m, nil
}

// routeMetrics are the metrics of one route. Their series appear with the first request.
type routeMetrics struct {
	requests  *prometheus.CounterVec // labels status, outcome
	durations prometheus.ObserverVec // no labels

	// known holds the series found before: a lookup in a vector hashes every label. add replaces the
	// map, so that its readers need no lock.
	known atomic.Pointer[map[routeLabels]routeSeries]
	mu    sync.Mutex // held while known is replaced
}

// routeLabels are the labels of a series that change within a route.
type routeLabels struct {
	status  int
	outcome string
}

// A routeSeries holds the metrics of one status and outcome of a route.
type routeSeries struct {
	requests  prometheus.Counter
	durations prometheus.Observer
}

// forRoute sets the label of the route once, so that a request looks up only the other two. path is
// a pattern of the routes table and never the path of a request, which could contain a token.
func (m *metrics) forRoute(path string) *routeMetrics {
	r := &routeMetrics{
		requests:  m.requests.MustCurryWith(prometheus.Labels{"route": path}),
		durations: m.durations.MustCurryWith(prometheus.Labels{"route": path}),
	}
	r.known.Store(&map[routeLabels]routeSeries{})
	return r
}

// add counts one request. It takes mu only for the first request with this status and outcome.
func (m *routeMetrics) add(status int, outcome string, took time.Duration) {
	labels := routeLabels{status, outcome}
	s, ok := (*m.known.Load())[labels]
	if !ok {
		s = m.find(labels)
	}
	s.requests.Inc()
	s.durations.Observe(took.Seconds())
}

// find returns the series with these labels and adds them to known.
func (m *routeMetrics) find(labels routeLabels) routeSeries {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := routeSeries{
		m.requests.WithLabelValues(strconv.Itoa(labels.status), labels.outcome), m.durations.WithLabelValues(),
	}
	known := maps.Clone(*m.known.Load())
	known[labels] = s
	m.known.Store(&known)
	return s
}
