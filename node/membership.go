package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// serveAdmin is the leader's half of membership changes. It never forwards.
func (n *Node) serveAdmin(ctx context.Context, peer string, req *AdminRequest) (*AdminResponse, error) {
	if !n.isMemberNode(peer) {
		return refusal(fmt.Errorf("%w: not a member of this cluster", revoked.ErrForbidden)), nil
	}
	index, err := n.administer(ctx, req)
	if err != nil {
		return refusal(err), nil
	}
	return &AdminResponse{Index: index}, nil
}

// administer carries out a membership change where this node leads; ErrNoLeader where it does not.
func (n *Node) administer(ctx context.Context, req *AdminRequest) (uint64, error) {
	if n.proposer.Load() == nil || n.raft.State() != raft.Leader { // either may be the first to know
		return 0, fmt.Errorf("%w: this node does not lead", revoked.ErrNoLeader)
	}
	switch req.Kind {
	case AdminRequest_LEAVE:
		return n.removeServer(raft.ServerID(req.Server), false, "stop this node instead and have it removed with force and a reason")
	case AdminRequest_REMOVE:
		if req.Force && req.Reason == "" {
			return 0, fmt.Errorf("%w: a forced removal needs a reason", revoked.ErrUnprocessable)
		}
		return n.removeNode(req.Node, req.Force, req.Reason)
	case AdminRequest_TRANSFER:
		return n.handOver(ctx, req.Node)
	}
	return 0, fmt.Errorf("%w: unknown membership change", revoked.ErrInvalid)
}

// toLeader brings a membership change to the leader, trying again while none is known.
func (n *Node) toLeader(ctx context.Context, req *AdminRequest) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.RequestTimeout)
	defer cancel()
	for {
		changed := n.leaderChange.wait()
		index, err := n.administer(ctx, req)
		if errors.Is(err, revoked.ErrNoLeader) && n.proposer.Load() == nil {
			var resp AdminResponse
			if err = n.callLeader(ctx, pathAdmin, req, &resp); err == nil {
				index, err = resp.Index, errorOf(resp.Code, resp.Detail)
			}
		}
		if !errors.Is(err, revoked.ErrNoLeader) {
			return index, err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-changed:
		case <-time.After(retryPause):
		}
	}
}

func (n *Node) removeNode(node string, force bool, reason string) (uint64, error) {
	conf, err := n.configuration()
	if err != nil {
		return 0, err
	}
	index, found := uint64(0), false
	for _, s := range conf.Servers {
		if nodeOf(s.ID) != node {
			continue
		}
		found = true
		if index, err = n.removeServer(s.ID, force, "force with a reason"); err != nil {
			return 0, err
		}
		n.log.Info("a node was removed", "server", s.ID, "forced", force, "reason", reason)
	}
	if !found {
		return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	}
	return index, nil
}

// removeServer takes one server out of the configuration. Unless forced it is refused where the rest
// would have no majority of live voters; the refusal names otherwise as the other thing to do.
func (n *Node) removeServer(id raft.ServerID, force bool, otherwise string) (uint64, error) {
	n.membership.take()
	defer n.membership.give()
	conf, err := n.configuration()
	if err != nil {
		return 0, err
	}
	if !inConfiguration(conf, id) {
		return n.fsm.Applied(), nil // gone already: a repeat is no error
	}
	voters, alive := 0, 0
	for _, p := range n.views() {
		if p.server.ID == id || p.server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if p.alive || p.server.ID == n.self {
			alive++
		}
	}
	if voters == 0 {
		return 0, fmt.Errorf("%w: %s is the last voter: stop it, or remove its data, to end the cluster", revoked.ErrQuorumRisk, nodeOf(id))
	}
	if alive < voters/2+1 && !force && n.peers.settling(time.Now()) {
		return 0, fmt.Errorf("%w: it has just begun to lead and has not heard of all members", revoked.ErrNoLeader)
	}
	if alive < voters/2+1 && !force {
		return 0, fmt.Errorf("%w: without %s only %d of %d voters would be alive: bring one back, or %s",
			revoked.ErrQuorumRisk, nodeOf(id), alive, voters, otherwise)
	}
	if id == n.self {
		if err := n.transferAway(); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%w: leadership was handed over first", revoked.ErrNoLeader)
	}
	// Nobody leaves the configuration while it may hold a read lease: acknowledgements would stop
	// waiting for it.
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.RequestTimeout)
	defer cancel()
	term, err := n.leases.clear(ctx, id)
	if err != nil {
		return 0, err
	}
	index, err := n.change(ctx, term, func(wait time.Duration) raft.IndexFuture { // in no other: its leader may have granted a lease
		return n.raft.RemoveServer(id, 0, wait)
	})
	if err != nil {
		n.leases.bar(id, false)
	}
	return index, err
}

