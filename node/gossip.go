package node

import (
	"context"
	"time"

	"revoked/cluster"
	"revoked/transport"
)

// runGossip starts gossip and keeps it together until ctx ends. It is a hint and an alarm bell:
// nothing here changes membership, addresses or answers.
func (n *Node) runGossip(ctx context.Context, id string) {
	if n.cfg.GossipBind == "" {
		return
	}
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		g, err := cluster.Start(cluster.Config{
			NodeID: n.cfg.NodeID, Instance: n.id.Instance, Region: n.cfg.Region, ClusterID: id,
			Bind: n.cfg.GossipBind, Advertise: n.cfg.GossipAdvertise, Key: n.cfg.GossipKey,
			API: n.cfg.API, Cluster: n.cfg.ClusterAdvertise, Version: n.cfg.Version,
			Log: n.log, JoinEvery: 15 * time.Second, Peers: n.gossipAddresses,
		})
		if err != nil {
			n.log.Error("gossip did not start; answers and membership do not depend on it", "error", err)
			n.pause(ctx, pause)
			continue
		}
		n.gossipMu.Lock()
		stopped := ctx.Err() != nil
		if !stopped {
			n.gossip = g
		}
		seeds := n.seeds
		n.gossipMu.Unlock()
		if stopped {
			g.Close()
			return
		}
		seeds = append(seeds, n.gossipAddresses(ctx)...)
		if _, err := g.Join(seeds); err != nil && len(seeds) > 0 {
			n.log.Warn("gossip reached nobody yet", "error", err)
		}
		return
	}
}

// gossipAddresses asks the members of this node's log where they gossip.
func (n *Node) gossipAddresses(ctx context.Context) []string {
	conf, err := n.configuration()
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range conf.Servers {
		name, host, err := transport.SplitAddress(s.Address)
		if err != nil || name == n.cfg.NodeID {
			continue
		}
		if h, err := n.ask(ctx, host); err == nil && h.GossipAddr != "" {
			out = append(out, h.GossipAddr)
		}
	}
	return out
}

// gossipSeeds notes where to look first.
func (n *Node) gossipSeeds(addrs []string) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	n.seeds = addrs
}

// gossipPeers lists what gossip says, by node id.
func (n *Node) gossipPeers() map[string]cluster.Peer {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	out := map[string]cluster.Peer{}
	if n.gossip != nil {
		for _, p := range n.gossip.Members() {
			out[p.NodeID] = p
		}
	}
	return out
}

// stopGossip says goodbye, so that others do not suspect a failure, and stops.
func (n *Node) stopGossip() {
	n.gossipMu.Lock()
	g := n.gossip
	n.gossip = nil
	n.gossipMu.Unlock()
	if g == nil {
		return
	}
	if err := g.Leave(time.Second); err != nil {
		n.log.Debug("gossip leave", "error", err)
	}
	if err := g.Close(); err != nil {
		n.log.Debug("gossip close", "error", err)
	}
}
