package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"revoked/client"
	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
	"revoked/internal/retry"
)

// A cluster is the cluster to measure. Either bench started it, with one process per node, or it
// was already running.
type cluster struct {
	*devcluster.Runner
	nodes []devcluster.Node // nodes of the runner's cluster
	owned bool
	tls   *tls.Config   // HTTP/1.1 over TLS
	sent  atomic.Uint64 // pairs that the last call to register has sent
}

func startCluster(ctx context.Context, dir string, nodes, apiPort int) (*cluster, error) {
	hosts, err := devfolder.Hosts(nil, nodes, true)
	if err = cmp.Or(err, devfolder.CheckPorts(apiPort, nodes)); err != nil {
		return nil, err
	}
	folder := devfolder.Folder{Dir: dir, Hosts: hosts, APIPort: apiPort}
	dev, err := folder.Prepare()
	if err != nil {
		return nil, fmt.Errorf("create a cluster in %s: %w", dir, err)
	}
	c, err := newCluster(dev)
	if err != nil {
		return nil, err
	}
	c.owned = true
	err = c.StartAll()
	for i := 0; i < nodes && err == nil; i++ {
		err = c.awaitReady(ctx, i, time.Minute)
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func loadCluster(file string) (*cluster, error) {
	dev, err := devcluster.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	if len(dev.Nodes) == 0 {
		return nil, fmt.Errorf("read the cluster: %s has no nodes", file)
	}
	for _, role := range []string{"admin", "issuer", "resource_server", "app"} {
		if dev.Clients[role].ClientID == "" {
			return nil, fmt.Errorf("read the cluster: %s has no client %s", file, role)
		}
	}
	for _, n := range dev.Nodes {
		u, err := url.Parse(n.API)
		if err != nil || !isLoopback(u.Hostname()) {
			return nil, fmt.Errorf("read the cluster: node %s is not on loopback; bench loads this machine only", n.ID)
		}
	}
	return newCluster(dev)
}

func newCluster(dev *devcluster.Cluster) (*cluster, error) {
	r, err := devcluster.NewRunner(dev, devfolder.Environment(os.Environ()))
	if err != nil {
		return nil, err
	}
	c := &cluster{Runner: r, nodes: dev.Nodes}
	if c.tls, err = dev.TLS(); err != nil {
		return nil, err
	}
	c.tls.NextProtos = httpOne
	return c, nil
}

// httpOne makes TLS negotiate HTTP/1.1.
var httpOne = []string{"http/1.1"}

func isLoopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

func (c *cluster) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = c.Stop(ctx) // the directory with the logs is removed anyway
}

// awaitReady waits until node i can answer and revoke.
func (c *cluster) awaitReady(ctx context.Context, i int, atMost time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, atMost, fmt.Errorf("not ready after %v", atMost))
	defer cancel()
	return c.AwaitReady(ctx, i)
}

func (c *cluster) host(i int) string { return strings.TrimPrefix(c.nodes[i].API, "https://") }

func (c *cluster) target(i int, lean bool) load.Target {
	return load.Target{Addr: c.host(i), TLS: c.tls, Lean: lean}
}

func (c *cluster) targets(lean bool) (all []load.Target) {
	for i := range c.nodes {
		all = append(all, c.target(i, lean))
	}
	return all
}

func (c *cluster) pids() (pids []int) {
	for _, n := range c.nodes {
		if n.PID != 0 {
			pids = append(pids, n.PID)
		}
	}
	return pids
}

func (c *cluster) request(role, path, contentType string) *load.Request {
	cr := c.Cluster.Clients[role]
	basic := url.QueryEscape(cr.ClientID) + ":" + url.QueryEscape(cr.ClientSecret)
	return load.NewRequest(path, c.host(0), base64.StdEncoding.EncodeToString([]byte(basic)), contentType)
}

func (c *cluster) status(ctx context.Context, i int) (client.Status, error) {
	a, err := c.Client("admin", i).Status(ctx)
	return a.Value, err
}

