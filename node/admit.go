package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// serveJoin takes a node in. A member that does not lead passes the request on, once.
func (n *Node) serveJoin(ctx context.Context, peer string, req *JoinRequest) (*AdminResponse, error) {
	who := req.GetWho()
	if who == nil || who.Instance == "" || who.ClusterAddr == "" || !req.Forwarded && who.NodeId != peer || req.Forwarded && !n.isMemberNode(peer) {
		return refusal(fmt.Errorf("%w: a node may only join by its own name", revoked.ErrForbidden)), nil
	}
	if n.proposer.Load() == nil {
		if req.Forwarded {
			return refusal(revoked.ErrNoLeader), nil
		}
		var resp AdminResponse
		if err := n.callLeader(ctx, pathJoin, &JoinRequest{Who: who, Forwarded: true}, &resp); err != nil {
			return refusal(err), nil
		}
		return &resp, nil
	}
	index, err := n.admit(ctx, who)
	if err != nil {
		return refusal(err), nil
	}
	resp := &AdminResponse{Index: index, ClusterId: n.clusterID()}
	for _, p := range n.views() {
		if p.who != nil && p.who.GossipAddr != "" {
			resp.GossipAddrs = append(resp.GossipAddrs, p.who.GossipAddr)
		}
	}
	if n.cfg.GossipAdvertise != "" {
		resp.GossipAddrs = append(resp.GossipAddrs, n.cfg.GossipAdvertise)
	}
	return resp, nil
}

func refusal(err error) *AdminResponse {
	return &AdminResponse{Code: revoked.Code(err), Detail: detailOf(err)}
}

// admit adds who to the configuration as a non-voter, or gives a member its new address. The same
// node id with another instance comes in beside the old one, which is removed once the new one has
// caught up (retireReplaced).
func (n *Node) admit(ctx context.Context, who *Hello) (uint64, error) {
	id := n.clusterID()
	if id == "" {
		return 0, fmt.Errorf("%w: the cluster is being founded", revoked.ErrNoCluster)
	}
	if who.ClusterId != "" && who.ClusterId != id {
		return 0, fmt.Errorf("%w: node %s belongs to cluster %s, this is %s: empty its data directory first",
			revoked.ErrUnprocessable, who.NodeId, who.ClusterId, id)
	}
	n.membership.take()
	defer n.membership.give()
	conf, err := n.configuration()
	if err != nil {
		return 0, err
	}
	server, addr := serverIDOf(who), addressOf(who)
	for _, s := range conf.Servers {
		if s.ID == server {
			if err := n.checkTwin(ctx, who, s.Address); err != nil {
				return 0, err
			}
		}
		switch {
		case s.ID == server && s.Address == addr:
			return n.fsm.Applied(), nil // a member already
		case s.ID == server && s.Suffrage == raft.Voter:
			return n.changed(n.raft.AddVoter(server, addr, 0, n.cfg.RequestTimeout))
		case s.ID != server && nodeOf(s.ID) != who.NodeId && hostOf(s.Address) == who.ClusterAddr:
			return 0, fmt.Errorf("%w: address %s is that of %s", revoked.ErrConflict, who.ClusterAddr, nodeOf(s.ID))
		case s.ID != server && nodeOf(s.ID) == who.NodeId && n.isAlive(s.ID):
			return 0, fmt.Errorf("%w: node %s is a member and alive: two nodes must not share a node_id", revoked.ErrConflict, who.NodeId)
		}
	}
	n.log.Info("a node joins", "server", server, "address", addr)
	return n.changed(n.raft.AddNonvoter(server, addr, 0, n.cfg.RequestTimeout))
}

// addressOf is Raft's address for a node: unique also while two instances of it have the same host
// and port.
func addressOf(who *Hello) raft.ServerAddress {
	return transport.InstanceAddress(who.NodeId, who.ClusterAddr, who.Instance)
}

func hostOf(addr raft.ServerAddress) string {
	_, host, _ := transport.SplitAddress(addr)
	return host
}

// changed waits for a change of the configuration.
func (n *Node) changed(f raft.IndexFuture) (uint64, error) {
	if err := f.Error(); err != nil {
		return 0, applyError(err)
	}
	if conf, err := n.configuration(); err == nil {
		n.peers.configure(conf)
		n.leases.members(conf)
		n.stamps.setVoters(voterIDs(conf))
	}
	return f.Index(), nil
}

func (n *Node) isAlive(id raft.ServerID) bool {
	for _, p := range n.views() {
		if p.server.ID == id {
			return p.alive
		}
	}
	return false
}

// allowRaft decides whether a peer's Raft stream is let in: members are, and so is anyone of the
// cluster's CA while this node is founding or joining. A name that this node's log does not hold yet,
// it looks up at the members that it knows: it may have been away while the cluster grew.
func (n *Node) allowRaft(peer string) error {
	conf, err := n.configuration()
	if err != nil {
		return err
	}
	if len(conf.Servers) == 0 {
		if n.expecting.Load() {
			return nil
		}
		return fmt.Errorf("%w: this node is in no cluster and is not joining one", revoked.ErrForbidden)
	}
	if n.isMemberNode(peer) {
		return nil
	}
	for _, s := range conf.Servers {
		name, host, err := transport.SplitAddress(s.Address)
		if err != nil || name == n.cfg.NodeID {
			continue
		}
		if h, err := n.ask(n.ctx, host); err == nil && h.ClusterId == n.clusterID() && slices.Contains(h.MemberIds, peer) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is no member of this cluster", revoked.ErrForbidden, peer)
}
