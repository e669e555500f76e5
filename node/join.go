package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/transport"
)

// hello tells who this node is and what it knows.
func (n *Node) hello() *Hello {
	h := &Hello{
		NodeId: n.cfg.NodeID, Instance: n.id.Instance, ClusterId: n.clusterID(),
		ClusterAddr: n.cfg.ClusterAdvertise, GossipAddr: n.cfg.GossipAdvertise,
		Api: n.cfg.API, Region: n.cfg.Region, Version: n.cfg.Version,
		NonVoter: n.cfg.NonVoter, Expect: uint32(n.cfg.BootstrapExpect), Commands: fsm.CommandVersion,
	}
	if conf, err := n.configuration(); err == nil {
		for _, s := range conf.Servers {
			if _, host, err := transport.SplitAddress(s.Address); err == nil {
				h.MemberIds = append(h.MemberIds, nodeOf(s.ID))
				h.MemberAddrs = append(h.MemberAddrs, host)
			}
		}
	}
	if id := n.leaderID(); id != "" {
		h.LeaderId = nodeOf(id)
	}
	return h
}

// ask says hello to whoever is at host.
func (n *Node) ask(ctx context.Context, host string) (*Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var h Hello
	if err := n.call(ctx, host, "", pathHello, n.hello(), &h); err != nil {
		return nil, err
	}
	return &h, nil
}

// enter brings a node that starts into its cluster, and keeps its address known there. It returns
// when that is done or ctx ends; until then it tries again and says what is in the way.
func (n *Node) enter(ctx context.Context) {
	said := ""
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 2*time.Second) {
		err := n.enterOnce(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != said {
			n.log.Info("not in a cluster yet", "reason", text)
			said = text
		}
		n.pause(ctx, pause)
	}
}

func (n *Node) enterOnce(ctx context.Context) error {
	conf, err := n.configuration()
	if err != nil {
		return err
	}
	if inConfiguration(conf, n.self) {
		return n.announceAddress(ctx, conf)
	}
	if len(conf.Servers) > 0 && n.boundTo() != "" {
		return n.announceAddress(ctx, conf) // its log does not show its own joining yet
	}
	if n.cfg.BootstrapExpect > 0 {
		return n.bootstrap(ctx)
	}
	if len(n.cfg.Join) == 0 {
		return errors.New("waiting for `revoked join`: neither join nor bootstrap_expect is set")
	}
	_, err = n.joinAt(ctx, n.cfg.Join)
	return err
}

// bootstrap founds a cluster of exactly bootstrap_expect nodes: each of them finds the same names
// over mutual TLS, and the one with the lowest node id writes the first configuration. A peer that is
// in a cluster already turns it into a join.
func (n *Node) bootstrap(ctx context.Context) error {
	want := n.cfg.BootstrapExpect
	found := map[string]*Hello{n.cfg.NodeID: n.hello()}
	var missing []string
	for _, host := range n.cfg.Join {
		h, err := n.ask(ctx, host)
		if err != nil {
			missing = append(missing, host)
			continue
		}
		if len(h.MemberIds) > 0 && !slices.Contains(h.MemberIds, n.cfg.NodeID) || h.ClusterId != "" {
			_, err := n.joinAt(ctx, []string{host})
			return err
		}
		if h.NodeId == n.cfg.NodeID {
			if h.Instance != n.id.Instance {
				return fmt.Errorf("%s is also named %q: two nodes must not share a node_id", host, h.NodeId)
			}
			continue
		}
		if int(h.Expect) != want {
			return fmt.Errorf("%s (%s) expects %d nodes, this one %d: start all with the same bootstrap_expect", h.NodeId, host, h.Expect, want)
		}
		if h.ClusterAddr == "" {
			h.ClusterAddr = host
		}
		found[h.NodeId] = h
	}
	if len(found) < want {
		return fmt.Errorf("bootstrap_expect is %d, found %d; no answer from %v", want, len(found), missing)
	}
	if len(found) > want {
		return fmt.Errorf("bootstrap_expect is %d, but `join` leads to %d nodes: name exactly those that found the cluster", want, len(found))
	}
	names := make([]string, 0, want)
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	n.expecting.Store(true)
	if names[0] != n.cfg.NodeID {
		return fmt.Errorf("waiting for %s to propose the cluster of %v", names[0], names)
	}
	var conf raft.Configuration
	for _, name := range names {
		h := found[name]
		suffrage := raft.Voter
		if h.NonVoter {
			suffrage = raft.Nonvoter
		}
		conf.Servers = append(conf.Servers, raft.Server{Suffrage: suffrage, ID: serverIDOf(h), Address: addressOf(h)})
	}
	n.log.Info("founding a cluster", "nodes", names)
	if err := n.raft.BootstrapCluster(conf).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// joinAt asks the cluster that is found at one of the addresses to take this node in, and waits until
// this node has applied its own joining.
func (n *Node) joinAt(ctx context.Context, addresses []string) (uint64, error) {
	var failures []error
	for _, host := range addresses {
		h, err := n.ask(ctx, host)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("%s: %w", host, err))
			continue
		case h.NodeId == n.cfg.NodeID && h.Instance == n.id.Instance:
			failures = append(failures, fmt.Errorf("%s is this node itself", host))
			continue
		case n.boundTo() != "" && h.ClusterId != "" && h.ClusterId != n.boundTo():
			return 0, fmt.Errorf("%w: %s belongs to cluster %s, this data directory to %s", revoked.ErrUnprocessable, host, h.ClusterId, n.boundTo())
		case h.ClusterId == "":
			failures = append(failures, fmt.Errorf("%s (%s) is in no cluster yet", host, h.NodeId))
			continue
		}
		n.expecting.Store(true)
		var resp AdminResponse
		if err := n.call(ctx, host, h.NodeId, pathJoin, &JoinRequest{Who: n.hello()}, &resp); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", host, err))
			continue
		}
		if err := errorOf(resp.Code, resp.Detail); err != nil {
			if errors.Is(err, revoked.ErrUnprocessable) || errors.Is(err, revoked.ErrConflict) {
				return 0, err
			}
			failures = append(failures, fmt.Errorf("%s: %w", host, err))
			continue
		}
		if err := n.adoptCluster(resp.ClusterId); err != nil {
			return 0, err
		}
		n.gossipSeeds(resp.GossipAddrs)
		return resp.Index, n.waitMember(ctx)
	}
	if len(failures) == 0 {
		return 0, fmt.Errorf("%w: no address to join", revoked.ErrUnprocessable)
	}
	return 0, fmt.Errorf("%w: no cluster could be joined: %w", revoked.ErrUnprocessable, errors.Join(failures...))
}

