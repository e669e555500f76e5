package node

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/node/bearer"
	"revoked/node/datadir"
	"revoked/node/propose"
	"revoked/node/raftstore"
	"revoked/node/roster"
	"revoked/transport"
)

// A Node is one member of a cluster. It only connects its parts. Each part has its own lock and
// receives what it needs as arguments and functions. All methods may be called concurrently. Node
// implements api.Backend, together with the two parts that it embeds.
type Node struct {
	cfg  Config // Log includes the node id
	id   *datadir.Identity
	life *life

	membership // holds the roster
	issuers

	fsm       *fsm.FSM
	tokens    *bearer.Decider
	store     *raftstore.Store
	transport *transport.Transport
	raft      *raft.Raft

	leases     *leases
	leadership *leadership
	propose    *propose.Router
	metrics    *metrics
}

// Done returns a channel that is closed when the node must stop: it left, was removed, or met a
// fatal error.
func (n *Node) Done() <-chan struct{} { return n.life.done }

// Err returns the error that closed Done; nil after a clean leave. Call it only after Done is
// closed.
func (n *Node) Err() error { return n.life.err }

// Close stops the node cleanly: it transfers leadership if another voter is reachable, returns its
// lease, and closes everything that Open opened. The node stays a member. Close may be called more
// than once. ctx bounds only the transfer and the return of the lease. The other steps of Close
// wait for all goroutines.
func (n *Node) Close(ctx context.Context) error {
	n.life.closeOnce.Do(func() {
		n.stepDown(ctx)
		n.life.closeErr = n.life.close()
	})
	return n.life.closeErr
}

// stepDown transfers leadership and returns the lease. It gives up after two heartbeat timeouts.
// Without the transfer, the other nodes would wait for an election. Without the return, revocations
// would wait for the lease to expire.
func (n *Node) stepDown(ctx context.Context) {
	wait := n.cfg.HeartbeatTimeout
	if n.leadership.proposer() != nil && !n.roster.IsSingleNode() {
		if err := n.roster.TransferAway(); err != nil {
			n.cfg.Log.Info("leadership transfer failed", "error", err)
		} else {
			ending, cancel := context.WithTimeout(ctx, wait)
			n.leadership.awaitEnd(ending)
			cancel()
			wait *= 2 // the new leader may not have opened its term yet
		}
	}
	if n.roster.ClusterID() != "" && n.leadership.proposer() == nil {
		returning, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		n.roster.ReturnLease(returning)
	}
}

// stopRaft stops Raft and gossip. It first rejects further leadership transfers.
func (n *Node) stopRaft() error {
	if n.roster != nil {
		n.roster.CloseTransfers()
	}
	var stopped raft.Future
	n.leadership.watcher.withLock(func() { stopped = n.raft.Shutdown() }) // Raft no longer waits for the watcher
	err := stopped.Error()
	n.leadership.futures.End()
	if n.roster != nil {
		n.roster.StopGossip()
	}
	return err
}

// NodeStatus implements api.Backend. It returns this node's own view, and calls another node only
// if the leader's API address is unknown. The fields are read one after the other, so they may
// belong to slightly different times.
func (n *Node) NodeStatus(context.Context) revoked.NodeStatus {
	st := revoked.NodeStatus{
		NodeID: n.cfg.NodeID, ClusterID: n.roster.ClusterID(), Version: n.cfg.Version,
		Term: n.raft.CurrentTerm(), State: strings.ToLower(n.raft.State().String()),
		CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.fsm.Applied(),
	}
	index, log, state := n.fsm.Hashes()
	st.HashIndex, st.LogHash, st.StateHash = index, hex.EncodeToString(log[:]), hex.EncodeToString(state[:])
	st.Tokens, st.Grants = n.fsm.Counts()
	conf, err := n.roster.Configuration()
	if err == nil {
		st.Voters = len(roster.VoterIDs(conf))
		st.Quorum = st.Voters/2 + 1
	}
	if len(conf.Servers) == 0 {
		st.State, st.Quorum = "none", 0
	}
	if _, id := n.raft.LeaderWithID(); id != "" {
		st.Leader = revoked.LeaderRef{NodeID: datadir.NodeOf(id), API: n.roster.APIOf(id)}
	}
	left := n.leases.remaining()
	st.Lease = revoked.LeaseStatus{Held: left > 0, Left: left}
	st.WaitingFor = n.leases.blockedBy()
	st.Healthy = n.Readiness(context.Background()).CanAnswer
	return st
}

// Readiness implements api.Backend. A node can answer while it holds a lease; it can revoke if it
// also knows a leader. It never blocks and does not call another node, so health checks may call it
// at any rate.
func (n *Node) Readiness(context.Context) revoked.Readiness {
	var r revoked.Readiness
	check := func(name string, ok bool, reason string) bool {
		c := revoked.Check{Name: name, OK: ok}
		if !ok {
			c.Detail = reason
			r.Reasons = append(r.Reasons, reason)
		}
		r.Checks = append(r.Checks, c)
		return ok
	}
	member := check("cluster", n.fsm.ClusterID() != "", "not in a cluster yet")
	leaderless := "no leader is known"
	if err := n.noLeader(); err != nil {
		leaderless = err.Error()
	}
	leader := check("leader", n.raft.Leader() != "", leaderless)
	sound := check("state", !n.roster.Diverged(), "this node's state differs from the leader's")
	running := check("running", n.life.running(), "stopping")
	lease := check("lease", n.leases.valid(), "no read lease: every read calls the leader")
	r.CanAnswer = member && sound && running && lease
	r.CanRevoke = r.CanAnswer && leader
	return r
}