// views is what this leader knows of the members of the newest configuration.
func (n *Node) views() []peerView {
	if conf, err := n.configuration(); err == nil {
		n.peers.configure(conf)
	}
	return n.peers.view(time.Now())
}

// retireReplaced removes the old instance of a node that came back with an empty disk, once the new
// one has caught up as far as it wants to.
func (n *Node) retireReplaced() {
	byNode := map[string][]peerView{}
	for _, p := range n.views() {
		byNode[nodeOf(p.server.ID)] = append(byNode[nodeOf(p.server.ID)], p)
	}
	for node, instances := range byNode {
		if len(instances) < 2 {
			continue
		}
		for _, young := range instances {
			ready := young.alive && (young.server.Suffrage == raft.Voter || young.who != nil && young.who.NonVoter)
			for _, old := range instances {
				if ready && old.server.ID != young.server.ID && !old.alive {
					if _, err := n.removeServer(old.server.ID, false, "remove it with force and a reason"); err != nil {
						n.log.Warn("the replaced instance of a node stays for now", "node", node, "error", err)
					} else {
						n.log.Info("removed the replaced instance of a node", "server", old.server.ID)
					}
				}
			}
		}
	}
}

// Join implements api.Cluster.
func (n *Node) Join(ctx context.Context, addresses []string) (uint64, error) {
	if conf, err := n.configuration(); err != nil || len(conf.Servers) > 0 || n.clusterID() != "" {
		return 0, fmt.Errorf("%w: %s; `revoked leave` first", revoked.ErrMember, n.clusterID())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.RequestTimeout)
	defer cancel()
	index, err := n.joinAt(ctx, addresses)
	if err != nil {
		return 0, err
	}
	n.stopEntering()
	return index, nil
}

// Leave implements api.Cluster: leadership, configuration, gossip; then Done.
func (n *Node) Leave(ctx context.Context) (uint64, error) {
	if n.clusterID() == "" {
		return 0, fmt.Errorf("%w: %w: nothing to leave", revoked.ErrUnprocessable, revoked.ErrNoCluster)
	}
	if n.proposer.Load() == nil {
		giving, cancel := context.WithTimeout(ctx, n.cfg.HeartbeatTimeout)
		n.reporter.giveBack(giving)
		cancel()
	}
	index, err := n.toLeader(ctx, &AdminRequest{Kind: AdminRequest_LEAVE, Server: string(n.self)})
	if err != nil {
		n.reporter.resume()
		return 0, err
	}
	if err := n.markLeft(); err != nil {
		return 0, err
	}
	n.finish(nil)
	return index, nil
}

// Remove implements api.Cluster.
func (n *Node) Remove(ctx context.Context, node string, force bool, reason string) (uint64, error) {
	if err := n.checkInCluster(); err != nil {
		return 0, err
	}
	return n.toLeader(ctx, &AdminRequest{Kind: AdminRequest_REMOVE, Node: node, Force: force, Reason: reason})
}

// TransferLeader implements api.Cluster.
func (n *Node) TransferLeader(ctx context.Context, node string) (uint64, error) {
	if err := n.checkInCluster(); err != nil {
		return 0, err
	}
	return n.toLeader(ctx, &AdminRequest{Kind: AdminRequest_TRANSFER, Node: node})
}

