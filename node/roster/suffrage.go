package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// maxTrailing is the number of entries that a member may be behind the leader's log and still be
// promoted.
const maxTrailing = 512

// promote makes a server a voter. It checks only the rules of the configuration: the caller has
// checked that the server has caught up. A repeated call changes nothing.
func (c *changes) promote(id raft.ServerID) (uint64, error) {
	t, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer t.end()
	for _, s := range t.conf.Servers {
		if s.ID != id {
			continue
		}
		if s.Suffrage == raft.Voter {
			return c.FSM.Applied(), nil
		}
		if err := checkPromote(t.conf, id); err != nil {
			return 0, err
		}
		return t.vote(func(wait time.Duration) raft.IndexFuture {
			return c.Raft.AddVoter(id, s.Address, 0, wait)
		})
	}
	return 0, checkPromote(t.conf, id)
}

// promoteNode makes a node a voter, on behalf of an operator.
func (c *changes) promoteNode(node string) (uint64, error) {
	var found *peerView
	for _, p := range c.views() {
		if nodeOf(p.server.ID) == node && (found == nil || p.alive) {
			found = &p
		}
	}
	switch {
	case found == nil:
		return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	case found.server.Suffrage == raft.Voter: // but a demotion may be in progress
		return c.promote(found.server.ID)
	}
	if err := c.checkCaughtUp(*found); err != nil {
		return 0, err
	}
	return c.promote(found.server.ID)
}

// checkCaughtUp returns an error unless a member's reports show that it may be promoted.
func (c *changes) checkCaughtUp(p peerView) error {
	node := nodeOf(p.server.ID)
	switch {
	case p.hello == nil && c.peers.inGracePeriod(time.Now()):
		return fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader, node)
	case !p.alive:
		return fmt.Errorf("%w: %s is not reachable", revoked.ErrUnprocessable, node)
	case p.hello.GetNonVoter():
		return fmt.Errorf("%w: %s is configured with non_voter: change its configuration first",
			revoked.ErrUnprocessable, node)
	case p.diverged != "":
		return fmt.Errorf("%w: the state of %s differs: replace its data directory", revoked.ErrUnprocessable, node)
	case !c.hasCaughtUp(p):
		return fmt.Errorf("%w: %s has not caught up: its log ends at %d, the leader's at %d",
			revoked.ErrUnprocessable, node, p.lastIndex, c.Raft.LastIndex())
	}
	return nil
}

// hasCaughtUp reports whether a member is alive, has not diverged, and has a log that ends close to
// the leader's.
func (c *changes) hasCaughtUp(p peerView) bool {
	return p.alive && p.diverged == "" && p.lastTerm == c.Raft.CurrentTerm() &&
		p.lastIndex+maxTrailing >= c.Raft.LastIndex()
}

// demoteNode removes the vote of a node. It returns ErrQuorumRisk if the other voters would have no
// live majority, and ErrConflict if the node is promoted in the meantime. If the node is the
// leader, demoteNode only transfers leadership and returns ErrNoLeader. A repeated call changes
// nothing.
func (c *changes) demoteNode(node string) (uint64, error) {
	t, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer t.end()
	id := instanceOf(t.conf, node)
	if id == "" {
		return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	}
	if !isVoter(t.conf, id) {
		return c.FSM.Applied(), nil
	}
	return t.demote(id)
}

func (t *turn) demote(id raft.ServerID) (uint64, error) {
	if err := t.checkQuorum(id, false, "promote another member first"); err != nil {
		return 0, err
	}
	if id == t.self {
		return 0, t.handOver()
	}
	if err := t.awaitStored(id); err != nil {
		return 0, err
	}
	isDemoted := func(p peerView) bool { return p.server.ID == id && t.mustNotVote(p) }
	if isVoter(t.conf, id) && !slices.ContainsFunc(t.views(), isDemoted) {
		return 0, fmt.Errorf("%w: %s was promoted in the meantime", revoked.ErrConflict, nodeOf(id))
	}
	t.Log.Info("demoting voter", "server", id)
	return t.vote(func(wait time.Duration) raft.IndexFuture {
		return t.Raft.DemoteVoter(id, 0, wait)
	})
}

// vote proposes a promotion or a demotion. It returns ErrNoLeader if the audit log lacks the
// change. A retry waits until the audit log has it, so that the caller does not record the change
// again.
func (t *turn) vote(change func(wait time.Duration) raft.IndexFuture) (uint64, error) {
	index, err := t.propose(t.term, change)
	if err == nil {
		err = t.unnoted
	}
	return index, err
}

