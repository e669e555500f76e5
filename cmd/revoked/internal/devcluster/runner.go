package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// parentFD is the descriptor of the read end of the parent's pipe in a child. When the parent exits
// for any reason, the kernel closes the write end, and the child stops.
const parentFD = 3

// A Runner starts and stops the nodes of a cluster, one child process per node. Its methods must
// not be called concurrently, except those that wait for nodes.
type Runner struct {
	Cluster *Cluster
	HTTP    *http.Client // trusts the CA of the cluster, follows no redirect
	exe     string
	env     []string
	nodes   []*child // the child of each node; nil if the runner has not started the node or has killed it
}

type child struct {
	*Process
	node  Node
	alive *os.File // write end of the pipe; open while the child should run
}

// NewRunner returns a runner that starts this program with the environment env.
func NewRunner(c *Cluster, env []string) (*Runner, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("locate this executable: %w", err)
	}
	tlsConfig, err := c.TLS()
	if err != nil {
		return nil, err
	}
	return &Runner{
		Cluster: c, exe: exe, env: env, nodes: make([]*child, len(c.Nodes)),
		HTTP: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 4},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Start starts node i, appends its output to its log and stores its process id in r.Cluster.
func (r *Runner) Start(i int) error {
	n := r.Cluster.Nodes[i]
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	p, err := Start(&exec.Cmd{
		Path: r.exe, Args: []string{"revoked", "server", "--config", n.Config, fmt.Sprintf("--parent-fd=%d", parentFD)},
		Env: r.env, Stdout: log, Stderr: log, ExtraFiles: []*os.File{theirs},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", n.ID, err), ours.Close())
	}
	r.nodes[i] = &child{Process: p, node: n, alive: ours}
	r.Cluster.Nodes[i].PID = p.PID()
	return nil
}

// StartAll starts every node.
func (r *Runner) StartAll() error {
	for i := range r.nodes {
		if err := r.Start(i); err != nil {
			return err
		}
	}
	return nil
}

// Process returns the process of node i, nil if the runner did not start it.
func (r *Runner) Process(i int) *Process {
	if c := r.nodes[i]; c != nil {
		return c.Process
	}
	return nil
}

// Release closes the pipe of node i, as the exit of this process would. The node then stops.
func (r *Runner) Release(i int) error { return r.nodes[i].alive.Close() }

// killTime is how long Kill waits before it sends SIGKILL.
const killTime = 30 * time.Second

// Kill sends s to node i and waits until it exits. After killTime it sends SIGKILL and returns an
// error.
func (r *Runner) Kill(i int, s syscall.Signal) error {
	c := r.nodes[i]
	r.nodes[i] = nil
	defer c.alive.Close()
	c.Signal(s)
	select {
	case <-c.Done():
		return nil
	case <-time.After(killTime):
		c.Process.Kill()
		return fmt.Errorf("%s did not exit within %v of signal %v", c.node.ID, killTime, s)
	}
}

// Stop stops all running nodes, waits until they exit, and kills those that still run when ctx
// ends. The error names every node that did not shut down cleanly and shows the end of its log.
func (r *Runner) Stop(ctx context.Context) error {
	var running []*child
	for _, c := range r.nodes {
		if c == nil || !c.Running() {
			continue
		}
		running = append(running, c)
		c.Signal(syscall.SIGTERM)
		c.Signal(syscall.SIGCONT) // a child that the user stopped with SIGSTOP must resume to exit
		c.alive.Close()
	}
	var errs []error
	for _, c := range running {
		select {
		case <-c.Done():
		case <-ctx.Done():
			c.Process.Kill()
		}
		if c.Err() != nil {
			errs = append(errs, fmt.Errorf("%s did not shut down cleanly (%s); its data is safe; the end of its log:\n%s",
				c.node.ID, ExitReason(c.Err()), LastLines(c.node.Log, 10)))
		}
	}
	return errors.Join(errs...)
}
