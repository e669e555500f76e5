package api

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A requestCounter counts requests by route, status and outcome. A vector of Prometheus hashes its
// labels under a lock at every call; here what was counted once is found in a map that is never
// changed, only replaced. It holds as many series as the vector does: few.
type requestCounter struct {
	counts   *prometheus.CounterVec
	duration *prometheus.HistogramVec

	mu    sync.Mutex // of those who replace known
	known atomic.Pointer[map[requestSeries]requestMetrics]
}

type requestSeries struct {
	route   string
	status  int
	outcome string
}

type requestMetrics struct {
	count    prometheus.Counter
	duration prometheus.Observer
}

// add counts one request.
func (r *requestCounter) add(route string, status int, outcome string, took time.Duration) {
	s := requestSeries{route, status, outcome}
	m, ok := requestMetrics{}, false
	if known := r.known.Load(); known != nil {
		m, ok = (*known)[s]
	}
	if !ok {
		m = r.learn(s)
	}
	m.count.Inc()
	m.duration.Observe(took.Seconds())
}

func (r *requestCounter) learn(s requestSeries) requestMetrics {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := requestMetrics{r.counts.WithLabelValues(s.route, strconv.Itoa(s.status), s.outcome), r.duration.WithLabelValues(s.route)}
	next := map[requestSeries]requestMetrics{s: m}
	if known := r.known.Load(); known != nil {
		maps.Copy(next, *known)
	}
	r.known.Store(&next)
	return m
}
