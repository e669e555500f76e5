package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/datadir"
	"revoked/node/roster"
)

// NodeStatus implements api.Backend. It returns this node's own view, and calls another node only
// if the leader's API address is unknown. The fields are read one after the other, so they may be
// of slightly different moments.
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
// also knows a leader. It never blocks and calls no node, so a health check may ask as often as it
// likes.
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
	lease := check("lease", n.leases.valid(), "no read lease: every read asks the leader")
	r.CanAnswer = member && sound && running && lease
	r.CanRevoke = r.CanAnswer && leader
	return r
}

// Join implements api.Backend. It returns once this node's log shows its membership.
func (n *Node) Join(ctx context.Context, addresses []string) (uint64, error) {
	return n.roster.JoinCluster(ctx, addresses)
}

// Leave implements api.Backend. After it has succeeded, the node ends and Done is closed.
func (n *Node) Leave(ctx context.Context, by revoked.Actor) (uint64, error) {
	return n.roster.Leave(ctx, by)
}

// Remove implements api.Backend. It waits until the removed node can no longer hold a lease.
func (n *Node) Remove(
	ctx context.Context, by revoked.Actor, node string, force bool, reason string,
) (uint64, error) {
	return n.roster.Remove(ctx, by, node, force, reason)
}

// TransferLeader implements api.Backend.
func (n *Node) TransferLeader(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	index, err := n.roster.TransferLeader(ctx, by, node)
	if err == nil {
		n.noteChange(by, revoked.AuditClusterTransfer, node, "")
	}
	return index, err
}

// noteChange records a completed change that has no operation of its own in the log. A failure to
// record it does not undo the change.
func (n *Node) noteChange(by revoked.Actor, kind revoked.AuditKind, node, detail string) {
	ctx, cancel := context.WithTimeout(n.life.ctx, n.cfg.RequestTimeout)
	defer cancel()
	err := n.Note(ctx, by, revoked.AuditEntry{
		Kind: kind, Detail: detail, Object: revoked.AuditObject{Node: node},
	})
	if err != nil {
		n.metrics.auditLost.Inc()
		n.log.Warn("audit entry lost", "kind", string(kind), "error", err)
	}
}

// Members implements api.Backend. It works without a leader, from the newest configuration that
// this node knows.
func (n *Node) Members(ctx context.Context) ([]revoked.Member, error) {
	return n.roster.Members(ctx), nil
}

// Admit implements api.Backend.
func (n *Node) Admit(
	ctx context.Context, by revoked.Actor, node string, nonVoter bool, ttl time.Duration,
) (uint64, error) {
	member, err := n.isMember(ctx, node)
	if err != nil {
		return 0, err
	}
	was, _ := n.fsm.Admission(node)
	if err := checkAdmissible(node, member, was); err != nil {
		return 0, err
	}
	return n.propose.Commit(ctx, command.AdmitNodeOp(by, node, nonVoter, ttl))
}

// checkAdmissible returns ErrConflict for a member, unless a removal that did not finish barred it.
func checkAdmissible(node string, member bool, was revoked.Admission) error {
	if member && was.State != revoked.Barred {
		return fmt.Errorf("%w: %s is a member already", revoked.ErrConflict, node)
	}
	return nil
}

// WithdrawAdmission implements api.Backend.
func (n *Node) WithdrawAdmission(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	member, err := n.isMember(ctx, node)
	if err != nil {
		return 0, err
	}
	if member {
		return 0, fmt.Errorf("%w: %s is a member: end its membership with remove", revoked.ErrConflict, node)
	}
	return n.propose.Commit(ctx, command.WithdrawNodeOp(by, node))
}

// Admitted implements api.Backend.
func (n *Node) Admitted(ctx context.Context) ([]revoked.AdmittedNode, error) {
	members, err := n.memberNames(ctx)
	if err != nil {
		return nil, err
	}
	now := max(revoked.TimeOf(n.cfg.Now()), n.fsm.Stamp())
	return revoked.ListAdmitted(members, n.fsm.Admissions(), now), nil
}

// CreateJoinToken implements api.Backend.
func (n *Node) CreateJoinToken(
	ctx context.Context, by revoked.Actor, t revoked.JoinToken, ttl time.Duration,
) (revoked.JoinToken, error) {
	if _, err := n.propose.CommitHere(ctx, command.CreateJoinTokenOp(by, &t, ttl)); err != nil {
		return revoked.JoinToken{}, err
	}
	made, ok := n.fsm.JoinToken(t.ID)
	if !ok {
		return revoked.JoinToken{}, fmt.Errorf("%w: the join token was dropped in the meantime", revoked.ErrConflict)
	}
	return made, nil
}