// checkQuorum returns ErrQuorumRisk unless a majority of the voters other than id is alive. It
// returns ErrNoLeader while the reports of a new leader are not complete. Force skips this check,
// except for the last voter.
func (c *changes) checkQuorum(id raft.ServerID, force bool, alternative string) error {
	voters, alive := 0, 0
	for _, p := range c.views() {
		if p.server.ID == id || p.server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if p.alive {
			alive++
		}
	}
	switch {
	case voters == 0:
		return fmt.Errorf("%w: %s is the last voter: stop it, or remove its data, to end the cluster",
			revoked.ErrQuorumRisk, nodeOf(id))
	case force || alive >= voters/2+1:
		return nil
	case c.peers.inGracePeriod(time.Now()):
		return fmt.Errorf("%w: the leader is new and has no report from all members yet", revoked.ErrNoLeader)
	}
	return fmt.Errorf("%w: without %s only %d of %d voters would be alive: bring one back, or %s",
		revoked.ErrQuorumRisk, nodeOf(id), alive, voters, alternative)
}

// awaitStored waits until a majority of the voters other than id have reported that they applied
// the newest configuration. It returns ErrNoLeader if RequestTimeout passes or the term ends first.
// It returns nil immediately if id has no vote.
//
// Without StandIn, Raft rejects a candidate that is not a voter in the newest configuration of the
// called member. Members of old versions do not have VoteGuard.StandIn. Suppose that a voter
// has not stored the promotion of a second voter, and the leader removes a third. If the leader
// fails before it commits the removal, no member can win an election again. The first voter rejects
// the second as a non-voter. The second voter rejects the first because its log is shorter. Force
// does not skip this check, because the removal needs the same majority to commit.
func (t *turn) awaitStored(id raft.ServerID) error {
	if !isVoter(t.conf, id) {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context, t.RequestTimeout)
	defer cancel()
	for {
		behind, ok := t.behind(id)
		if ok {
			return nil
		}
		if t.Leader.Term() != t.term {
			return fmt.Errorf("%w: the leader changed during the call", revoked.ErrNoLeader)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: cannot remove or demote voter %s: the newest configuration is not yet applied by "+
				"a majority of the other voters (waiting for %s)", revoked.ErrNoLeader, nodeOf(id), strings.Join(behind, ", "))
		case <-time.After(ReportInterval / 4):
		}
	}
}

// behind lists the voters other than id that have not reported that they applied the newest
// configuration. ok reports whether a majority of the voters other than id has applied it.
func (t *turn) behind(id raft.ServerID) (nodes []string, ok bool) {
	voters := 0
	for _, p := range t.views() {
		if p.server.ID == id || p.server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if p.server.ID != t.self && p.applied < t.confirmed.index {
			nodes = append(nodes, nodeOf(p.server.ID))
		}
	}
	return nodes, 2*len(nodes) < voters
}

func isVoter(conf raft.Configuration, id raft.ServerID) bool {
	for _, s := range conf.Servers {
		if s.ID == id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// reconcile records in the audit log the changes of an earlier leader, completes replacements of
// instances, and demotes the nodes that must not vote.
func (c *changes) reconcile() {
	c.completeAudit()
	views := c.views()
	byNode := map[string][]peerView{}
	for _, p := range views {
		node := nodeOf(p.server.ID)
		byNode[node] = append(byNode[node], p)
	}
	for node, instances := range byNode {
		if len(instances) > 1 {
			c.reconcileInstances(node, instances)
		}
		for _, p := range instances {
			if p.server.Suffrage == raft.Voter && p.alive && c.mustNotVote(p) {
				_, err := c.demoteNode(node)
				c.report(node, "cannot demote voter that must not vote", err)
			}
		}
	}
}

// reconcileInstances removes the silent instances of a node once another instance can take over.
// The old voter is removed before its successor is promoted, so a node never has two votes.
func (c *changes) reconcileInstances(node string, instances []peerView) {
	alive := 0
	var ready bool // an instance is alive and may take over a vote
	for _, p := range instances {
		if p.alive {
			alive++
		}
		ready = ready || p.server.Suffrage == raft.Voter && p.alive || c.hasCaughtUp(p) && p.since >= c.StableTime
	}
	if alive > 1 {
		c.report(node, "two processes run with one node id", errors.New("stop one of them"))
		return
	}
	for _, p := range instances {
		if p.alive || alive == 0 || p.server.Suffrage == raft.Voter && !ready {
			continue
		}
		_, err := c.remove(p.server.ID, nil, false, "remove it with force and a reason")
		c.report(node, "cannot remove replaced instance", err)
		if err == nil {
			c.Log.Info("removed replaced instance", "server", p.server.ID)
		}
	}
}

// report logs a problem of a node unless it equals the last logged problem. A nil error clears the
// problem.
func (c *changes) report(node, message string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != c.logged[node] {
		c.Log.Warn(message, "node", node, "error", err)
	}
	c.logged[node] = text
}
