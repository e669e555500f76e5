package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/datadir"
	"revoked/node/propose"
	"revoked/node/roster"
	"revoked/transport/pki"
)

// A membership serves the calls about members, admissions and join tokens. The roster makes the
// changes of the configuration, and a membership adds the records in the state. Methods may be
// called concurrently.
type membership struct {
	log     *slog.Logger
	fsm     *fsm.FSM
	roster  *roster.Roster
	propose *propose.Router
	now     func() time.Time
	certs   *pki.Certs
	// current blocks until this node has applied every change acknowledged before the call.
	current func(context.Context) error
	// note adds the audit entry of a change that has no operation of its own in the log.
	note func(by revoked.Actor, kind revoked.AuditKind, node, detail string)
	// lost counts an audit entry that may be missing.
	lost func()
}

// Join implements api.Backend. It returns once the configuration in this node's log contains this
// node.
func (m *membership) Join(ctx context.Context, addresses []string) (uint64, error) {
	return m.roster.JoinCluster(ctx, addresses)
}

// Leave implements api.Backend. After a success, the node stops and Done is closed.
func (m *membership) Leave(ctx context.Context, by revoked.Actor) (uint64, error) {
	return m.roster.Leave(ctx, by)
}

// Remove implements api.Backend. It waits until the removed node can no longer hold a lease.
func (m *membership) Remove(
	ctx context.Context, by revoked.Actor, node string, force bool, reason string,
) (uint64, error) {
	return m.roster.Remove(ctx, by, node, force, reason)
}

// TransferLeader implements api.Backend.
func (m *membership) TransferLeader(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	index, err := m.roster.TransferLeader(ctx, by, node)
	if err == nil {
		m.note(by, revoked.AuditClusterTransfer, node, "")
	}
	return index, err
}

// Members implements api.Backend. It works without a leader, from the newest configuration in this
// node's log.
func (m *membership) Members(ctx context.Context) ([]revoked.Member, error) {
	return m.roster.Members(ctx), nil
}

// Admit implements api.Backend.
func (m *membership) Admit(
	ctx context.Context, by revoked.Actor, node string, nonVoter bool, ttl time.Duration,
) (uint64, error) {
	member, err := m.isMember(ctx, node)
	if err != nil {
		return 0, err
	}
	was, _ := m.fsm.Admission(node)
	if err := checkAdmissible(node, member, was); err != nil {
		return 0, err
	}
	return m.propose.Commit(ctx, command.AdmitNodeOp(by, node, nonVoter, ttl))
}

// checkAdmissible returns ErrConflict for a member, unless an unfinished removal has barred the
// member.
func checkAdmissible(node string, member bool, was revoked.Admission) error {
	if member && was.State != revoked.Barred {
		return fmt.Errorf("%w: %s is already a member", revoked.ErrConflict, node)
	}
	return nil
}

// WithdrawAdmission implements api.Backend.
func (m *membership) WithdrawAdmission(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	member, err := m.isMember(ctx, node)
	if err != nil {
		return 0, err
	}
	if member {
		return 0, fmt.Errorf("%w: %s is a member: use remove to end its membership", revoked.ErrConflict, node)
	}
	return m.propose.Commit(ctx, command.WithdrawNodeOp(by, node))
}

// Admitted implements api.Backend.
func (m *membership) Admitted(ctx context.Context) ([]revoked.AdmittedNode, error) {
	members, err := m.memberNames(ctx)
	if err != nil {
		return nil, err
	}
	now := max(revoked.TimeOf(m.now()), m.fsm.Stamp())
	return revoked.ListAdmitted(members, m.fsm.Admissions(), now), nil
}

// ClusterCA implements api.Backend.
func (m *membership) ClusterCA() ([32]byte, error) { return m.certs.CAKeyHash() }

// CreateJoinToken implements api.Backend.
func (m *membership) CreateJoinToken(
	ctx context.Context, by revoked.Actor, t revoked.JoinToken, ttl time.Duration,
) (revoked.JoinToken, error) {
	if _, err := m.propose.CommitHere(ctx, command.CreateJoinTokenOp(by, &t, ttl)); err != nil {
		return revoked.JoinToken{}, err
	}
	made, ok := m.fsm.JoinToken(t.ID)
	if !ok {
		return revoked.JoinToken{}, fmt.Errorf("%w: the join token was dropped in the meantime", revoked.ErrConflict)
	}
	return made, nil
}