// JoinTokens implements api.Backend.
func (n *Node) JoinTokens(ctx context.Context) ([]revoked.JoinToken, error) {
	if err := n.Current(ctx); err != nil {
		return nil, err
	}
	isDeleted := func(t revoked.JoinToken) bool { return t.DeletedAt != 0 }
	return slices.DeleteFunc(n.fsm.JoinTokens(), isDeleted), nil
}

// DeleteJoinToken implements api.Backend.
func (n *Node) DeleteJoinToken(ctx context.Context, by revoked.Actor, id string) (uint64, error) {
	return n.propose.Commit(ctx, command.DeleteJoinTokenOp(by, id))
}

// Promote implements api.Backend. The node has a vote afterwards.
func (n *Node) Promote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return n.changeVoting(ctx, by, node, false, n.roster.Promote)
}

// Demote implements api.Backend. The node stays a member without a vote until it is promoted.
func (n *Node) Demote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return n.changeVoting(ctx, by, node, true, n.roster.Demote)
}

// changeVoting records first whether the node may vote: the leader would otherwise undo the change
// of the configuration. If that change is refused, changeVoting restores the record.
func (n *Node) changeVoting(
	ctx context.Context, by revoked.Actor, node string, nonVoter bool,
	change func(context.Context, revoked.Actor, string) (uint64, error),
) (uint64, error) {
	member, err := n.isMember(ctx, node)
	switch {
	case err != nil:
		return 0, err
	case !member:
		return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	}
	// The log may hold a change whose outcome nobody knows yet. A lease does not cover that.
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return 0, err
	}
	was, _ := n.fsm.Admission(node)
	recorded, votes := uint64(0), n.votes(node)
	if was.NonVoter != nonVoter {
		if recorded, err = n.propose.CommitHere(ctx, command.SetVotingOp(by, node, nonVoter)); err != nil {
			return 0, err
		}
	}
	index, err := change(ctx, by, node)
	if err == nil {
		n.noteVoting(by, node, nonVoter, recorded != 0 || votes == nonVoter)
		return max(index, recorded), nil
	}
	if recorded != 0 && !errors.Is(err, revoked.ErrOutcomeUnknown) && !errors.Is(err, revoked.ErrNoLeader) {
		undo := context.WithoutCancel(ctx) // Commit has its own timeout
		if _, failed := n.propose.Commit(undo, command.SetVotingOp(by, node, was.NonVoter)); failed != nil {
			n.log.Warn("cannot restore whether a member may vote", "node", node, "error", failed)
		}
	}
	return 0, err
}

// noteVoting records a promotion or a demotion.
func (n *Node) noteVoting(by revoked.Actor, node string, nonVoter, changed bool) {
	kind, detail := revoked.AuditClusterPromote, ""
	if nonVoter {
		kind = revoked.AuditClusterDemote
	}
	if !changed {
		detail = revoked.AuditNoChange
	}
	n.noteChange(by, kind, node, detail)
}

// votes reports whether a member has a vote in the newest configuration.
func (n *Node) votes(node string) bool {
	conf, err := n.roster.Configuration()
	return err == nil && slices.ContainsFunc(conf.Servers, func(s raft.Server) bool {
		return datadir.NodeOf(s.ID) == node && s.Suffrage == raft.Voter
	})
}

// isMember reports whether node is a member as of the call. It may wait for a read barrier.
func (n *Node) isMember(ctx context.Context, node string) (bool, error) {
	members, err := n.memberNames(ctx)
	return slices.Contains(members, node), err
}

// memberNames returns the names of the members as of the call. It returns ErrUnprocessable outside
// a cluster.
func (n *Node) memberNames(ctx context.Context) ([]string, error) {
	if n.roster.ClusterID() == "" {
		return nil, fmt.Errorf("%w: %w: ask a member", revoked.ErrUnprocessable, revoked.ErrNoCluster)
	}
	if err := n.Current(ctx); err != nil {
		return nil, err
	}
	conf, err := n.roster.Configuration()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range conf.Servers {
		names = append(names, datadir.NodeOf(s.ID))
	}
	return names, nil
}
