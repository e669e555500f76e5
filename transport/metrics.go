package transport

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"revoked/transport/pki"
)

// metrics are the counters and gauges of the port.
type metrics struct {
	conns    *prometheus.GaugeVec   // by protocol and direction
	refused  *prometheus.CounterVec // by reason
	calls    *prometheus.CounterVec // by result
	bytesOut prometheus.Counter
	bytesIn  prometheus.Counter
}

// newMetrics returns the metrics, registered unless reg is nil. It returns an error if a name is
// already registered: two nodes must not share a registry.
func newMetrics(reg prometheus.Registerer, certs *pki.Certs) (*metrics, error) {
	m := &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "revoked_peer_connections",
			Help: "Open connections with other nodes, by protocol (raft, call) and direction (in, out).",
		}, []string{"protocol", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revoked_peer_refused_total",
			Help: "Connections refused on the cluster port, by reason (silent, not_tls, displaced: yielded to a " +
				"newer one; handshake, not_allowed, another_instance, full).",
		}, []string{"reason"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revoked_peer_calls_total",
			Help: "Calls to other nodes, by result (ok, refused: answered with an error; not_sent; unknown: sent, no answer).",
		}, []string{"result"}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revoked_peer_sent_bytes_total", Help: "Bytes sent to other nodes, TLS included.",
		}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revoked_peer_received_bytes_total", Help: "Bytes received from other nodes, TLS included.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "revoked_peer_certificate_expiry_seconds",
		Help: "When the node's certificate for the cluster port expires, in Unix seconds.",
	}, func() float64 { return float64(certs.Expiry().Unix()) })
	for _, c := range []prometheus.Collector{m.conns, m.refused, m.calls, m.bytesOut, m.bytesIn, expiry} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register transport metrics: %w", err)
		}
	}
	return m, nil
}

// Limits of the log lines about refused connections: a burst, then one per minute.
const (
	refusalBurst = 5
	refusalEvery = time.Minute
)

// refusals counts and logs refused connections. Each reason has its own limit for log lines, and a
// separate limit for known addresses. So unknown sources can neither flood the log nor hide the
// refusal of a member.
type refusals struct {
	metrics *metrics
	log     *slog.Logger

	mu   sync.Mutex
	logs map[refusalKind]*refusalLog
}

type refusalKind struct {
	reason string
	known  bool
}

type refusalLog struct {
	limit   *rate.Limiter
	skipped int // number of refusals that were not logged since the last line
}

func newRefusals(m *metrics, log *slog.Logger) *refusals {
	return &refusals{metrics: m, log: log, logs: make(map[refusalKind]*refusalLog)}
}

// report counts a refusal, and logs it within its limit. A line has the number of refusals that
// were not logged since the last line.
func (r *refusals) report(from net.Addr, known bool, reason string, err error) {
	r.metrics.refused.WithLabelValues(reason).Inc()
	r.mu.Lock()
	l := r.logs[refusalKind{reason, known}]
	if l == nil {
		l = &refusalLog{limit: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst)}
		r.logs[refusalKind{reason, known}] = l
	}
	if !l.limit.Allow() {
		l.skipped++
		r.mu.Unlock()
		return
	}
	skipped := l.skipped
	l.skipped = 0
	r.mu.Unlock()
	r.log.Warn("refused a connection on the cluster port", "from", from.String(), "reason", reason, "error", err,
		"not_logged", skipped)
}