// checkInCluster refuses what only a member can be asked. ErrUnprocessable goes first: ErrNoCluster alone says
// that a repeat may help.
func (n *Node) checkInCluster() error {
	if conf, err := n.configuration(); err != nil || len(conf.Servers) > 0 || n.clusterID() != "" {
		return err
	}
	return fmt.Errorf("%w: %w: ask a member", revoked.ErrUnprocessable, revoked.ErrNoCluster)
}

// markLeft makes sure that this data directory starts again only as a new instance.
func (n *Node) markLeft() error {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	n.id.Left = true
	return n.id.save()
}

// removed ends a node that the cluster has taken out: it must not serve, nor stand for election.
func (n *Node) removed() {
	if err := n.markLeft(); err != nil {
		n.log.Error("could not note the removal", "error", err)
	}
	n.finish(fmt.Errorf("%w: this node was removed from its cluster; start it with --rejoin to join anew", revoked.ErrForbidden))
}

// Members implements api.Cluster: the leader's view where there is a leader, else this node's own.
func (n *Node) Members(ctx context.Context) ([]revoked.Member, error) {
	if n.proposer.Load() != nil {
		return n.memberTable(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.HeartbeatTimeout*2)
	defer cancel()
	var resp MembersResponse
	if err := n.callLeader(ctx, pathMembers, &AdminRequest{}, &resp); err == nil && resp.Code == 0 {
		var ms []revoked.Member
		if err := json.Unmarshal(resp.Members, &ms); err == nil {
			return ms, nil
		}
	}
	return n.memberTable(), nil
}

func (n *Node) serveMembers(_ context.Context, peer string, _ *AdminRequest) (*MembersResponse, error) {
	if !n.isMemberNode(peer) {
		return &MembersResponse{Code: revoked.Code(revoked.ErrNoLeader)}, nil
	}
	if n.proposer.Load() == nil {
		return &MembersResponse{Code: revoked.Code(revoked.ErrNoLeader)}, nil
	}
	b, err := json.Marshal(n.memberTable())
	return &MembersResponse{Members: b}, err
}

// memberTable is this node's view: by reports when it leads, else by its log and by gossip.
func (n *Node) memberTable() []revoked.Member {
	conf, err := n.configuration()
	if err != nil {
		return nil
	}
	views := map[raft.ServerID]peerView{}
	for _, p := range n.views() {
		views[p.server.ID] = p
	}
	gossip := n.gossipPeers()
	leader, applied := n.leaderID(), n.fsm.Applied()
	out := make([]revoked.Member, 0, len(conf.Servers))
	for _, s := range conf.Servers {
		_, host, _ := transport.SplitAddress(s.Address)
		m := revoked.Member{NodeID: nodeOf(s.ID), Cluster: host, Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader, LastContactMS: -1}
		if g, ok := gossip[m.NodeID]; ok {
			m.Region, m.API, m.Version, m.Alive = g.Region, g.API, g.Version, g.Alive
		}
		switch v := views[s.ID]; {
		case s.ID == n.self:
			m.Region, m.API, m.Version, m.Alive = n.cfg.Region, n.cfg.API, n.cfg.Version, true
			m.AppliedIndex, m.LastContactMS = applied, 0
		case v.who != nil:
			m.Region, m.API, m.Version, m.Alive = v.who.Region, v.who.Api, v.who.Version, v.alive
			m.AppliedIndex, m.LastContactMS = v.applied, v.heardAgo.Milliseconds()
		case leader == n.self && !n.peers.settling(time.Now()): // gossip is slower to know who died before this term
			m.Alive = false
		}
		if s.ID == n.self {
			m.LeaseLeftMS = n.leases.left().Milliseconds()
		} else {
			m.LeaseLeftMS = n.leases.leftOf(s.ID).Milliseconds()
		}
		if m.AppliedIndex < applied { // 0 is of one that has not reported to this leader yet
			m.Behind = applied - m.AppliedIndex
		}
		out = append(out, m)
	}
	return out
}
