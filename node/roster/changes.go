package roster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

// The changes type executes changes of the configuration, one at a time, while this node leads.
//
// Every change calls begin, which takes the turn, and turn.propose, which hands the change to Raft
// in the term that begin read. So no other change can come between the checks and the log entry of
// the change.
type changes struct {
	*local
	transfers *transfers
	turn      chan struct{} // full while a change is in progress

	// Only the holder of the turn uses added. Only reconcile uses logged.
	added  map[raft.ServerID]time.Time // time at which this process added an instance
	logged map[string]string           // last logged problem of each node, so that it is logged once

	unenforced string // node that the newest log line names as too old for admissions

	// confirmed.index is an applied index of confirmed.term, at least the index of the newest
	// configuration. Only the holder of the turn uses it.
	confirmed struct{ term, index uint64 }
}

func newChanges(l *local, t *transfers) *changes {
	return &changes{local: l, transfers: t, turn: make(chan struct{}, 1), added: map[raft.ServerID]time.Time{},
		logged: map[string]string{}}
}

// A turn is one change in progress: the term and the newest configuration of that term.
type turn struct {
	*changes
	term uint64
	conf raft.Configuration
	// unnoted is the reason why the audit log lacks the committed configuration. The next turn,
	// perhaps of another leader, tries to record it again.
	unnoted error
}

// begin waits until no other change is in progress. Then it records an earlier change in the audit
// log, if the leader of that change failed before it did so. After a nil error, the caller must
// call end.
func (c *changes) begin() (*turn, error) {
	c.turn <- struct{}{}
	term := c.Leader.Term() // read before the configuration: this node makes all later changes of the term
	conf, err := c.Configuration()
	if err == nil && term == 0 {
		err = fmt.Errorf("%w: this node does not lead", revoked.ErrNoLeader)
	}
	if err != nil {
		<-c.turn
		return nil, err
	}
	if c.confirmed.term != term { // Term is 0 until this node has applied the first entry of the term
		c.confirmed.term, c.confirmed.index = term, c.FSM.Applied()
	}
	t := &turn{changes: c, term: term, conf: conf}
	if _, since := c.FSM.NotedMembers(); since != 0 {
		if err := t.note(); err != nil {
			<-c.turn
			return nil, err
		}
	}
	return t, nil
}

func (t *turn) end() { <-t.turn }

// propose hands a change to Raft in the given term, waits until it is committed and returns its
// index. It records the configuration before and after the change in the audit log.
func (t *turn) propose(term uint64, change func(wait time.Duration) raft.IndexFuture) (uint64, error) {
	if err := t.note(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(t.Context, t.RequestTimeout)
	defer cancel()
	f, err := t.Leader.ChangeInTerm(ctx, term, change)
	if err != nil {
		return 0, err
	}
	if err := f.Error(); err != nil {
		return 0, propose.ApplyError(err)
	}
	t.confirmed.index = f.Index()
	if conf, err := t.Configuration(); err == nil {
		t.conf = conf
		t.follow(conf)
	}
	if t.unnoted = t.note(); t.unnoted != nil {
		t.Log.Warn("cannot record membership change in audit log yet", "error", t.unnoted)
	}
	return f.Index(), nil
}

// note records the configuration of the turn in the audit log, unless the log has it already. It
// does nothing until every member supports the audit log. The error wraps ErrNoLeader.
func (t *turn) note() error {
	list := notedMembers(t.conf)
	noted, since := t.FSM.NotedMembers()
	if since != 0 && slices.Equal(list, noted) ||
		canApply(command.Audit, t.views(), t.self, t.FSM.Version(), t.peers.inGracePeriod(time.Now())) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context, t.RequestTimeout)
	defer cancel()
	if err := t.Leader.CommitInTerm(ctx, t.term, command.MembersOp(list, since)); err != nil {
		return fmt.Errorf("%w: record members in audit log: %v", revoked.ErrNoLeader, err)
	}
	return nil
}

// notedMembers returns the servers of a configuration in the form that the audit log stores.
func notedMembers(conf raft.Configuration) []command.NotedMember {
	list := make([]command.NotedMember, len(conf.Servers))
	for i, s := range conf.Servers {
		list[i] = command.NotedMember{Server: string(s.ID), Address: hostOf(s.Address), Voter: s.Suffrage == raft.Voter}
	}
	slices.SortFunc(list, func(a, b command.NotedMember) int { return strings.Compare(a.Server, b.Server) })
	return list
}