// waitMember returns when this node's own log shows that it is a member.
func (n *Node) waitMember(ctx context.Context) error {
	for {
		if conf, err := n.configuration(); err == nil && inConfiguration(conf, n.self) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: joined, but the log has not arrived yet", revoked.ErrOutcomeUnknown)
		case <-n.fsm.AppliedChan():
		case <-time.After(retryPause):
		}
	}
}

// announceAddress tells the cluster this node's present address: a no-op where it is known already.
func (n *Node) announceAddress(ctx context.Context, conf raft.Configuration) error {
	mine := addressOf(n.hello())
	known := false
	hosts := slices.Clone(n.cfg.Join)
	for _, s := range conf.Servers {
		if s.ID == n.self {
			known = s.Address == mine
			if !known {
				if err := n.checkTwin(ctx, n.hello(), s.Address); err != nil {
					n.fatal(err)
					return err
				}
			}
			continue
		}
		if _, host, err := transport.SplitAddress(s.Address); err == nil {
			hosts = append(hosts, host)
		}
	}
	if known {
		return nil
	}
	n.log.Info("telling the cluster a new address", "address", mine)
	if len(conf.Servers) == 1 { // it is the cluster
		if n.proposer.Load() == nil {
			return errors.New("waiting to lead, to correct this node's own address")
		}
		_, err := n.admit(ctx, n.hello())
		return err
	}
	_, err := n.joinAt(ctx, hosts)
	return err
}

// checkTwin returns an error when a process with the identity of who runs at its old address, and means
// to be there: a copy of its data directory. Two of them could vote twice.
func (n *Node) checkTwin(ctx context.Context, who *Hello, old raft.ServerAddress) error {
	host := hostOf(old)
	if host == "" || host == who.ClusterAddr {
		return nil
	}
	h, err := n.ask(ctx, host)
	if err != nil || h.NodeId != who.NodeId || h.Instance != who.Instance || h.ClusterAddr != host {
		return nil
	}
	return fmt.Errorf("%w: another process runs as node %s with a copy of this data directory, at %s: one of the two must be stopped "+
		"and its data directory moved away; it can join as a new instance", revoked.ErrConflict, who.NodeId, host)
}

// adoptCluster binds the data directory to a cluster, durably, or refuses a foreign one.
func (n *Node) adoptCluster(id string) error {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	switch n.id.ClusterID {
	case id:
		return nil
	case "":
		n.id.ClusterID = id
		if err := n.id.save(); err != nil {
			n.id.ClusterID = ""
			return err
		}
		n.log.Info("in cluster", "cluster_id", id)
		return nil
	}
	return fmt.Errorf("%w: this data directory belongs to cluster %s, not %s", revoked.ErrUnprocessable, n.id.ClusterID, id)
}

// boundTo is the cluster that this data directory belongs to; empty for none yet.
func (n *Node) boundTo() string {
	n.idMu.Lock()
	defer n.idMu.Unlock()
	return n.id.ClusterID
}

// clusterID is empty until this node is in a cluster that has been founded.
func (n *Node) clusterID() string {
	if id := n.fsm.ClusterID(); id != "" {
		return id
	}
	return n.boundTo()
}
