package backup

import (
	"context"
	"sync"
	"time"

	"revoked/internal/retry"
)

// The pauses after failures double from the first to the longest.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// maxSleep bounds a sleep, because a timer does not follow a clock that is set.
const maxSleep = time.Minute

// A task makes the backups of one target, one after the other.
type task struct {
	b      *Backups
	target string
	next   func(last time.Time) time.Time // the turn after the backup of that moment
	save   func(ctx context.Context, cluster string) (File, error)
	find   func(ctx context.Context, cluster string) (File, error) // the newest backup; zero: none

	mu   sync.Mutex
	last time.Time // of the newest good backup; zero: none
}

func (b *Backups) newTask(target string, next func(time.Time) time.Time,
	save, find func(context.Context, string) (File, error)) *task {
	return &task{b: b, target: target, next: next, save: save, find: find}
}

func (t *task) newest() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// run makes backups until ctx ends. A target without a backup gets one at once. So does one that
// missed a turn while the node did not run.
func (t *task) run(ctx context.Context, cluster string) {
	log, metrics := t.b.cfg.Log.With("target", t.target), t.b.cfg.Metrics
	began := t.b.cfg.Now()
	found, err := t.find(ctx, cluster)
	if err == nil && found.Name != "" {
		t.done(found)
	} else {
		metrics.due.WithLabelValues(t.target).Set(seconds(began))
	}
	at, failures := t.turn(), 0
	for t.sleepUntil(ctx, at) == nil {
		began := t.b.cfg.Now()
		file, err := t.save(ctx, cluster)
		switch took := t.b.cfg.Now().Sub(began); {
		case ctx.Err() != nil:
			return
		case err != nil:
			metrics.failures.WithLabelValues(t.target).Inc()
			at = t.retryAt(failures)
			failures++
			log.Error("backup failed; the older ones are kept", "error", err, "retry_at", at.UTC())
		default:
			failures = 0
			t.done(file)
			metrics.duration.WithLabelValues(t.target).Set(took.Seconds())
			log.Info("backup saved", "file", file.Name, "index", file.Index, "bytes", file.Bytes,
				"duration_seconds", took.Seconds())
			at = t.turn()
		}
	}
}

// done records a good backup.
func (t *task) done(f File) {
	t.mu.Lock()
	t.last = f.At
	t.mu.Unlock()
	metrics := t.b.cfg.Metrics
	metrics.last.WithLabelValues(t.target).Set(seconds(f.At))
	metrics.size.WithLabelValues(t.target).Set(float64(f.Bytes))
	metrics.due.WithLabelValues(t.target).Set(seconds(t.next(f.At)))
}

// turn returns when the next backup is due. A backup from the future counts as made now: the clock
// was set back.
func (t *task) turn() time.Time {
	last, now := t.newest(), t.b.cfg.Now()
	switch {
	case last.IsZero():
		return now
	case last.After(now):
		last = now
	}
	return t.next(last)
}

// retryAt returns when to try again after failures: soon, and at the next turn at the latest.
func (t *task) retryAt(failures int) time.Time {
	now := t.b.cfg.Now()
	at := now.Add(min(firstRetry<<min(failures, 10), lastRetry))
	if next := t.next(now); next.Before(at) {
		return next
	}
	return at
}

// sleepUntil waits for a moment of the wall clock. It returns an error if ctx ends first.
func (t *task) sleepUntil(ctx context.Context, at time.Time) error {
	for {
		left := at.Sub(t.b.cfg.Now())
		if left <= 0 {
			return ctx.Err()
		}
		if err := retry.Sleep(ctx, min(left, maxSleep)); err != nil {
			return err
		}
	}
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
