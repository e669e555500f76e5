package cache

import "github.com/prometheus/client_golang/prometheus"

// metrics count the work of the record cache.
type metrics struct{ hits, misses, stale, evictions prometheus.Counter }

func newMetrics(reg prometheus.Registerer, bytes func() float64) metrics {
	m := metrics{
		hits: counter("revoked_cache_hits_total", "Lookups answered from the record cache."),
		misses: counter("revoked_cache_misses_total",
			"Lookups that read the state, including those of stale records and unknown tokens."),
		stale:     counter("revoked_cache_stale_total", "Records found in the cache that had changed since."),
		evictions: counter("revoked_cache_evictions_total", "Records evicted to make room for others."),
	}
	reg.MustRegister(m.hits, m.misses, m.stale, m.evictions,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "revoked_cache_bytes", Help: "Approximate size of the records in the cache.",
		}, bytes))
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}
