package node

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// NodeStatus implements api.Cluster.
func (n *Node) NodeStatus(context.Context) revoked.NodeStatus {
	st := revoked.NodeStatus{
		NodeID: n.cfg.NodeID, ClusterID: n.clusterID(), Version: n.cfg.Version,
		Term: n.raft.CurrentTerm(), State: strings.ToLower(n.raft.State().String()),
		CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.fsm.Applied(),
	}
	index, log, state := n.fsm.Hashes()
	st.HashIndex, st.LogHash, st.StateHash = index, hex.EncodeToString(log[:]), hex.EncodeToString(state[:])
	st.Tokens, st.Grants = n.fsm.Counts()
	conf, err := n.configuration()
	if err == nil {
		st.Voters = len(voterIDs(conf))
		st.Quorum = st.Voters/2 + 1
	}
	if len(conf.Servers) == 0 {
		st.State, st.Quorum = "none", 0
	}
	if id := n.leaderID(); id != "" {
		st.Leader = revoked.LeaderRef{NodeID: nodeOf(id), API: n.apiOf(id)}
	}
	left := n.leases.left()
	st.Lease = revoked.LeaseStatus{Held: left > 0, LeftMS: left.Milliseconds()}
	st.WaitingFor = n.leases.holdingUp()
	st.Healthy = n.Readiness(context.Background()).CanAnswer
	return st
}

// apiOf is where a member's API is reached, as gossip or its reports tell; empty when unknown.
func (n *Node) apiOf(id raft.ServerID) string {
	if id == n.self {
		return n.cfg.API
	}
	if g, ok := n.gossipPeers()[nodeOf(id)]; ok {
		return g.API
	}
	return n.leaderAPI(id)
}

// Readiness implements api.Cluster.
func (n *Node) Readiness(context.Context) revoked.Readiness {
	var r revoked.Readiness
	check := func(name string, ok bool, otherwise string) bool {
		c := revoked.Check{Name: name, OK: ok}
		if !ok {
			c.Detail = otherwise
			r.Reasons = append(r.Reasons, otherwise)
		}
		r.Checks = append(r.Checks, c)
		return ok
	}
	member := check("cluster", n.fsm.ClusterID() != "", "in no cluster yet")
	leader := check("leader", n.leaderID() != "", "no leader is known")
	sound := check("state", !n.diverged.Load(), "this node's state differs from the leader's")
	running := check("running", n.running(), "stopping")
	lease := check("lease", n.leases.valid(), "no read lease: answers need the leader")
	r.CanAnswer = member && sound && running && lease
	r.CanRevoke = r.CanAnswer && leader
	return r
}

func (n *Node) running() bool {
	select {
	case <-n.done:
		return false
	case <-n.ctx.Done():
		return false
	default:
		return true
	}
}

// leaderAPI asks the leader itself, and remembers its answer for as long as it leads.
func (n *Node) leaderAPI(id raft.ServerID) string {
	n.gossipMu.Lock()
	known := n.leaderInfo
	n.gossipMu.Unlock()
	if known.id == id {
		return known.api
	}
	_, host, err := transport.SplitAddress(n.leaderAddress())
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(n.ctx, time.Second)
	defer cancel()
	h, err := n.ask(ctx, host)
	if err != nil || serverIDOf(h) != id {
		return ""
	}
	n.gossipMu.Lock()
	n.leaderInfo.id, n.leaderInfo.api = id, h.Api
	n.gossipMu.Unlock()
	return h.Api
}
