// Package bench measures a cluster on this machine against a bare TLS server.
//
// Introspections and revocations alternate with the same load on a net/http server. That server
// gets the same request bytes from the same client over the same protocol and returns the same
// body. So the ratio shows the cost of the product on any machine. Nodes, baseline and load share
// the processors.
//
// Dangerous: bench kills the nodes of its own cluster repeatedly with SIGKILL and removes their
// directory.
package bench

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devfolder"
)

// Check returns a usage error for an invalid option.
func (o *Options) Check() error {
	const maxDuration = 10 * time.Minute
	for _, name := range o.Only {
		if !slices.Contains(MeasureNames(), name) {
			return cli.UsageError("--only: unknown measure %q (want %s)", name, strings.Join(MeasureNames(), ", "))
		}
	}
	if o.Client != ClientNetHTTP && o.Client != ClientLean {
		return cli.UsageError(`--client must be "%s" or "%s"`, ClientNetHTTP, ClientLean)
	}
	if o.Against != "" && o.Against != AgainstEtcd {
		return cli.UsageError(`--against must be "%s"`, AgainstEtcd)
	}
	if o.DevJSON != "" && o.Dir != "" {
		return cli.UsageError("cannot combine --dev-json with --dir: the running cluster already has a directory")
	}
	return cmp.Or(
		between("pairs", o.Pairs, 100, 20_000_000),
		between("deny-entries", o.DenyEntries, 100, 20_000_000),
		between("nodes", o.Nodes, 1, devfolder.MaxNodes),
		between("connections", o.Connections, 1, 1024),
		between("rounds", o.Rounds, 1, 20),
		between("lone", o.Lone, 10, 100_000),
		between("kills", o.Kills, 1, 1000),
		between("duration", o.Duration, 100*time.Millisecond, maxDuration),
		between("healthy", o.Healthy, time.Second, maxDuration))
}

func between[T cmp.Ordered](flag string, value, least, most T) error {
	if value < least || value > most {
		return cli.UsageError("--%s must be %v to %v", flag, least, most)
	}
	return nil
}

// Run starts a cluster if it needs one, runs the measures and stops what it started. The report has
// the finished measures, even if Run also returns an error.
func Run(ctx context.Context, o *Options, progress io.Writer) (*report.Report, error) {
	started := time.Now()
	dir, err := o.folder()
	if err != nil {
		return nil, err
	}
	if o.DevJSON == "" {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	host, err := host.Examine(dir)
	if err != nil {
		return nil, err
	}
	var c *cluster
	if o.DevJSON != "" {
		c, err = loadCluster(o.DevJSON)
	} else {
		fmt.Fprintf(progress, "starting %d nodes in %s\n", o.Nodes, dir)
		c, err = startCluster(ctx, dir, o.Nodes, o.APIPort)
	}
	if err != nil {
		return nil, err
	}
	defer c.stop()
	r := &run{
		opts: o, cluster: c, progress: progress, started: started, dir: dir,
		tokens: tokens{
			run: strings.ToLower(rand.Text()[:12]), clientID: c.Cluster.Clients["app"].ClientID, issued: started.Unix(),
			subjects: o.Pairs / 2,
		},
		report: &report.Report{
			FormatVersion: 1, Version: o.Version, StartedAt: started.UTC().Format(time.RFC3339), Host: host,
			Parameters: o.Parameters,
		},
	}
	p := &r.report.Parameters
	p.Nodes, p.DurationS, p.OwnCluster = len(c.nodes), o.Duration.Seconds(), c.owned
	err = r.all(ctx)
	if r.baseline != nil {
		r.baseline.stop()
	}
	if r.peer != nil {
		r.peer.stop()
	}
	r.report.TookSeconds = time.Since(started).Seconds()
	if ctx.Err() != nil {
		return r.report, errors.New("interrupted; the report has the measures that were finished")
	}
	return r.report, err
}

// A kind is one row of the table of measures.
type kind struct {
	name  string // value of the flag --only
	pairs bool   // the measure needs the active pairs
	owned bool   // the measure starts or kills nodes: only for a cluster that bench started
	what  string
	unit  string
	take  func(*run, context.Context, *report.Measure) error
}

// kinds returns the measures in the order in which they run. Measures that leave background work,
// because many tokens are revoked or expire, come last.
func kinds() []kind {
	return []kind{
		{"idle", false, false, "processor use of an idle node, the highest", "% of a core", (*run).idle},
		{"register", true, false, "", "", nil},
		{"introspect", true, false, "introspections of active tokens, one follower", "1/s", (*run).introspect},
		{"jwt", true, false, "introspections of JWTs seen before, one follower (baseline: opaque)", "1/s", (*run).jwts},
		{"beside", true, false, fmt.Sprintf("introspections with %d revocations/s", besideRate), "1/s", (*run).beside},
		{"latency", true, false, "a single introspection with all pairs, p50 (baseline: with few)", "ms", (*run).latency},
		{"pace", true, false, "revocations with all pairs, all nodes (baseline: with few)", "1/s", (*run).pace},
		{"revoke", true, false, "revocations of active pairs, all nodes", "1/s", (*run).revoke},
		{"curve", true, false, "revocations with 1 to 512 connections, the highest rate", "1/s", (*run).curve},
		{"lone", true, false, "a single revocation, idle cluster, p50", "ms", (*run).lone},
		{"import", true, false, "a single revocation during an import, p99 (baseline: idle)", "ms", (*run).importing},
		{"size", true, false, "disk of a node per registered token, the largest", "bytes", (*run).size},
		{"deny", true, false, "import of a deny list of JWTs (NDJSON), one stream per node", "entries/s", (*run).deny},
		{"restart", true, true, "restart of a follower until ready, after kill -9", "s", (*run).restart},
		{"healthy", true, false, "wrong answers in %v of mixed load without faults", "answers", (*run).healthy},
		{"join", true, true, fmt.Sprintf("a new node until ready, with %d revocations/s", besideRate), "s", (*run).join},
		{"backup", true, true, "backup, restore, and start of the restored node", "s", (*run).backup},
		{"failover", true, true, "kill -9 of the leader until a revocation succeeds, median", "s", (*run).failover},
		{"comeback", true, true, "kill -9 of the leader until every node answers reads, median", "s", (*run).comeback},
		{"cutoff", true, false, "revoke all tokens of a subject, p50", "ms", (*run).cutoff},
		{"expiry", true, false, "revocations while tokens expire, all nodes (baseline: before)", "1/s", (*run).expiry},
	}
}

// MeasureNames returns the names of all measures.
func MeasureNames() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// all runs the measures that the options name. A failed measure does not stop the others.
func (r *run) all(ctx context.Context) error {
	var failed []error
	registered := false
	for _, k := range kinds() {
		if !r.wants(k.name) {
			continue
		}
		if k.owned && !r.cluster.owned {
			fmt.Fprintf(r.progress, "%s: skipped, bench did not start this cluster\n", k.name)
			continue
		}
		if k.pairs && !registered {
			r.say("register", "%d pairs", r.opts.Pairs)
			if err := r.register(ctx); err != nil {
				return errors.Join(append(failed, err)...)
			}
			registered = true
		}
		if k.take == nil {
			continue // already measured by register
		}
		r.say(k.name, "starts")
		m := &report.Measure{Name: k.name, What: k.what, Unit: k.unit}
		if err := k.take(r, ctx, m); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", k.name, err))
		} else {
			r.report.Measures = append(r.report.Measures, m)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}