// completeAudit records a change that the audit log lacks because the leader of that change failed.
func (c *changes) completeAudit() {
	noted, since := c.FSM.NotedMembers()
	conf, err := c.Configuration()
	if since == 0 || err != nil || slices.Equal(noted, notedMembers(conf)) {
		return
	}
	if t, err := c.begin(); err == nil {
		t.end()
	}
}

// admit adds the node that sent h as a non-voter, or changes the address of a member. A new
// instance of a member is added in addition to the old one, which reconcile removes later.
//
// If no member has the node's name, the node needs an admission or a join token.
func (c *changes) admit(ctx context.Context, h *nodepb.Hello, token presented) (uint64, error) {
	id := c.ClusterID()
	if id == "" {
		return 0, fmt.Errorf("%w: the cluster is being bootstrapped", revoked.ErrNoCluster)
	}
	if h.ClusterId != "" && h.ClusterId != id {
		return 0, fmt.Errorf("%w: node %s belongs to cluster %s, not to this cluster %s: empty its data directory first",
			revoked.ErrUnprocessable, h.NodeId, h.ClusterId, id)
	}
	t, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer t.end()
	server, addr := serverOf(h), addressOf(h)
	for _, s := range t.conf.Servers {
		switch {
		case s.ID == server && s.Address == addr:
			return c.FSM.Applied(), nil // a member already
		case s.ID == server:
			return t.move(ctx, h, s)
		case nodeOf(s.ID) != h.NodeId && hostOf(s.Address) == h.ClusterAddr:
			return 0, fmt.Errorf("%w: address %s belongs to %s", revoked.ErrConflict, h.ClusterAddr, nodeOf(s.ID))
		}
	}
	if h.ClusterId != "" { // the node was a member: a directory is bound only after its admission is committed
		return 0, fmt.Errorf("%w: %s: start it with --rejoin, or with an empty directory",
			revoked.ErrUnprocessable, endOf(h.NodeId, t.conf))
	}
	if err := t.makeRoom(h.NodeId); err != nil {
		return 0, err
	}
	if err := checkAdd(t.conf, server); err != nil {
		return 0, err
	}
	if err := t.useAdmission(ctx, h, token); err != nil {
		return 0, err
	}
	if err := t.checkUsed(h, token); err != nil {
		return 0, err
	}
	c.Log.Info("adding node", "server", server, "address", addr)
	index, err := t.propose(t.term, func(wait time.Duration) raft.IndexFuture {
		return c.Raft.AddNonvoter(server, addr, 0, wait)
	})
	if err == nil {
		c.added[server] = time.Now()
	}
	return index, err
}

// checkDuplicateIdentity returns ErrConflict if another process with the identity of h runs at the
// address old and advertises it. In that case, the data directory was copied, and the two processes
// could vote for different candidates in one term.
func (l *local) checkDuplicateIdentity(ctx context.Context, h *nodepb.Hello, old raft.ServerAddress) error {
	host := hostOf(old)
	if host == "" || host == h.ClusterAddr {
		return nil
	}
	other, err := l.hello(ctx, host)
	if err != nil || other.NodeId != h.NodeId || other.Instance != h.Instance || other.ClusterAddr != host {
		return nil
	}
	return fmt.Errorf("%w: another process runs as node %s with a copy of this data directory, at %s: "+
		"one of the two must be stopped and its data directory moved away; it can join as a new instance",
		revoked.ErrConflict, h.NodeId, host)
}

// move changes the address of a member.
func (t *turn) move(ctx context.Context, h *nodepb.Hello, s raft.Server) (uint64, error) {
	if err := t.checkDuplicateIdentity(ctx, h, s.Address); err != nil {
		return 0, err
	}
	return t.propose(t.term, func(wait time.Duration) raft.IndexFuture {
		if s.Suffrage == raft.Voter {
			return t.Raft.AddVoter(s.ID, addressOf(h), 0, wait)
		}
		return t.Raft.AddNonvoter(s.ID, addressOf(h), 0, wait)
	})
}

// replacementGrace is the time that a new instance gets to send a report. Until then, no other
// instance of its node may replace it.
const replacementGrace = 10 * time.Second

