package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

// Values of Options.Client.
const (
	ClientNetHTTP = "net/http"
	ClientLean    = "lean"
)

// Options are the parameters of a run.
type Options struct {
	Version           string // program version, for the report
	Dir               string // parent of the directory of the cluster; empty: the working directory
	DevJSON           string // dev.json of a running cluster; empty: start one
	APIPort           int
	report.Parameters               // Run sets DurationS and OwnCluster
	Duration          time.Duration // length of a turn
	Lone, Kills       int
	Healthy           time.Duration
	Only              []string // measures to run; empty: all
	EtcdBinary        string   // etcd program, if Against is AgainstEtcd
}

func (o *Options) lean() bool { return o.Client == ClientLean }

// folder returns the directory of the data. If bench starts the cluster, it creates a new one.
func (o *Options) folder() (string, error) {
	if o.DevJSON != "" {
		return filepath.Abs(filepath.Dir(o.DevJSON))
	}
	parent, err := filepath.Abs(o.Dir)
	if err == nil {
		err = os.MkdirAll(parent, 0o700)
	}
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "revoked-bench-*")
}

// A run executes the measures one after the other.
type run struct {
	opts     *Options
	cluster  *cluster
	dir      string    // directory for the data of the cluster and of the peer
	baseline *baseline // nil until a measure needs it
	peer     *etcd     // nil until a measure needs it, see Options.Against
	report   *report.Report
	progress io.Writer
	started  time.Time
	tokens   tokens
	used     uint64        // number of pairs registered; those below opts.Pairs stay active
	empty    []nodeUse     // use before the first pair; nil if the system does not report it
	loneP50  time.Duration // latency of a single revocation
	// While the cluster held few pairs: p50 of a single introspection, and revocations of one turn.
	early     time.Duration
	earlyPace *load.Result
}

// wants reports whether the options name the measure.
func (r *run) wants(name string) bool {
	return len(r.opts.Only) == 0 || slices.Contains(r.opts.Only, name)
}

func (r *run) say(name, format string, args ...any) {
	fmt.Fprintf(r.progress, "%6.1f s  %s: %s\n", time.Since(r.started).Seconds(), name, fmt.Sprintf(format, args...))
}

// progressTime is the time between two lines about a registration.
const progressTime = 10 * time.Second

// reportProgress prints a line about a measure every progressTime, until the caller calls stop.
func (r *run) reportProgress(name string, line func() string) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressTime)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				r.say(name, "%s", line())
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// registerPairs registers the pairs of t from low up to high, prints its progress, and returns the
// time it took.
func (r *run) registerPairs(ctx context.Context, t tokens, low, high uint64) (took time.Duration, err error) {
	before := uint64(0)
	defer r.reportProgress("register", func() string {
		sent := min(r.cluster.sent.Load(), high-low) // a retried stream counts twice
		rate := float64(sent-before) / progressTime.Seconds()
		before = sent
		return fmt.Sprintf("%d of %d pairs sent, %.0f/s", sent, high-low, rate)
	})()
	return r.cluster.register(ctx, t, low, high)
}

// fresh registers n new pairs and waits until the cluster is idle again.
func (r *run) fresh(ctx context.Context, n uint64) (*pool, error) {
	low := r.used
	if _, err := r.registerPairs(ctx, r.tokens, low, low+n); err != nil {
		return nil, err
	}
	r.used += n
	return &pool{low: low, high: low + n}, r.cluster.awaitIdle(ctx)
}
