package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the node's own numbers. Raft's, boltdb's and memberlist's come through go-metrics.
type metrics struct {
	commit      prometheus.Histogram
	propagation prometheus.Histogram
	entryOps    prometheus.Histogram
	forwarded   prometheus.Counter
	proofs      *prometheus.CounterVec
	lookups     lookups

	leaseLosses   prometheus.Counter
	leaseRefusals *prometheus.CounterVec
}

// lookups are counters of one family, found once: every introspection counts one.
type lookups struct{ dead, leased, unknown, unleased prometheus.Counter }

func newMetrics(n *Node, reg prometheus.Registerer) *metrics {
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 15)
	m := &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_commit_seconds",
			Help: "Time from the proposal of a log entry until it was applied on the leader.", Buckets: seconds}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_propagation_seconds",
			Help: "Time from the commit of a revocation until every reachable member had applied it.", Buckets: seconds}),
		entryOps: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "revoked_entry_operations",
			Help: "Operations in one log entry; 0 is a tick.", Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{Name: "revoked_forwarded_operations_total",
			Help: "Operations and proofs that this node asked of the leader."}),
		proofs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "revoked_proofs_total",
			Help: "Answers that had to be proven current, by outcome."}, []string{"outcome"}),
	}
	verdicts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "revoked_lookups_total",
		Help: "Token look-ups in this node's own copy, by what it held."}, []string{"verdict"})
	m.lookups = lookups{
		dead: verdicts.WithLabelValues("dead"), leased: verdicts.WithLabelValues("leased"),
		unknown: verdicts.WithLabelValues("unknown"), unleased: verdicts.WithLabelValues("unleased"),
	}
	m.leaseLosses = prometheus.NewCounter(prometheus.CounterOpts{Name: "revoked_lease_losses_total",
		Help: "Times that this node lost its read lease."})
	m.leaseRefusals = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "revoked_lease_refusals_total",
		Help: "Read leases that this leader did not grant, by reason."}, []string{"reason"})
	for _, reason := range []refusalReason{refusedNotMember, refusedBehind, refusedDiverged, refusedLapsed, refusedClock, refusedRate, refusedReturned, refusedSilent} {
		m.leaseRefusals.WithLabelValues(string(reason)) // there from the start, so that a first one is an increase
	}
	reg.MustRegister(m.leaseLosses, m.leaseRefusals,
		gauge("revoked_lease_left_seconds", "How long this node may still answer from its own copy; 0 without a lease.",
			func() float64 { return n.leases.left().Seconds() }))
	reg.MustRegister(m.commit, m.propagation, m.entryOps, m.forwarded, m.proofs, verdicts,
		gauge("revoked_applied_index", "Log index that this node has applied.", func() float64 { return float64(n.fsm.Applied()) }),
		gauge("revoked_commit_index", "Log index that this node knows to be committed.", func() float64 { return float64(n.raft.CommitIndex()) }),
		gauge("revoked_term", "Raft term of this node.", func() float64 { return float64(n.raft.CurrentTerm()) }),
		gauge("revoked_leader", "1 on the node that leads and may propose.", func() float64 { return truth(n.proposer.Load() != nil) }),
		gauge("revoked_tokens", "Live token records in the state.", func() float64 { t, _ := n.fsm.Counts(); return float64(t) }),
		gauge("revoked_grants", "Live grants in the state.", func() float64 { _, g := n.fsm.Counts(); return float64(g) }),
		gauge("revoked_log_bytes", "Size of the Raft log file.", func() float64 { return float64(n.stores.Size()) }),
		gauge("revoked_diverged", "1 when this node's state was found to differ from the leader's.", func() float64 { return truth(n.diverged.Load()) }),
	)
	return m
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
