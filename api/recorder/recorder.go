// Package recorder writes the audit entries of calls that have no operation in the Raft log:
// refused calls and backups.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/clientauth"
	"revoked/internal/retry"
)

// Bounds of the refusals that are recorded. A caller that repeats a refused call must neither fill
// the log nor push other entries out of the audit log.
const (
	refusalsPerSecond    = 2 // for one client
	refusalBurst         = 1000
	allRefusalsPerSecond = 10
	allRefusalsBurst     = 5000
)

// Bounds of one entry.
const (
	// waitTime bounds the wait of a call for its entry.
	waitTime = 2 * time.Second
	// attemptTime bounds the attempt to commit an entry. Elections take less time.
	attemptTime = 20 * time.Second
	// maxAttempts bounds the attempts in progress.
	maxAttempts = 1000
	retryPause  = 50 * time.Millisecond
)

// Config configures [New].
type Config struct {
	// Note returns once the entry is committed. It may be called concurrently. Its error wraps
	// [revoked.ErrNoLeader] if the entry was not proposed, and [revoked.ErrUnprocessable] if a member
	// is too old for it.
	Note func(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) error
	Now  func() time.Time // clock for the limits of refusals
	Log  *slog.Logger
	Lost *prometheus.CounterVec // entries that were not recorded; label: limit or error
}

// A Recorder commits audit entries. Methods may be called concurrently.
type Recorder struct {
	cfg            Config
	perClient, all *clientauth.Limiter
	life           context.Context // its end cancels the attempts
	end            context.CancelFunc
	attempts       sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	running int // attempts in progress
	missing int // entries lost since the last recorded one
}

// New returns a recorder. The caller must call Close.
func New(cfg Config) *Recorder {
	r := &Recorder{
		cfg:       cfg,
		perClient: clientauth.NewLimiter(refusalsPerSecond, refusalBurst),
		all:       clientauth.NewLimiter(allRefusalsPerSecond, allRefusalsBurst),
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Close waits for the attempts in progress. When ctx ends, it cancels them and counts their entries
// as lost. An entry that is recorded after Close is lost.
func (r *Recorder) Close(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	defer context.AfterFunc(ctx, r.end)()
	r.attempts.Wait()
	r.end()
}

// Refused is like Record, for a refused call. If the client, or all clients together, have had too
// many refusals, it only counts the entry as lost.
func (r *Recorder) Refused(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) {
	now := r.cfg.Now()
	if r.perClient.Take(by.ClientID, now) != 0 || r.all.Take("", now) != 0 {
		r.lose("limit")
		return
	}
	r.Record(ctx, by, e)
}

// Record commits an entry. It blocks until the entry is committed, or for two seconds. After that
// the attempt continues without the caller. The attempt does not end with ctx, which only supplies
// the trace. A failure is counted and logged, and the next entry states how many entries are
// missing before it.
func (r *Recorder) Record(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) {
	if cause, ok := r.begin(); !ok {
		r.lose(cause)
		return
	}
	done := make(chan struct{})
	go func() {
		defer r.finish()
		defer close(done)
		r.attempt(context.WithoutCancel(ctx), by, e)
	}()
	wait := time.NewTimer(waitTime)
	defer wait.Stop()
	select {
	case <-done:
	case <-wait.C:
	}
}

// attempt commits an entry. It proposes the entry again only if it was certainly not proposed, so
// that no call has two entries.
func (r *Recorder) attempt(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	missing := r.takeMissing()
	if missing > 0 {
		e.Detail = strings.TrimPrefix(fmt.Sprintf("%s; %d earlier entries are missing", e.Detail, missing), "; ")
	}
	tries := func(err error) int {
		if errors.Is(err, revoked.ErrNoLeader) {
			return math.MaxInt
		}
		return 1
	}
	err := retry.Do(ctx, retryPause, tries, func() error { return r.cfg.Note(ctx, by, e) })
	if err == nil {
		return
	}
	r.addMissing(missing)
	if errors.Is(err, revoked.ErrUnprocessable) { // a member is too old for the audit log
		return
	}
	r.lose("error")
	r.cfg.Log.Warn("cannot record audit entry", "kind", string(e.Kind), "request_id", by.RequestID, "error", err)
}

// begin returns false, and the cause as for Config.Lost, if no attempt may begin.
func (r *Recorder) begin() (cause string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return "error", false
	case r.running >= maxAttempts:
		return "limit", false
	}
	r.running++
	r.attempts.Add(1)
	return "", true
}

func (r *Recorder) finish() {
	r.mu.Lock()
	r.running--
	r.mu.Unlock()
	r.attempts.Done()
}

// lose counts an entry that was not recorded.
func (r *Recorder) lose(cause string) {
	r.cfg.Lost.WithLabelValues(cause).Inc()
	r.addMissing(1)
}

func (r *Recorder) takeMissing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.missing
	r.missing = 0
	return n
}

func (r *Recorder) addMissing(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing += n
}
