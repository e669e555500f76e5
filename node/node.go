package node

import (
	"context"
	"log/slog"

	"github.com/hashicorp/raft"

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
// implements api.Backend.
type Node struct {
	cfg  Config
	log  *slog.Logger
	id   *datadir.Identity
	life *life

	fsm       *fsm.FSM
	tokens    *bearer.Decider
	store     *raftstore.Store
	transport *transport.Transport
	raft      *raft.Raft

	leases     *leases
	leadership *leadership
	roster     *roster.Roster
	propose    *propose.Router
	metrics    *metrics
}

// Done returns a channel that is closed when the node must stop: it left, was removed, or met a
// fatal error.
func (n *Node) Done() <-chan struct{} { return n.life.done }

// Err returns the error that closed Done; nil after a clean leave. Call it only after Done.
func (n *Node) Err() error { return n.life.err }

// Close stops the node cleanly: it transfers leadership if another voter is reachable, returns its
// lease, and closes everything that Open opened. The node stays a member. Close may be called
// twice. ctx bounds only the transfer and the return of the lease. The rest waits for all
// goroutines.
func (n *Node) Close(ctx context.Context) error {
	n.life.closeOnce.Do(func() {
		n.stepDown(ctx)
		n.life.closeErr = n.life.close()
	})
	return n.life.closeErr
}

// stepDown transfers leadership and returns the lease. It gives up after two heartbeat timeouts.
// Both are courtesies: without them the others wait for an election, and revocations for the lease
// to expire.
func (n *Node) stepDown(ctx context.Context) {
	wait := n.cfg.HeartbeatTimeout
	if n.leadership.proposer() != nil && !n.roster.IsSingleNode() {
		if err := n.roster.TransferAway(); err != nil {
			n.log.Info("leadership not transferred", "error", err)
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

// stopRaft stops everything that Raft and its listeners started.
func (n *Node) stopRaft() error {
	if n.roster != nil {
		n.roster.CloseTransfers()
	}
	var stopped raft.Future
	n.leadership.watcher.withLock(func() { stopped = n.raft.Shutdown() }) // Raft no longer waits for the watcher
	err := stopped.Error()
	if n.roster != nil {
		n.roster.StopGossip()
	}
	return err
}
