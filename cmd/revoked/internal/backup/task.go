package backup

import (
	"context"
	"sync"
	"time"
)

// The pauses after failures double from the first to the longest.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// maxSleep bounds a sleep, because a timer does not notice when the clock is set.
const maxSleep = time.Minute

// A task makes the backups at one target, one after the other.
type task struct {
	b      *Backups
	target string
	save   func(ctx context.Context, cluster string) (File, error)
	find   func(ctx context.Context, cluster string) (File, error) // returns the newest backup, or a zero File

	source *task         // the task whose backups this one copies; nil: this one makes its own by the schedule
	saved  chan struct{} // receives a value after each backup; nil: no task copies the backups

	mu   sync.Mutex
	last File // the newest successful backup; zero: none
}

func (t *task) newest() File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// run makes backups until ctx ends. It makes one immediately if the target has no backup, or if a
// scheduled time passed while the node did not run.
func (t *task) run(ctx context.Context, cluster string) {
	log, metrics := t.b.cfg.Log.With("target", t.target), t.b.cfg.Metrics
	metrics.due.WithLabelValues(t.target).Set(seconds(t.b.cfg.Now()))
	if found, err := t.find(ctx, cluster); err == nil && found.Name != "" {
		t.done(found)
	}
	at, failures := t.nextDue(), 0
	for t.sleepUntil(ctx, at) == nil {
		if t.source != nil && !t.behind() {
			at = t.nextDue()
			continue
		}
		began := t.b.cfg.Now()
		file, err := t.save(ctx, cluster)
		switch took := t.b.cfg.Now().Sub(began); {
		case ctx.Err() != nil:
			return
		case err != nil:
			metrics.failures.WithLabelValues(t.target).Inc()
			at = t.retryAt(failures)
			failures++
			log.Error("backup failed; older backups are kept", "error", err, "retry_at", at.UTC())
		default:
			failures = 0
			t.done(file)
			metrics.duration.WithLabelValues(t.target).Set(took.Seconds())
			log.Info("backup saved", "file", file.Name, "index", file.Index, "bytes", file.Bytes,
				"duration_seconds", took.Seconds())
			at = t.nextDue()
		}
	}
}

// behind reports whether the newest backup of the source has not been copied yet.
func (t *task) behind() bool {
	name := t.source.newest().Name
	return name != "" && name != t.newest().Name
}

// done records a successful backup.
func (t *task) done(f File) {
	t.mu.Lock()
	t.last = f
	t.mu.Unlock()
	metrics := t.b.cfg.Metrics
	metrics.last.WithLabelValues(t.target).Set(seconds(f.At))
	metrics.size.WithLabelValues(t.target).Set(float64(f.Bytes))
	metrics.due.WithLabelValues(t.target).Set(seconds(t.b.cfg.Schedule.Next(f.At)))
	select {
	case t.saved <- struct{}{}:
	default: // no bucket is configured, or its task has not yet received the previous notice
	}
}

// nextDue returns when the next backup is due. If the last backup is in the future, because the
// clock was set back, nextDue treats it as made now.
func (t *task) nextDue() time.Time {
	last, now := t.newest().At, t.b.cfg.Now()
	switch {
	case t.source != nil && !t.behind():
		return now.Add(maxSleep) // a backup of the source ends the sleep
	case t.source != nil || last.IsZero():
		return now
	case last.After(now):
		last = now
	}
	return t.b.cfg.Schedule.Next(last)
}

// retryAt returns when to try again after a number of failures: soon, but not later than the next
// scheduled time.
func (t *task) retryAt(failures int) time.Time {
	now := t.b.cfg.Now()
	at := now.Add(min(firstRetry<<min(failures, 10), lastRetry))
	if next := t.b.cfg.Schedule.Next(now); next.Before(at) {
		return next
	}
	return at
}

// sleepUntil waits until a time of the wall clock, or until there is a backup to copy. It returns
// an error if ctx ends first.
func (t *task) sleepUntil(ctx context.Context, at time.Time) error {
	var saved <-chan struct{}
	if t.source != nil {
		saved = t.source.saved
	}
	for {
		left := at.Sub(t.b.cfg.Now())
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(left, maxSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-saved:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
