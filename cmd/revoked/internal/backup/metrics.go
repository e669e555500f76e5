package backup

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// The names of the targets in labels and in the status.
const (
	targetDir = "dir"
	targetS3  = "s3"
)

// Metrics are the metrics of backups. A target that is not configured has no series.
type Metrics struct {
	last, due, size, duration *prometheus.GaugeVec
	failures                  *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"target"})
	}
	m := &Metrics{
		last: gauge("revoked_backup_last_success_timestamp_seconds",
			"When the newest successful backup began, in Unix seconds."),
		due: gauge("revoked_backup_due_timestamp_seconds",
			"When the next backup is due, in Unix seconds. A time in the past means that it is overdue."),
		size:     gauge("revoked_backup_size_bytes", "Size of the newest successful backup."),
		duration: gauge("revoked_backup_duration_seconds", "How long the newest successful backup took."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "revoked_backup_failures_total", Help: "Attempts to make a backup that failed.",
		}, []string{"target"}),
	}
	for _, c := range []prometheus.Collector{m.last, m.due, m.size, m.duration, m.failures} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
