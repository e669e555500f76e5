package roster

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked/fsm/command"
	"revoked/transport"
)

// A Roster is one node's view of the cluster's membership, with the operations that change it. All
// methods may be called concurrently.
type Roster struct {
	*local
	transfers *transfers
	changes   *changes
	joiner    *joiner
	reporter  *reporter
	gossip    *gossip
	marks     *marks
	streams   atomic.Uint64 // number of the newest report stream
	leaderAPI atomic.Pointer[leaderAPI]
}

// A leaderAPI is the API URL that a leader announced.
type leaderAPI struct {
	id  raft.ServerID
	url string
}

// New returns a Roster that serves calls. It joins the cluster and reports to the leader only after
// Run.
func New(c Config) *Roster {
	l := &local{
		Config: c, self: c.Identity.Server,
		peers: newPeers(c.Identity.Server, 3*c.HeartbeatTimeout),
	}
	r := &Roster{local: l, transfers: &transfers{local: l}, reporter: newReporter(l), gossip: &gossip{local: l},
		marks: &marks{local: l}}
	r.changes = newChanges(l, r.transfers)
	r.joiner = newJoiner(l, r.changes, r.gossip)
	return r
}

// Run starts the goroutines that join the cluster, report to the leader and gossip. The function
// start must run its argument in a goroutine, with a context that ends when the node stops.
func (r *Roster) Run(start func(func(context.Context))) {
	start(r.joiner.joinOnStart)
	start(r.reporter.run)
	start(r.bindCluster)
}

// bindCluster binds the data directory to the cluster as soon as the state has the cluster's id.
// Then it starts gossip with that id as the label.
func (r *Roster) bindCluster(ctx context.Context) {
	for {
		advanced := r.FSM.AppliedChan()
		if id := r.FSM.ClusterID(); id != "" {
			if err := r.bind(id); err != nil {
				r.Fatal(err)
				return
			}
			r.gossip.run(ctx, id)
			return
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return
		}
	}
}

// StartTerm discards the reports of earlier terms. Call it when this node is elected, before it
// proposes anything.
func (r *Roster) StartTerm(conf raft.Configuration) {
	r.Clock.Reset(r.FSM.Stamp())
	r.Clock.SetVoters(VoterIDs(conf))
	r.peers.startTerm(time.Now(), conf)
}

// FollowConfiguration passes the newest configuration to the reports, the leases and the cluster
// clock.
func (r *Roster) FollowConfiguration() error {
	conf, err := r.Configuration()
	if err == nil {
		r.follow(conf)
	}
	return err
}

// Reconcile removes the old instances of nodes that came back with an empty disk, and demotes
// voters that must not vote. Only one goroutine may call it.
func (r *Roster) Reconcile() { r.changes.reconcile() }

// ClockOutlier reports whether the clocks of most members run at a rate that differs from this
// node's.
func (r *Roster) ClockOutlier() bool { return r.peers.clockOutlier() }

// Marks returns the progress of each member, for an entry that is about to be proposed. It returns
// nil most of the time: marks are recorded about once a second.
func (r *Roster) Marks() []*command.Mark { return r.marks.due(markInterval) }

// OverdueMarks is like Marks, but returns nil unless the last marks are overdue.
func (r *Roster) OverdueMarks() []*command.Mark { return r.marks.due(markOverdue) }

// VoteGuard returns the functions that write and check the notes in vote requests. The notes ensure
// that a node whose disk was rolled back neither votes nor gets a vote. StandIn lets this node vote
// for a candidate whose promotion this node has not stored.
func (r *Roster) VoteGuard() transport.VoteGuard {
	return transport.VoteGuard{Note: r.marks.note, MayVote: r.marks.mayVote, StandIn: r.standIn}
}

// IsSingleNode reports whether the cluster has one member.
func (r *Roster) IsSingleNode() bool { return r.peers.isSingleNode() }

// Diverged reports whether the leader found that this node's state differs from its own.
func (r *Roster) Diverged() bool { return r.reporter.diverged.Load() }

// ReturnLease gives up this node's read lease. It waits until a leader, which may still have to be
// elected, has confirmed the return, or ctx ends. The node requests no lease afterwards.
func (r *Roster) ReturnLease(ctx context.Context) { r.reporter.giveBack(ctx) }

// CloseTransfers rejects further leadership transfers. Call it before Raft is shut down.
func (r *Roster) CloseTransfers() { r.transfers.pending.close() }

// StopGossip announces that the node leaves, so that others do not suspect a failure, and stops
// gossip.
func (r *Roster) StopGossip() { r.gossip.stop() }

// ClusterAddresses returns the cluster addresses of the other members in this node's log and of the
// nodes in the join setting.
func (r *Roster) ClusterAddresses() []string {
	conf, err := r.Configuration()
	if err != nil {
		return r.Join
	}
	return slices.Concat(r.Join, r.others(conf))
}

// OtherAddresses lists the cluster addresses of the other members.
func (r *Roster) OtherAddresses() []string {
	conf, err := r.Configuration()
	if err != nil {
		return nil
	}
	return r.others(conf)
}

// AllowRaft returns an error unless the peer may open a Raft stream. A member may. While this
// node's log is empty, the initial members or the members of the cluster to join may. AllowRaft
// calls the members about a peer that is not in this node's log, because the cluster may have grown
// while this node was down.
func (r *Roster) AllowRaft(peer string) error {
	conf, err := r.Configuration()
	switch {
	case err != nil:
		return err
	case len(conf.Servers) == 0:
		return r.joiner.allowRaft(peer)
	case r.IsMember(peer):
		return nil
	}
	return r.joiner.exchange.member(r.Context, r.others(conf), r.ClusterID(), peer)
}
