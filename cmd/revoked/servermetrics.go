package main

import (
	"fmt"

	metrics "github.com/hashicorp/go-metrics/compat"
	metricsprom "github.com/hashicorp/go-metrics/compat/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry returns the registry of the process, with what is true of every Go program and of this
// build.
func newRegistry(nodeID, region string) (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	v := readVersion()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "revoked_build_info", Help: "1; version, commit, node and region are in the labels.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "goversion": v.Go, "node": nodeID, "region": region},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return reg, nil
}

// bridgeMetrics leads the numbers of Raft, its store and gossip into reg, as revoked_raft_... and
// revoked_memberlist_.... Those libraries know only one set of metrics for the process, so the program
// does this and no package below it.
func bridgeMetrics(reg prometheus.Registerer) error {
	// Without an expiration: a series that is quiet for a minute would vanish from the page.
	sink, err := metricsprom.NewPrometheusSinkFrom(metricsprom.PrometheusOpts{Registerer: reg, Expiration: 0})
	if err != nil {
		return fmt.Errorf("bridge metrics: %w", err)
	}
	cfg := metrics.DefaultConfig("revoked")
	cfg.EnableHostname = false
	cfg.EnableRuntimeMetrics = false // the Go collector has them
	if _, err := metrics.NewGlobal(cfg, sink); err != nil {
		return fmt.Errorf("bridge metrics: %w", err)
	}
	return nil
}
