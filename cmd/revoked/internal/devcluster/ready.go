package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"revoked/client"
)

const (
	readyInterval  = 5 * time.Millisecond  // between two requests to /readyz
	clientInterval = 50 * time.Millisecond // between two requests of a client
	attemptTime    = 3 * time.Second       // limit for one call
)

// AwaitReady waits until node i answers introspections and has found a leader. It fails early if a
// node that the runner started has exited. The error wraps the cause of ctx and the last error.
func (r *Runner) AwaitReady(ctx context.Context, i int) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	return r.poll(ctx, i, readyInterval, func(ctx context.Context) error {
		if err := r.ended(); err != nil {
			fail(err)
			return err
		}
		return client.Ready(ctx, r.HTTP.Transport, r.Cluster.Nodes[i].API, true)
	})
}

// AwaitCluster waits until every node is ready and accepts the clients of dev.json. It returns the
// cluster id.
func (r *Runner) AwaitCluster(ctx context.Context) (clusterID string, err error) {
	for i := range r.Cluster.Nodes {
		if err := r.AwaitReady(ctx, i); err != nil {
			return "", err
		}
		err := r.poll(ctx, i, clientInterval, func(ctx context.Context) error {
			_, err := r.Client("resource_server", i).Introspect(ctx, "probe", "")
			return explain(err)
		})
		if err != nil {
			return "", err
		}
	}
	err = r.poll(ctx, 0, clientInterval, func(ctx context.Context) error {
		status, err := r.Client("admin", 0).Status(ctx)
		if clusterID = status.Value.ClusterID; err == nil && clusterID == "" {
			err = errors.New("the cluster has no id yet")
		}
		return explain(err)
	})
	return clusterID, err
}

// Client returns a client of the API of node i.
func (r *Runner) Client(role string, i int) *client.Client {
	as := r.Cluster.Clients[role]
	c, err := client.New(client.Config{
		Addrs: []string{r.Cluster.Nodes[i].API}, ID: as.ClientID, Secret: as.ClientSecret, HTTP: r.HTTP,
	})
	if err != nil {
		panic(err) // cannot happen: the configuration has an address
	}
	return c
}

// explain adds the likely reason if a node rejects a client.
func explain(err error) error {
	var status *client.StatusError
	unknown := []int{http.StatusUnauthorized, http.StatusTooManyRequests}
	if errors.As(err, &status) && slices.Contains(unknown, status.Status) {
		return fmt.Errorf("%w: if this lasts, the cluster was bootstrapped with another clients.json: "+
			"restore that file, or use another --dir", err)
	}
	return err
}

// ended returns an error if a node that the runner started has exited on its own.
func (r *Runner) ended() error {
	for _, c := range r.nodes {
		if c != nil && !c.Running() {
			return fmt.Errorf("%s exited before it was ready (%s); the end of its log:\n%s",
				c.node.ID, ExitReason(c.Err()), LastLines(c.node.Log, 10))
		}
	}
	return nil
}

func (r *Runner) poll(ctx context.Context, i int, interval time.Duration, f func(context.Context) error) error {
	if err := Poll(ctx, interval, f); err != nil {
		return fmt.Errorf("wait for %s: %w", r.Cluster.Nodes[i].ID, err)
	}
	return nil
}

// Poll calls f until it returns nil or ctx ends, with a pause of interval. Each call gets a context
// that ends after a few seconds. The error wraps the cause of ctx and the last error of f.
func Poll(ctx context.Context, interval time.Duration, f func(context.Context) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error
	for {
		once, cancel := context.WithTimeout(ctx, attemptTime)
		err := f(once)
		cancel()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // keep the earlier error if ctx interrupted this call
			last = err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if ctx.Err() != nil { // select chooses at random if a tick is due as well
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), last)
		}
	}
}
