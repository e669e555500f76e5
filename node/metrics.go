package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node/lease"
)

// metrics count reads and read leases. Raft, boltdb and memberlist report through go-metrics.
type metrics struct {
	lookups  struct{ dead, leased, unknown, unleased prometheus.Counter }
	barriers struct{ proven, failed prometheus.Counter }

	leaseLosses   prometheus.Counter
	leaseRefusals *prometheus.CounterVec
	keyFetches    struct{ done, failed prometheus.Counter }
	auditLost     prometheus.Counter
}

// newMetrics registers the metrics in reg. It panics if another node in the process also uses reg.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		leaseLosses: counter("revoked_lease_losses_total", "Times that this node lost its read lease."),
		leaseRefusals: counters("revoked_lease_refusals_total",
			"Read leases that this leader did not grant, by reason.", "reason"),
		auditLost: counter("revoked_audit_lost_total",
			"Completed membership changes whose audit entry was not committed."),
	}
	verdicts := counters("revoked_lookups_total", "Token lookups in this node's own copy, by verdict.", "verdict")
	m.lookups.dead, m.lookups.leased = verdicts.WithLabelValues("dead"), verdicts.WithLabelValues("leased")
	m.lookups.unknown, m.lookups.unleased = verdicts.WithLabelValues("unknown"), verdicts.WithLabelValues("unleased")
	barriers := counters("revoked_proofs_total", "Answers that needed a read barrier, by outcome.", "outcome")
	m.barriers.proven, m.barriers.failed = barriers.WithLabelValues("proven"), barriers.WithLabelValues("failed")
	for _, reason := range []lease.Refusal{
		lease.RefusedNotMember, lease.RefusedBehind, lease.RefusedDiverged, lease.RefusedLapsed,
		lease.RefusedClock, lease.RefusedRate, lease.RefusedReturned, lease.RefusedSilent,
	} {
		m.leaseRefusals.WithLabelValues(string(reason)) // exports the counter at 0, so that a rate includes the first refusal
	}
	fetches := counters("revoked_key_fetches_total", "Fetches of key sets of trusted issuers by this leader, by outcome.",
		"outcome")
	m.keyFetches.done, m.keyFetches.failed = fetches.WithLabelValues("done"), fetches.WithLabelValues("failed")
	reg.MustRegister(fetches, m.auditLost, m.leaseLosses, m.leaseRefusals, verdicts, barriers)
	return m
}

func (m *metrics) countRefusal(r lease.Refusal) { m.leaseRefusals.WithLabelValues(string(r)).Inc() }

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

func toFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A votingCollector exports which voters answer, according to the reports that the leader receives.
// It has series only on the leader, because other nodes could disagree about which voters answer.
type votingCollector struct {
	view                               func() ([]revoked.Member, bool)
	voters, up, tolerance, ofWholeOnes *prometheus.Desc
}

func newVotingCollector(view func() ([]revoked.Member, bool)) *votingCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &votingCollector{
		view:   view,
		voters: desc("revoked_voters", "On the leader: voters of the cluster, by region.", "region"),
		up:     desc("revoked_voters_up", "On the leader: voters that answer, by region.", "region"),
		tolerance: desc("revoked_failure_tolerance",
			"On the leader: further voters that may fail, whichever they are."),
		ofWholeOnes: desc("revoked_region_failure_tolerance",
			"On the leader: whole regions that may fail, whichever they are."),
	}
}

// Describe implements prometheus.Collector.
func (c *votingCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.voters, c.up, c.tolerance, c.ofWholeOnes} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *votingCollector) Collect(to chan<- prometheus.Metric) {
	members, leads := c.view()
	if !leads {
		return
	}
	send := func(d *prometheus.Desc, v int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	v := revoked.VotingOf(members)
	for _, r := range v.Regions {
		send(c.voters, r.Voters, r.Region)
		send(c.up, r.Up, r.Region)
	}
	send(c.tolerance, v.FailureTolerance)
	send(c.ofWholeOnes, v.RegionTolerance)
}
