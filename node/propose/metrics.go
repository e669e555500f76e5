package propose

import "github.com/prometheus/client_golang/prometheus"

// Metrics measures log entries, and counts forwarded operations.
type Metrics struct {
	commit      prometheus.Histogram
	propagation prometheus.Histogram
	entryOps    prometheus.Histogram
	bulkPause   prometheus.Histogram
	forwarded   prometheus.Counter
}

// NewMetrics registers the metrics in reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 15)
	m := &Metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_commit_seconds",
			Help: "Time from the proposal of a log entry until it was applied on the leader.", Buckets: seconds}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_propagation_seconds",
			Help: "Time from the commit of a revocation until every reachable member had applied it.", Buckets: seconds}),
		entryOps: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_entry_operations",
			Help:    "Operations in one log entry; 0 is an empty entry.",
			Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}}),
		bulkPause: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_bulk_pause_seconds",
			Help: "Wait for the members before the next entry of bulk registrations.", Buckets: seconds}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{Name: "revoked_forwarded_operations_total",
			Help: "Operations and read barriers that this node forwarded to the leader."}),
	}
	reg.MustRegister(m.commit, m.propagation, m.entryOps, m.bulkPause, m.forwarded)
	return m
}
