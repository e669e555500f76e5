package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// benchFlags are what bench is told.
type benchFlags struct {
	dir         string
	devJSON     string
	apiPort     int
	nodes       int
	pairs       uint64
	connections int
	rounds      int
	duration    time.Duration
	lone        int
	kills       int
	healthy     time.Duration
	client      string
	only        []string
	output      string
}

// The clients of a load.
const (
	clientNetHTTP = "net/http"
	clientLean    = "lean"
)

// Bounds of what one run may ask for.
const (
	maxBenchPairs       = 20_000_000
	maxBenchConnections = 1024
	maxBenchRounds      = 20
	maxBenchDuration    = 10 * time.Minute
)

func benchCommand() *cobra.Command {
	b := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a cluster on this machine beside a bare TLS server",
		Long: "Start a cluster of its own on loopback, one process a node, and measure it. Introspections and\n" +
			"revocations run in turns with a bare net/http TLS server that takes the same request bytes from\n" +
			"the same client over the same protocol and cipher suite and returns the same body: the ratio\n" +
			"says what the product costs, whatever the machine. Nodes, baseline and load share its CPUs.\n\n" +
			"Measures: " + strings.Join(measureNames(), ", ") + ".",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&b.dir, "dir", "", "folder for the data of the cluster, on a disk; removed afterwards (default: a new one in the current folder)")
	f.StringVar(&b.devJSON, "dev-json", "", "measure the running cluster that this dev.json describes instead")
	f.IntVar(&b.apiPort, "api-port", 18443, "API port of the first node; see revoked dev")
	f.IntVar(&b.nodes, "nodes", 3, "nodes of the cluster")
	f.Uint64Var(&b.pairs, "pairs", 100_000, "live token pairs to hold")
	f.IntVar(&b.connections, "connections", 64, "connections of a load")
	f.IntVar(&b.rounds, "rounds", 3, "turns of baseline and subject")
	f.DurationVar(&b.duration, "duration", 5*time.Second, "length of one turn")
	f.IntVar(&b.lone, "lone", 300, "lone revocations to time")
	f.IntVar(&b.kills, "kills", 5, "kills of the leader in each of failover and comeback")
	f.DurationVar(&b.healthy, "healthy", 20*time.Second, "length of the healthy stretch under mixed load")
	f.StringVar(&b.client, "client", clientNetHTTP, `client of the load, the same for both sides: "`+clientNetHTTP+`", or "`+clientLean+`", which weighs next to nothing and so is harder on the ratio`)
	f.StringSliceVar(&b.only, "only", nil, "measures to take, separated by commas (default: all)")
	addOutputFlag(cmd, &b.output)
	cmd.AddCommand(baselineServerCommand())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := b.check()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		report, err := b.run(ctx, cmd.ErrOrStderr())
		if report != nil && len(report.Measures) > 0 {
			err = errors.Join(report.print(cmd.OutOrStdout(), asJSON), err)
		}
		return err
	}
	return cmd
}

func (b *benchFlags) check() (asJSON bool, err error) {
	if asJSON, err = wantJSON(b.output); err != nil {
		return false, err
	}
	for _, name := range b.only {
		if !slices.Contains(measureNames(), name) {
			return false, usageError("--only: there is no measure %q; there are %s", name, strings.Join(measureNames(), ", "))
		}
	}
	switch {
	case b.pairs < 100 || b.pairs > maxBenchPairs:
		return false, usageError("--pairs takes 100 to %d", maxBenchPairs)
	case b.nodes < 1 || b.nodes > maxDevNodes:
		return false, usageError("--nodes takes 1 to %d", maxDevNodes)
	case b.connections < 1 || b.connections > maxBenchConnections:
		return false, usageError("--connections takes 1 to %d", maxBenchConnections)
	case b.rounds < 1 || b.rounds > maxBenchRounds:
		return false, usageError("--rounds takes 1 to %d", maxBenchRounds)
	case b.duration < 100*time.Millisecond || b.duration > maxBenchDuration:
		return false, usageError("--duration takes 100ms to %v", maxBenchDuration)
	case b.lone < 10 || b.lone > 100_000:
		return false, usageError("--lone takes 10 to 100000")
	case b.kills < 1 || b.kills > 1000:
		return false, usageError("--kills takes 1 to 1000")
	case b.healthy < time.Second || b.healthy > maxBenchDuration:
		return false, usageError("--healthy takes 1s to %v", maxBenchDuration)
	case b.client != clientNetHTTP && b.client != clientLean:
		return false, usageError(`--client takes "%s" or "%s"`, clientNetHTTP, clientLean)
	case b.devJSON != "" && b.dir != "":
		return false, usageError("--dev-json names a cluster with a folder of its own: leave out --dir")
	}
	return asJSON, nil
}

// run starts what is needed, takes the measures and stops what it started.
func (b *benchFlags) run(ctx context.Context, progress io.Writer) (*benchReport, error) {
	started := time.Now()
	dir, remove, err := b.folder()
	if err != nil {
		return nil, err
	}
	defer remove()
	host, err := examineHost(dir)
	if err != nil {
		return nil, err
	}
	var c *benchCluster
	if b.devJSON != "" {
		c, err = loadBenchCluster(b.devJSON)
	} else {
		fmt.Fprintf(progress, "starting %d nodes in %s\n", b.nodes, dir)
		c, err = startBenchCluster(ctx, dir, b.nodes, b.apiPort)
	}
	if err != nil {
		return nil, err
	}
	defer c.stop()
	report := &benchReport{
		FormatVersion: 1,
		Version:       readVersion().Version,
		StartedAt:     started.UTC().Format(time.RFC3339),
		Host:          host,
		Parameters: benchParameters{
			Nodes: len(c.dev.Nodes), Pairs: b.pairs, Connections: b.connections, Rounds: b.rounds,
			DurationS: b.duration.Seconds(), Client: b.client, OwnCluster: b.devJSON == "",
		},
	}
	run, err := newRunID()
	if err != nil {
		return nil, err
	}
	r := &benchRun{
		flags: b, cluster: c, report: report, progress: progress, started: started,
		tokens: benchTokens{run: run, clientID: c.dev.Clients["app"].ClientID, issued: started.Unix(), subjects: b.pairs / 2},
	}
	defer r.close()
	err = r.all(ctx)
	report.TookSeconds = time.Since(started).Seconds()
	if ctx.Err() != nil {
		return report, errors.New("interrupted; the measures above are those that were finished")
	}
	return report, err
}

// newRunID draws what makes the tokens of a run its own.
func newRunID() (string, error) {
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// folder returns the folder of the data, and what removes it if it was made here.
func (b *benchFlags) folder() (dir string, remove func(), err error) {
	if b.devJSON != "" {
		dir, err = filepath.Abs(filepath.Dir(b.devJSON))
		return dir, func() {}, err
	}
	parent := first(b.dir, ".")
	if parent, err = filepath.Abs(parent); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(parent, "revoked-bench-*"); err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}
