// Package auditlog writes the audit log of a node as JSON, one object a line, for log collectors.
//
// Every node writes the entries of the whole cluster once it has applied them, so the log of one
// node is complete. A line is an entry of GET /v1/audit with its id. The log never blocks the node.
// While writes fail, the entries remain in the state, and the audit log's retention bounds them
// there.
package auditlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/internal/retry"
)

// A Source is the part of *node.Node that the log reads.
type Source interface {
	// Audit returns entries with an index in (after, upTo]. It returns ErrGone if some of them were
	// dropped.
	Audit(ctx context.Context, after uint64, limit int) (list []revoked.AuditEntry, upTo uint64, err error)
	// WaitAudit blocks until there may be an entry with an index above after.
	WaitAudit(ctx context.Context, after uint64) error
	// AuditBefore returns an index up to which every entry is older than at. If at is 0, it returns
	// the index of the last entry that was dropped.
	AuditBefore(at revoked.Time) (uint64, error)
	// Era returns the era of the cluster, to which the indexes belong: see [revoked.EraOf].
	Era() string
}

const (
	pageSize   = 256         // maximum number of entries in one read
	retryPause = time.Second // pause after an error
)

// A Log writes the audit log to one destination. Run and Local may run at the same time.
type Log struct {
	mu      sync.Mutex // guards out; out.reopen needs no lock
	out     output
	source  Source
	log     *slog.Logger
	metrics *Metrics
	failed  bool // the last attempt to write failed
}

// Metrics are the metrics of a log.
type Metrics struct {
	failing prometheus.Gauge
	errors  prometheus.Counter
}

// NewMetrics registers the metrics. They stay 0 if the node writes no audit log.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "revoked_audit_log_failing", Help: "1 while audit_log cannot be written.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "revoked_audit_log_errors_total", Help: "Failed attempts to write audit_log.",
		}),
	}
	for _, c := range []prometheus.Collector{m.failing, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// New returns a log that appends to the file at path, or writes to stderr if path is empty. It
// fails if the file cannot be opened.
func New(path string, stderr io.Writer, s Source, log *slog.Logger, m *Metrics) (*Log, error) {
	l := &Log{source: s, log: log, metrics: m}
	if path == "" {
		l.out = &stream{stderr}
		return l, nil
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	l.out = f
	return l, nil
}

// Reopen makes the log open its file again before the next entry, after a rotation. It does not
// block.
func (l *Log) Reopen() { l.out.reopen() }

// Run writes the entries that the node applies until ctx ends. If the output is a file with
// entries, Run continues after the last one. Otherwise it begins after the index start. After an
// error, Run tries again.
func (l *Log) Run(ctx context.Context, start uint64) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.out.close()
	}()
	for l.source.Era() == revoked.EraOf("") { // while the node is not in a cluster
		if l.source.WaitAudit(ctx, start) != nil {
			return
		}
	}
	after := l.resume(start)
	for ctx.Err() == nil {
		err := l.step(ctx, &after)
		if ctx.Err() != nil || errors.Is(err, revoked.ErrClosed) {
			return
		}
		l.report(err)
		if err != nil {
			_ = retry.Sleep(ctx, retryPause)
		}
	}
}

// resume returns the index after which Run begins.
func (l *Log) resume(start uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch last := l.out.last(); {
	case last == revoked.Position{}:
		return start
	case last.Era == l.source.Era():
		return last.Index
	}
	return 0 // the cluster was restored or recovered: its first entry names the command
}

// step writes the next page of entries, or waits for one.
func (l *Log) step(ctx context.Context, after *uint64) error {
	list, upTo, err := l.source.Audit(ctx, *after, pageSize)
	switch {
	case errors.Is(err, revoked.ErrGone):
		floor, err := l.source.AuditBefore(0)
		if err == nil && floor > *after {
			l.log.Warn("audit entries were dropped before they reached audit_log", "after_index", *after, "up_to_index", floor)
			*after = floor
		}
		return err
	case err != nil:
		return fmt.Errorf("read audit entries: %w", err)
	case len(list) > 0:
		if err := l.write(list); err != nil {
			return err
		}
	}
	if upTo > *after {
		*after = upTo
		return nil
	}
	return l.source.WaitAudit(ctx, *after)
}

func (l *Log) write(list []revoked.AuditEntry) error {
	var lines []byte
	era := l.source.Era()
	for i := range list {
		line, err := api.FormatAudit(&list[i], era)
		if err != nil {
			return fmt.Errorf("format audit entry: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.write(lines)
}

// Local writes an entry that only this node has, because the node is not in a cluster. The line has
// no id. If the write fails, audit_log lacks the entry, but the node's own log has it.
func (l *Log) Local(e revoked.AuditEntry) {
	line, err := api.FormatAudit(&e, "")
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		err = l.out.write(append(line, '\n'))
	}
	if err != nil {
		l.metrics.errors.Inc()
		l.log.Error("cannot write audit entry of this node to audit_log", "error", err)
	}
}

// report records the result of an attempt to write. It counts each failure, and logs the first
// failure and the first success after it.
func (l *Log) report(err error) {
	if err != nil {
		l.metrics.errors.Inc()
		l.metrics.failing.Set(1)
		if !l.failed {
			l.log.Error("cannot write audit_log; the entries are kept in the cluster state", "error", err)
		}
	} else if l.failed {
		l.metrics.failing.Set(0)
		l.log.Info("audit_log can be written again")
	}
	l.failed = err != nil
}