// makeRoom prepares the admission of a new instance of a member: all other instances must be
// silent. It removes the instances without a vote, so that at most one instance waits to replace
// the voter.
func (t *turn) makeRoom(node string) error {
	for _, p := range t.views() {
		switch {
		case nodeOf(p.server.ID) != node:
			continue
		case p.alive:
			return fmt.Errorf("%w: node %s is a member and alive: two nodes must not share a node_id",
				revoked.ErrConflict, node)
		case p.hello == nil && t.peers.inGracePeriod(time.Now()):
			return fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader, node)
		case p.server.Suffrage == raft.Voter:
			continue
		case time.Since(t.added[p.server.ID]) < replacementGrace:
			return fmt.Errorf("%w: another new instance of %s is joining: try again in %v",
				revoked.ErrConflict, node, replacementGrace)
		}
		t.Log.Info("replacing silent instance", "server", p.server.ID)
		if _, err := t.remove(p.server.ID); err != nil {
			return err
		}
	}
	return nil
}

// removeNode removes all instances of a node. Unless force is true, it returns ErrConflict if the
// node is alive, because such a node can leave by itself. The parameter by is the client that the
// state records as the one that barred the name. The zero actor means the cluster.
func (c *changes) removeNode(by revoked.Actor, node string, force bool, reason string) (uint64, error) {
	ids, err := c.removable(node, force)
	if err != nil {
		return 0, err
	}
	index := uint64(0)
	bar := command.BarNodeOp(by, node, reason)
	for _, id := range ids {
		if index, err = c.remove(id, bar, force, "force with a reason"); err != nil {
			return 0, err
		}
		bar = nil // the name is now barred, and one audit entry is enough
		c.Log.Info("removed node", "server", id, "forced", force, "reason", reason)
	}
	return index, nil
}

// removable lists the instances of a node, after it has checked that a removal may start.
func (c *changes) removable(node string, force bool) ([]raft.ServerID, error) {
	var ids []raft.ServerID
	for _, p := range c.views() {
		switch {
		case nodeOf(p.server.ID) != node:
			continue
		case p.alive && !force:
			return nil, fmt.Errorf("%w: %s is alive: run `revoked leave` on it, or remove it with force and a reason",
				revoked.ErrConflict, node)
		case p.hello == nil && !force && c.peers.inGracePeriod(time.Now()):
			return nil, fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader, node)
		}
		ids = append(ids, p.server.ID)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
	}
	return ids, nil
}

// remove removes one server after its read lease has expired. Unless force is true, it returns
// ErrQuorumRisk if the other voters would have no live majority. The error then suggests
// alternative. If the server is this node, remove only transfers leadership and returns
// ErrNoLeader. A non-nil op ends the admission of the name, and remove commits it before the
// removal. A repeated call changes nothing.
func (c *changes) remove(id raft.ServerID, op *command.Op, force bool, alternative string) (uint64, error) {
	t, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer t.end()
	if !inConfiguration(t.conf, id) {
		return c.FSM.Applied(), nil
	}
	if err := c.checkQuorum(id, force, alternative); err != nil {
		return 0, err
	}
	if id == c.self {
		return 0, c.handOver()
	}
	if err := t.awaitStored(id); err != nil {
		return 0, err
	}
	if err := t.endAdmission(op); err != nil {
		return 0, err
	}
	return t.remove(id)
}

// handOver transfers leadership because this node is about to lose its vote. It never returns nil.
func (c *changes) handOver() error {
	if err := c.transfers.transferAway(); err != nil {
		return err
	}
	return fmt.Errorf("%w: leadership was transferred first", revoked.ErrNoLeader)
}

// remove removes a server once its read lease has expired: acknowledgements do not wait for a
// server outside the configuration. The caller has checked the quorum.
func (t *turn) remove(id raft.ServerID) (uint64, error) {
	ctx, cancel := context.WithTimeout(t.Context, t.RequestTimeout)
	defer cancel()
	term, err := t.Leader.Clear(ctx, id)
	if err != nil {
		return 0, err
	}
	index, err := t.propose(term, func(wait time.Duration) raft.IndexFuture {
		return t.Raft.RemoveServer(id, 0, wait)
	})
	if err != nil {
		t.Leader.Unblock(id)
		return 0, err
	}
	delete(t.added, id)
	return index, nil
}
