package transport

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what happens on the port.
type metrics struct {
	conns    *prometheus.GaugeVec   // by protocol and direction
	refused  *prometheus.CounterVec // by reason
	calls    *prometheus.CounterVec // by result
	bytesOut prometheus.Counter
	bytesIn  prometheus.Counter
}

// newMetrics registers the metrics; with a nil registerer they are kept and shown to nobody.
func newMetrics(reg prometheus.Registerer, certs *Certs) (*metrics, error) {
	m := &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "revoked_peer_connections",
			Help: "Open connections with other nodes, by protocol (raft, call) and direction (in, out).",
		}, []string{"protocol", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revoked_peer_refused_total",
			Help: "Connections refused on the cluster port, by reason (handshake, not_allowed, another_instance, full).",
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
		Help: "When the node's certificate for the cluster port ends, in Unix seconds.",
	}, func() float64 { return float64(certs.Expiry().Unix()) })
	for _, c := range []prometheus.Collector{m.conns, m.refused, m.calls, m.bytesOut, m.bytesIn, expiry} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register transport metrics: %w", err)
		}
	}
	return m, nil
}
