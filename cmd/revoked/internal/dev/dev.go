// Package dev runs a whole cluster on this machine for trials: it prepares the directory, starts
// one process per node, and prints commands to paste.
//
// The command stops every node that it started before it exits. It removes a temporary directory
// unless the user chose to keep it.
//
// Dangerous: the directory has the keys of the CA and of the demo issuer, and the output has
// secrets.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

// devStopTime limits the shutdown of all nodes.
const devStopTime = 20 * time.Second

type devRun struct {
	folder   devfolder.Folder
	keep     bool
	initOnly bool
	out      io.Writer
	messages io.Writer
	command  string // shell command that runs this program
	keepDir  bool   // do not remove the temporary directory

	cluster *devcluster.Cluster
	runner  *devcluster.Runner
}

// Command returns the `revoked dev` command. It runs until it receives a signal or until every node
// has exited.
func Command() *cobra.Command {
	var d devRun
	var hosts []string
	var nodes int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, to try it out",
		Long: "Run a cluster on loopback, one process per node, with new certificates, clients and gossip key.\n" +
			"It prints addresses, credentials and commands to paste, and runs until Ctrl-C.\n\n" +
			"Not for production: all nodes share a disk and a machine, and the CA's key is stored with them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if d.folder.Hosts, err = devfolder.Hosts(hosts, nodes, cmd.Flags().Changed("nodes")); err != nil {
				return err
			}
			d.out, d.messages = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&nodes, "nodes", 3, "number of nodes")
	f.StringVar(&d.folder.Dir, "dir", "",
		"directory for all files; kept, and reused if it exists (default: a temporary one)")
	f.IntVar(&d.folder.APIPort, "api-port", 8443,
		"API port of node1, one more for each further node; a node's cluster port is 1000 higher, its gossip port 2000")
	f.StringSliceVar(&hosts, "hosts", nil, "an address for each node (default: 127.0.0.1 for all)")
	f.BoolVar(&d.keep, "keep", false, "keep the temporary directory")
	f.BoolVar(&d.initOnly, "init-only", false, "write the directory and exit")
	cmd.AddCommand(devTokenCommand())
	return cmd
}

// run returns when the cluster has stopped. A signal is not an error.
func (d *devRun) run(ctx context.Context) (err error) {
	if err := devfolder.CheckPorts(d.folder.APIPort, len(d.folder.Hosts)); err != nil {
		return err
	}
	if d.command, err = thisCommand(); err != nil {
		return err
	}
	ctx, cancel := cli.StopSignals(ctx, devSignals()...)
	defer cancel()
	temporary, err := d.makeFolder()
	if err != nil {
		return err
	}
	defer func() {
		if temporary && !d.keepDir {
			err = errors.Join(err, os.RemoveAll(d.folder.Dir))
		}
	}()
	lock, err := d.folder.Lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if d.cluster, err = d.folder.Prepare(); err != nil {
		return err
	}
	if d.initOnly {
		d.keepDir = true
		if err := d.cluster.Write(d.folder.DevFile()); err != nil {
			return err
		}
		printInitOnly(d.out, d.cluster, d.folder, d.command)
		return nil
	}
	if err := d.folder.CheckFree(); err != nil {
		return err
	}
	d.keepDir = d.keep // from here on, --keep keeps the directory: nodes write logs even if the start fails
	return d.serve(ctx)
}

// devSignals returns the signals that stop dev. They include SIGHUP, which a closed terminal sends,
// except under nohup.
func devSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// makeFolder creates the directory, or a temporary one if Dir is empty.
func (d *devRun) makeFolder() (temporary bool, err error) {
	if d.folder.Dir == "" {
		d.folder.Dir, err = os.MkdirTemp("", "revoked-dev-")
		return err == nil, err
	}
	if d.folder.Dir, err = filepath.Abs(d.folder.Dir); err == nil {
		err = os.MkdirAll(d.folder.Dir, 0o700)
	}
	return false, err
}

// serve starts the nodes, waits until ctx ends or the last node exits, and stops the nodes.
func (d *devRun) serve(ctx context.Context) error {
	var err error
	if d.runner, err = devcluster.NewRunner(d.cluster, devfolder.Environment(os.Environ())); err != nil {
		return err
	}
	err = d.start(ctx)
	switch {
	case err == nil:
		untrusted := d.trustDemoIssuer(ctx)
		printWelcome(d.out, d.cluster, d.folder.Dir, d.command, untrusted == nil)
		if untrusted != nil && ctx.Err() == nil {
			fmt.Fprintf(d.messages, "cannot show the demo of JWTs: %v\n", untrusted)
		}
		err = d.wait(ctx)
	case ctx.Err() != nil:
		err = nil // a signal ended ctx during the start
	}
	return errors.Join(err, d.stop())
}

func (d *devRun) start(ctx context.Context) error {
	if err := d.runner.StartAll(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, devReadyTime,
		fmt.Errorf("not all nodes were ready within %v; see the logs in %s", devReadyTime, d.folder.Dir))
	defer cancel()
	var err error
	if d.cluster.ClusterID, err = d.runner.AwaitCluster(ctx); err != nil {
		return err
	}
	return d.cluster.Write(d.folder.DevFile())
}

// wait returns when ctx ends or when all nodes have stopped. It is not an error if a single node
// stops: users may kill nodes to see the effect.
func (d *devRun) wait(ctx context.Context) error {
	ended := make(chan int, len(d.cluster.Nodes))
	for i := range d.cluster.Nodes {
		go func() {
			<-d.runner.Process(i).Done()
			ended <- i
		}()
	}
	for range d.cluster.Nodes {
		select {
		case <-ctx.Done():
		case i := <-ended:
			if ctx.Err() == nil {
				n := d.cluster.Nodes[i]
				fmt.Fprintf(d.messages, "%s exited (%s). The others continue. "+
					"Start it again (with --rejoin if it left the cluster): %s server --config %s\n",
					n.ID, devcluster.ExitReason(d.runner.Process(i).Err()), d.command, cli.ShellQuote(n.Config))
				continue
			}
		}
		fmt.Fprintln(d.messages, "\nstopping")
		return nil
	}
	return fmt.Errorf("all nodes have stopped; the logs are in %s", d.folder.Dir)
}

// stop shuts every node down and writes a dev.json without process ids. The error names the nodes
// that did not shut down cleanly.
func (d *devRun) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), devStopTime)
	defer cancel()
	err := d.runner.Stop(ctx)
	if _, missing := os.Stat(d.folder.DevFile()); missing != nil {
		return nil // the cluster was never ready: a node may not have handled signals yet
	}
	for i := range d.cluster.Nodes {
		d.cluster.Nodes[i].PID = 0
	}
	return errors.Join(err, d.cluster.Write(d.folder.DevFile()))
}
