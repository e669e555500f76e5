package api

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the API counts. Labels have few values: a client id is never one.
type metrics struct {
	requests       requestCounter
	inFlight       prometheus.Gauge
	panics         prometheus.Counter
	authFailures   *prometheus.CounterVec        // kind: none presented, failed
	throttled      *prometheus.CounterVec        // budget: authentication, misses
	revocations    *prometheus.CounterVec        // outcome
	introspections map[string]prometheus.Counter // result: active, inactive, unknown, error
	checks         *prometheus.CounterVec        // result: active, inactive, unknown, none, malformed, error
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "revoked", Subsystem: "api", Name: name, Help: help}, labels)
	}
	introspections := counter("introspections_total", "Introspections of authenticated callers, by result.", "result")
	m := &metrics{
		requests: requestCounter{
			counts: counter("requests_total", "Requests answered, by route, status and outcome.", "route", "status", "outcome"),
			duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Namespace: "revoked", Subsystem: "api", Name: "request_duration_seconds",
				Help:    "Time from the request's header to the end of its answer.",
				Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			}, []string{"route"}),
		},
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "revoked", Subsystem: "api", Name: "in_flight_requests",
			Help: "Requests being answered now."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "revoked", Subsystem: "api", Name: "panics_total",
			Help: "Handlers that panicked."}),
		authFailures:   counter("authentication_failures_total", "Callers that did not authenticate: none presented, or failed.", "kind"),
		throttled:      counter("throttled_total", "Requests refused with 429 for a budget kept here.", "budget"),
		revocations:    counter("revocations_total", "Revocation requests of authenticated callers, by outcome.", "outcome"),
		introspections: map[string]prometheus.Counter{},
		checks:         counter("checks_total", "Forward authentications, by result.", "result"),
	}
	for _, result := range []string{"active", "inactive", "unknown", "error"} {
		m.introspections[result] = introspections.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{m.requests.counts, m.requests.duration, m.inFlight, m.panics, m.authFailures,
		m.throttled, m.revocations, introspections, m.checks} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