// JoinTokens implements api.Backend.
func (m *membership) JoinTokens(ctx context.Context) ([]revoked.JoinToken, error) {
	if err := m.current(ctx); err != nil {
		return nil, err
	}
	isDeleted := func(t revoked.JoinToken) bool { return t.DeletedAt != 0 }
	return slices.DeleteFunc(m.fsm.JoinTokens(), isDeleted), nil
}

// DeleteJoinToken implements api.Backend.
func (m *membership) DeleteJoinToken(ctx context.Context, by revoked.Actor, id string) (uint64, error) {
	return m.propose.Commit(ctx, command.DeleteJoinTokenOp(by, id))
}

// Promote implements api.Backend. The node has a vote afterwards.
func (m *membership) Promote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return m.changeVoting(ctx, by, node, false, m.roster.Promote)
}

// Demote implements api.Backend. The node stays a member without a vote until it is promoted.
func (m *membership) Demote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return m.changeVoting(ctx, by, node, true, m.roster.Demote)
}

// changeVoting first records whether the node may vote. Otherwise the leader would undo the change
// of the configuration. If the change is refused, changeVoting restores the record. The record in
// the state also contains the call. So the call has exactly one audit entry, regardless of which
// leader makes the change.
func (m *membership) changeVoting(
	ctx context.Context, by revoked.Actor, node string, nonVoter bool,
	change func(context.Context, revoked.Actor, string) (uint64, error),
) (uint64, error) {
	member, err := m.isMember(ctx, node)
	switch {
	case err != nil:
		return 0, err
	case !member:
		return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	}
	// The log may contain a change whose outcome is not known yet. A lease does not guarantee that
	// this node has applied such a change.
	if err := m.propose.ReadBarrier(ctx); err != nil {
		return 0, err
	}
	was, _ := m.fsm.Admission(node)
	step := func(ctx context.Context, nonVoter bool, call uint32) (uint64, error) {
		return m.propose.CommitHere(ctx, command.SetVotingOp(by, node, nonVoter, call))
	}
	recorded, err := step(ctx, nonVoter, command.VoteAsked)
	if err != nil {
		return 0, err
	}
	index, err := change(ctx, by, node)
	end := context.WithoutCancel(ctx) // CommitHere has its own timeout
	switch {
	case err == nil:
		if _, failed := step(end, nonVoter, command.VoteSettled); failed != nil {
			m.lost()
			m.log.Warn("audit entry of a promotion or a demotion may be lost", "node", node, "error", failed)
		}
		return max(index, recorded), nil
	case !errors.Is(err, revoked.ErrOutcomeUnknown) && !errors.Is(err, revoked.ErrNoLeader) &&
		!errors.Is(err, revoked.ErrClosed): // after these errors, the change may have been made
		if _, failed := step(end, was.NonVoter, command.VoteUndone); failed != nil {
			m.log.Warn("cannot restore the voting record of a member", "node", node, "error", failed)
		}
	}
	return 0, err
}

// isMember reports whether node is a member as of the call. It may wait for a read barrier.
func (m *membership) isMember(ctx context.Context, node string) (bool, error) {
	members, err := m.memberNames(ctx)
	return slices.Contains(members, node), err
}

// memberNames returns the names of the members as of the call. It returns ErrUnprocessable on a
// node that is not in a cluster.
func (m *membership) memberNames(ctx context.Context) ([]string, error) {
	if m.roster.ClusterID() == "" {
		return nil, fmt.Errorf("%w: %w: send the request to a member", revoked.ErrUnprocessable, revoked.ErrNoCluster)
	}
	if err := m.current(ctx); err != nil {
		return nil, err
	}
	conf, err := m.roster.Configuration()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range conf.Servers {
		names = append(names, datadir.NodeOf(s.ID))
	}
	return names, nil
}
