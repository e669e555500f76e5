package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// A devRun is one run of dev.
type devRun struct {
	dir      string
	hosts    []string
	apiPort  int
	keep     bool
	initOnly bool
	out      io.Writer // what a newcomer reads
	messages io.Writer
	wanted   bool   // the folder stays
	command  string // calls this program from a shell

	cluster  *devCluster
	children []*devChild
}

func devCommand() *cobra.Command {
	var d devRun
	var hosts []string
	var nodes int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, to try it out",
		Long: "Run a cluster on loopback, one process a node, with TLS, clients and gossip key made on the spot.\n" +
			"It prints addresses, credentials and commands to paste, and ends with Ctrl-C.\n\n" +
			"Not for production: all nodes share a disk and a machine, and the CA's key lies beside them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if d.hosts, err = devHosts(hosts, nodes, cmd.Flags().Changed("nodes")); err != nil {
				return err
			}
			d.out, d.messages = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&nodes, "nodes", 3, "how many nodes")
	f.StringVar(&d.dir, "dir", "", "folder for everything; kept, and used again if it is there (default: a temporary one)")
	f.IntVar(&d.apiPort, "api-port", 8443, "API port of the first node; node k takes this + k - 1, its cluster port 1000 and its gossip 2000 above")
	f.StringSliceVar(&hosts, "hosts", nil, "an address for each node (default: 127.0.0.1 for all)")
	f.BoolVar(&d.keep, "keep", false, "keep the temporary folder")
	f.BoolVar(&d.initOnly, "init-only", false, "write the folder and end")
	return cmd
}

// run does all of it and returns when the cluster has stopped. A signal to stop is no error.
func (d *devRun) run(ctx context.Context) (err error) {
	if err := checkDevPorts(d.apiPort, len(d.hosts)); err != nil {
		return err
	}
	if d.command, err = thisCommand(); err != nil {
		return err
	}
	ctx, cancel := stopSignals(ctx, devSignals()...)
	defer cancel()
	remove, err := d.makeFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	lock, err := lockFolder(d.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := d.prepare(); err != nil {
		return err
	}
	if d.initOnly {
		if err := d.cluster.writeFile(); err != nil {
			return err
		}
		d.wanted = true
		printInitOnly(d.out, d.cluster, d.command)
		return nil
	}
	if err := d.cluster.checkPorts(); err != nil {
		return err
	}
	d.wanted = d.keep // from here on there are logs to read, also where the start fails
	return errors.Join(d.serve(ctx), d.stop())
}

// serve starts the nodes, and returns when ctx ends or none is left.
func (d *devRun) serve(ctx context.Context) error {
	if err := d.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return err
	}
	printWelcome(d.out, d.cluster, d.command)
	return d.wait(ctx)
}

// stopSignals returns a context that ends with the first of the signals. After that one the next
// kills as if nothing had been set up; children go with their parent.
func stopSignals(ctx context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(ctx, signals...)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}

// devSignals stop dev. A closed terminal does too, unless nohup said otherwise.
func devSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// makeFolder makes the folder, and returns what takes it away in the end unless it is wanted.
func (d *devRun) makeFolder() (remove func() error, err error) {
	nothing := func() error { return nil }
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "revoked-dev-"); err != nil {
			return nil, err
		}
		return func() error {
			if d.wanted {
				return nil
			}
			return os.RemoveAll(d.dir)
		}, nil
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return nil, err
	}
	return nothing, os.MkdirAll(d.dir, 0o700)
}

// lockFolder takes the folder for this process: another one would write over what its nodes use. The lock
// ends with the process, however it ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "dev.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another revoked dev uses %s: stop it, or give this one another --dir", dir), f.Close())
	}
	return f, nil
}

// prepare writes everything that nodes need, and takes away what an earlier run said of its nodes.
func (d *devRun) prepare() error {
	material := devMaterial{dir: d.dir, hosts: d.hosts}
	if err := material.make(); err != nil {
		return err
	}
	clients, err := material.clients()
	if err != nil {
		return err
	}
	if d.cluster, err = newDevCluster(d.dir, d.hosts, d.apiPort, clients); err != nil {
		return err
	}
	if err := d.cluster.checkMoved(); err != nil {
		return err
	}
	if err := os.Remove(d.cluster.file()); err != nil && !isNotExist(err) {
		return err
	}
	return d.cluster.writeConfigs()
}

// start starts every node and returns when all are ready.
func (d *devRun) start(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	env := childEnvironment(os.Environ(), d.cluster.settings(0))
	for i, n := range d.cluster.Nodes {
		child, err := startChild(exe, n, env)
		if err != nil {
			return err
		}
		d.children = append(d.children, child)
		d.cluster.Nodes[i].PID = child.pid
	}
	ctx, cancel := context.WithTimeoutCause(ctx, devReadyTime, fmt.Errorf("not all nodes were ready within %v; see the logs in %s", devReadyTime, d.dir))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, c := range d.children {
		go func() {
			select {
			case <-c.done:
				fail(fmt.Errorf("%s ended before it was ready (%s); the end of its log:\n%s", c.node.ID, howEnded(c.err), lastLines(c.node.Log, 10)))
			case <-ctx.Done():
			}
		}()
	}
	if d.cluster.ClusterID, err = waitReady(ctx, d.cluster); err != nil {
		return err
	}
	return d.cluster.writeFile()
}

// wait returns when ctx ends, or when no node is left. A single node that ends is the business of
// whoever ended it: trying that out is what dev is for.
func (d *devRun) wait(ctx context.Context) error {
	ended := make(chan *devChild)
	for _, c := range d.children {
		go func() {
			<-c.done
			select {
			case ended <- c:
			case <-ctx.Done():
			}
		}()
	}
	for left := len(d.children); left > 0; left-- {
		select {
		case <-ctx.Done():
			fmt.Fprintln(d.messages, "\nstopping")
			return nil
		case c := <-ended:
			if ctx.Err() != nil {
				continue
			}
			fmt.Fprintf(d.messages, "%s ended (%s). The others go on. Start it again with (--rejoin where it has left the cluster): %s server --config %s\n",
				c.node.ID, howEnded(c.err), d.command, shellQuote(c.node.Config))
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("no node is left; the logs are in %s", d.dir)
}

// stop stops every node, in order, and leaves a dev.json without process ids. The error names the nodes that
// could not be stopped in order.
func (d *devRun) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), devStopTime)
	defer cancel()
	err := stopChildren(ctx, d.children)
	if _, missing := os.Stat(d.cluster.file()); missing != nil {
		return nil // the cluster was never ready: a node may have been told before it listened
	}
	for i := range d.cluster.Nodes {
		d.cluster.Nodes[i].PID = 0
	}
	return errors.Join(err, d.cluster.writeFile())
}

// howEnded says in a word how a process ended.
func howEnded(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
