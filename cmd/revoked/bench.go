package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/bench"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
)

func benchCommand() *cobra.Command {
	o := &bench.Options{Version: readVersion().Version}
	var output string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Compare a cluster on this machine with a bare TLS server",
		Long: "Start a cluster on loopback, one process per node, and measure it. Introspections and\n" +
			"revocations run alternately with a bare net/http TLS server that gets the same request bytes from\n" +
			"the same client over the same protocol and cipher suite and returns the same body: the ratio\n" +
			"shows the cost of the product on any machine. Nodes, baseline and load share its CPUs.\n\n" +
			"Measures: " + strings.Join(bench.MeasureNames(), ", ") + ".",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "",
		"directory for the cluster's data, on a disk; removed afterwards (default: a new one below the working directory)")
	f.StringVar(&o.DevJSON, "dev-json", "", "measure the running cluster in this dev.json instead of starting one")
	f.IntVar(&o.APIPort, "api-port", 18443, "API port of the first node; see revoked dev")
	f.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	f.Uint64Var(&o.Pairs, "pairs", 100_000, "active token pairs to register")
	f.Uint64Var(&o.DenyEntries, "deny-entries", 20_000, "number of entries of the deny list (measure deny)")
	f.IntVar(&o.Connections, "connections", 64, "number of connections of each load")
	f.IntVar(&o.Rounds, "rounds", 3, "number of rounds, each with one turn of the baseline and one of the cluster")
	f.DurationVar(&o.Duration, "duration", 5*time.Second, "length of one turn")
	f.IntVar(&o.Lone, "lone", 300, "number of single revocations to time")
	f.IntVar(&o.Kills, "kills", 5, "number of times that failover and comeback each kill the leader")
	f.DurationVar(&o.Healthy, "healthy", 20*time.Second, "length of the healthy period under mixed load")
	f.StringVar(&o.Client, "client", bench.ClientNetHTTP,
		`client of the load, the same for both sides: "`+bench.ClientNetHTTP+`", or "`+bench.ClientLean+
			`", which uses less CPU and so lowers the ratio`)
	f.StringVar(&o.Against, "against", "",
		`"`+bench.AgainstEtcd+`": compare with as many etcd nodes on loopback, without TLS and users, alternately: `+
			"deletes of keys\nfor revocations, linearizable reads for introspections")
	f.StringVar(&o.EtcdBinary, "etcd-binary", "etcd", "program of the etcd nodes, as in Debian's package etcd-server")
	f.StringSliceVar(&o.Only, "only", nil, "measures to run, separated by commas (default: all)")
	cli.AddOutputFlag(cmd, &output)
	cmd.AddCommand(plotCommand(), &cobra.Command{
		Use: "baseline-server", Short: "Serve fixed responses over TLS, as the baseline of bench",
		Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.ServeBaseline(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := cli.WantJSON(output)
		if err != nil {
			return err
		}
		if err := o.Check(); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		result, err := bench.Run(ctx, o, cmd.ErrOrStderr())
		if result != nil && len(result.Measures) > 0 {
			err = errors.Join(result.Print(cmd.OutOrStdout(), asJSON), err)
		}
		return err
	}
	return cmd
}

func plotCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "plot REPORT...",
		Short: "Draw the figures of reports as SVG",
		Long: "Draw the figures of reports, the output of revoked bench -o json: rate and p99 over the\n" +
			"connections (measure curve), a histogram of the failovers (failover), and what grows with the\n" +
			"pairs, from reports with different --pairs.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, reports []string) error {
			written, err := report.Plot(dir, reports)
			for _, name := range written {
				fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, name))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "directory for the SVG files")
	return cmd
}
