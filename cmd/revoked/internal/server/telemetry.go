package server

import (
	"fmt"

	metrics "github.com/hashicorp/go-metrics/compat"
	metricsprom "github.com/hashicorp/go-metrics/compat/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// A Build describes the binary.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with uncommitted changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// NewRegistry returns the registry of the process, with the metrics of the Go runtime, the process
// and the build.
func NewRegistry(v Build, nodeID, region string) (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "revoked_build_info", Help: "1; version, commit, node and region are in the labels.",
		ConstLabels: prometheus.Labels{
			"version": v.Version, "commit": v.Commit, "goversion": v.Go, "node": nodeID, "region": region,
		},
	})
	build.Set(1)
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	for _, c := range []prometheus.Collector{build, collectors.NewGoCollector(), process} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return reg, nil
}

// bridgeMetrics registers the metrics of Raft, its store and gossip in reg, as revoked_raft_... and
// revoked_memberlist_.... The libraries share one global sink, so only the program may set it.
func bridgeMetrics(reg prometheus.Registerer) error {
	// With an expiration, a series without a change for a minute would vanish.
	sink, err := metricsprom.NewPrometheusSinkFrom(metricsprom.PrometheusOpts{Registerer: reg, Expiration: 0})
	cfg := metrics.DefaultConfig("revoked")
	cfg.EnableHostname = false
	cfg.EnableRuntimeMetrics = false // the Go collector has them
	if err == nil {
		_, err = metrics.NewGlobal(cfg, sink)
	}
	if err != nil {
		return fmt.Errorf("bridge metrics: %w", err)
	}
	return nil
}
