package roster

import (
	"context"
	"sync"
	"time"

	"revoked/cluster"
	"revoked/internal/retry"
)

// The gossip type starts and stops the gossip of this node. Gossip informs operators. It never
// changes membership, addresses or introspection responses.
type gossip struct {
	*local

	mu      sync.Mutex
	running *cluster.Gossip // nil before start and after stop
	seeds   []string
}

// run starts gossip with the cluster's id as the label. It retries until gossip runs or ctx ends.
func (g *gossip) run(ctx context.Context, id string) {
	if g.Gossip.Bind == "" {
		return
	}
	for d := time.Second; ctx.Err() == nil; d = min(2*d, 30*time.Second) {
		running, err := cluster.Start(cluster.Config{
			NodeID: g.NodeID, Instance: g.Identity.Instance, Region: g.Region, ClusterID: id,
			Bind: g.Gossip.Bind, Advertise: g.Gossip.Advertise, Key: g.Gossip.Key,
			API: g.API, Cluster: g.ClusterAdvertise, Version: g.Version,
			Log: g.Log, Metrics: g.Gossip.Metrics, JoinEvery: 15 * time.Second, Peers: g.addresses,
		})
		if err == nil {
			g.join(ctx, running)
			return
		}
		g.Log.Error("cannot start gossip; introspection and membership do not depend on it", "error", err)
		_ = retry.Sleep(ctx, d)
	}
}

// join publishes the running gossip and contacts the seeds, unless the node has begun to stop.
func (g *gossip) join(ctx context.Context, running *cluster.Gossip) {
	g.mu.Lock()
	stopped := ctx.Err() != nil
	if !stopped {
		g.running = running
	}
	seeds := g.seeds
	g.mu.Unlock()
	if stopped {
		_ = running.Close()
		return
	}
	seeds = append(seeds, g.addresses(ctx)...)
	if _, err := running.Join(seeds); err != nil && len(seeds) > 0 {
		g.Log.Warn("gossip has not reached any member yet", "error", err)
	}
}

// addresses requests the gossip addresses of the other members in this node's log.
func (g *gossip) addresses(ctx context.Context) []string {
	conf, err := g.Configuration()
	if err != nil {
		return nil
	}
	var out []string
	for _, host := range g.others(conf) {
		if h, err := g.hello(ctx, host); err == nil && h.GossipAddr != "" {
			out = append(out, h.GossipAddr)
		}
	}
	return out
}

// setSeeds sets the gossip addresses that this node contacts first.
func (g *gossip) setSeeds(addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seeds = addrs
}

// known lists the nodes known to gossip, by node id.
func (g *gossip) known() map[string]cluster.Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]cluster.Peer{}
	if g.running != nil {
		for _, p := range g.running.Members() {
			out[p.NodeID] = p
		}
	}
	return out
}

// stop announces that this node leaves and stops gossip.
func (g *gossip) stop() {
	g.mu.Lock()
	running := g.running
	g.running = nil
	g.mu.Unlock()
	if running == nil {
		return
	}
	if err := running.Leave(time.Second); err != nil {
		g.Log.Debug("cannot leave gossip", "error", err)
	}
	if err := running.Close(); err != nil {
		g.Log.Debug("cannot close gossip", "error", err)
	}
}
