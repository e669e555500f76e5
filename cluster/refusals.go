package cluster

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// The reasons for which the port refuses a message or a connection. Any other error means that the
// message did not arrive.
var (
	errLabel      = errors.New("message with unacceptable label")
	errPlain      = errors.New("message is not encrypted with AES-GCM")
	errKey        = errors.New("no installed keys could decrypt the message")
	errOversized  = errors.New("message is too large")
	errCompressed = errors.New("message is compressed")
	errType       = errors.New("message type is not allowed")
	errMalformed  = errors.New("malformed message")
	errIndirect   = errors.New("too many indirect pings")
	errNodes      = errors.New("too many nodes")
	errDisplaced  = errors.New("displaced by a newer connection: too many are waiting")
	errFull       = errors.New("too many connections")
)

// noMessage begins the error for a stream whose message did not arrive.
const noMessage = "no complete message"

// reasons maps the errors to the label of revoked_gossip_refused_total.
var reasons = []struct {
	err   error
	label string
}{
	{errLabel, "cluster"}, {errPlain, "not_encrypted"}, {errKey, "key"}, {errOversized, "too_large"},
	{errCompressed, "compressed"}, {errType, "type"}, {errMalformed, "malformed"}, {errIndirect, "indirect_pings"},
	{errNodes, "nodes"}, {errDisplaced, "displaced"}, {errFull, "full"},
}

// reasonSilent is the label for a message that did not arrive.
const reasonSilent = "silent"

// reasonOf returns the label of an error. It never returns a text that a sender chose, so the
// metric has a fixed number of series.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.label
		}
	}
	return reasonSilent
}

// Metrics counts what the gossip port refuses. A nil *Metrics counts nothing.
type Metrics struct {
	refused *prometheus.CounterVec // refusals by reason
}

// NewMetrics registers the metrics in reg, which may be nil. It panics if reg has them already: one
// registry serves one node.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "revoked_gossip_refused_total",
		Help: "Gossip messages and connections refused, by reason (cluster, not_encrypted, key, too_large, compressed, " +
			"type, malformed, indirect_pings, nodes, silent, displaced, full).",
	}, []string{"reason"})}
	if reg != nil {
		reg.MustRegister(m.refused)
	}
	return m
}

func (m *Metrics) refuse(reason string) {
	if m != nil {
		m.refused.WithLabelValues(reason).Inc()
	}
}
