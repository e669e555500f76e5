package jwks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// A Collector reports the keys of all issuers, from this node's copy of the state, and the fetches
// of its runner. The runner runs only on the leader, so only the leader has series of fetches.
type Collector struct {
	runner                            *Runner
	issuers, keys, last, age, failing *prometheus.Desc
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector for the issuers of r.
func NewCollector(r *Runner) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		runner:  r,
		issuers: desc("revoked_issuers", "Trusted issuers of JWTs, by where their keys come from.", "keys"),
		keys:    desc("revoked_issuer_keys", "Keys of a trusted issuer, by state.", "issuer", "state"),
		last: desc("revoked_issuer_last_fetch_seconds",
			"On the leader: when the last fetch of the keys ended, in Unix seconds.", "issuer"),
		age: desc("revoked_issuer_fetch_age_seconds",
			"On the leader: time since the last fetch that succeeded, or since this node began to fetch.", "issuer"),
		failing: desc("revoked_issuer_fetch_failures",
			"On the leader: fetches that failed since the last one that succeeded.", "issuer"),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.issuers, c.keys, c.last, c.age, c.failing} {
		to <- d
	}
}

// Collect implements prometheus.Collector. It reads the copy of the state at each scrape, so a
// deleted issuer has no series.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	given, fetched := 0, 0
	for _, i := range c.runner.cfg.Issuers() {
		if i.JWKSURI == "" {
			given++
		} else {
			fetched++
		}
		count := map[revoked.KeyState]int{}
		for _, k := range i.Keys {
			count[k.State]++
		}
		for _, s := range []revoked.KeyState{revoked.KeyActive, revoked.KeyRetired, revoked.KeyBanned} {
			send(c.keys, float64(count[s]), i.Name, s.String())
		}
	}
	send(c.issuers, float64(given), "given")
	send(c.issuers, float64(fetched), "fetched")
	states, _ := c.runner.States()
	for name, s := range states {
		send(c.age, time.Since(s.Since).Seconds(), name)
		send(c.failing, float64(s.Failures), name)
		if !s.At.IsZero() {
			send(c.last, float64(s.At.UnixMilli())/1e3, name)
		}
	}
}