func (c *cluster) leader(ctx context.Context) (int, error) {
	for i := range c.nodes {
		s, err := c.status(ctx, i)
		isLeader := func(n devcluster.Node) bool { return n.ID == s.Leader.NodeID }
		if k := slices.IndexFunc(c.nodes, isLeader); err == nil && k >= 0 { // otherwise bench may have killed the node
			return k, nil
		}
	}
	return 0, errors.New("no node reports a leader")
}

// follower returns a node that does not lead, or the only node.
func (c *cluster) follower(ctx context.Context) (int, error) {
	leader, err := c.leader(ctx)
	return (leader + 1) % len(c.nodes), err
}

// awaitIdle waits until every node has applied what the leader has committed, and is idle.
func (c *cluster) awaitIdle(ctx context.Context) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	want, err := c.status(ctx, leader)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i, n := range c.nodes {
		err := devcluster.Poll(limited, 20*time.Millisecond, func(ctx context.Context) error {
			s, err := c.status(ctx, i)
			if err == nil && s.AppliedIndex < want.CommitIndex {
				err = fmt.Errorf("%s has applied %d of %d", n.ID, s.AppliedIndex, want.CommitIndex)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.rest(ctx)
}

// rest waits, for half a minute at most, until the nodes are almost idle. Their disk work for the
// pairs just registered must not affect the next measure.
func (c *cluster) rest(ctx context.Context) error {
	const look, busy = 250 * time.Millisecond, 0.25 // busy: processor use of all nodes together, in cores
	quiet := 0
	for end := time.Now().Add(30 * time.Second); quiet < 2 && time.Now().Before(end); {
		before, err := host.ProcessorTimes(c.pids())
		if err != nil {
			return nil // the system does not report it
		}
		if err := retry.Sleep(ctx, look); err != nil {
			return err
		}
		after, err := host.ProcessorTimes(c.pids())
		if err != nil {
			return nil
		}
		if quiet++; (after - before).Seconds() >= busy*look.Seconds() {
			quiet = 0
		}
	}
	return nil
}

// counter returns a metric of node i, summed over the series that start with name. It returns false
// if the node does not show the metric.
func (c *cluster) counter(ctx context.Context, i int, name string) (float64, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.nodes[i].API+"/metrics", nil)
	if err != nil {
		return 0, false
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err == nil {
			sum, found = sum+v, true
		}
	}
	return sum, found && lines.Err() == nil
}

// register registers the pairs from low up to high, one stream per node, and returns the time it
// took. Every pair must be new.
func (c *cluster) register(ctx context.Context, t tokens, low, high uint64) (time.Duration, error) {
	streams := uint64(len(c.nodes))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.sent.Store(0)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range streams {
		from, to := low+(high-low)*i/streams, low+(high-low)*(i+1)/streams
		wg.Go(func() {
			if err := c.registerAll(ctx, int(i), t, from, to); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return time.Since(start), context.Cause(ctx)
}

// registerAll sends a stream to node i, at most five times, until every pair is registered. It may
// repeat a pair, because registration is idempotent.
func (c *cluster) registerAll(ctx context.Context, i int, t tokens, low, high uint64) (err error) {
	const tries = 5
	for k := 0; k == 0 && low < high || k < tries && err != nil && ctx.Err() == nil; k++ {
		err = c.registerStream(ctx, i, &pairReader{tokens: t, low: low, high: high, sent: &c.sent}, high-low)
	}
	return err
}

// registerStream sends one stream to node i. It fails unless every pair is registered afterwards.
func (c *cluster) registerStream(ctx context.Context, i int, pairs io.Reader, want uint64) error {
	registered, failure := uint64(0), "no summary"
	err := c.Client("issuer", i).RegisterStream(ctx, pairs, true, func(l client.RegisterLine, _ []byte) error {
		switch {
		case l.Lines != nil:
			registered = l.Registered + l.Known
		case failure == "no summary":
			failure = fmt.Sprintf("line %d: %s: %s", l.Line, cli.Clean(l.Error), cli.Clean(l.Detail))
		}
		return nil
	})
	if err == nil && registered != want {
		err = fmt.Errorf("register pairs at %s: %d of %d registered; %s", c.nodes[i].ID, registered, want, failure)
	}
	return err
}
