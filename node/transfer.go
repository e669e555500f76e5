package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// handOver transfers leadership to a named node, or to the fittest.
func (n *Node) handOver(ctx context.Context, node string) (uint64, error) {
	if node == "" {
		if err := n.transferAway(); err != nil {
			return 0, err
		}
		return n.fsm.Applied(), nil
	}
	for _, p := range n.views() {
		if nodeOf(p.server.ID) != node {
			continue
		}
		switch {
		case p.server.ID == n.self:
			return n.fsm.Applied(), nil // it leads already
		case p.server.Suffrage != raft.Voter:
			return 0, fmt.Errorf("%w: %s is not a voter", revoked.ErrUnprocessable, node)
		case !p.alive && n.peers.settling(time.Now()):
			return 0, fmt.Errorf("%w: it has just begun to lead and has not heard of %s", revoked.ErrNoLeader, node)
		case !p.alive:
			return 0, fmt.Errorf("%w: %s is not reachable", revoked.ErrUnprocessable, node)
		}
		return n.fsm.Applied(), n.transferTo(p.server)
	}
	return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
}

// transferAway hands leadership to the live voter that has applied most.
func (n *Node) transferAway() error {
	var best *peerView
	for _, p := range n.views() {
		if p.server.ID == n.self || p.server.Suffrage != raft.Voter || !p.alive || p.diverged != "" {
			continue
		}
		if n.wishes.open(p.server.ID, n.raft.CurrentTerm()) {
			continue
		}
		if best == nil || p.lastIndex > best.lastIndex {
			best = &p
		}
	}
	if best == nil && n.peers.settling(time.Now()) {
		return fmt.Errorf("%w: it has just begun to lead and has not heard of the other voters", revoked.ErrNoLeader)
	}
	if best == nil {
		return fmt.Errorf("%w: no other voter is reachable to lead", revoked.ErrQuorumRisk)
	}
	return n.transferTo(best.server)
}

// transferTo is tried a few times: a transfer can bounce when the target is a few entries behind.
//
// Raft puts a wish for a transfer to a channel of one place that only replication to the target empties. A
// second wish blocks there; if leadership ends then, it blocks for good, and this node would take the transfer
// for under way ever after and refuse all entries whenever it leads again (hashicorp/raft#696). So there is
// never a second wish before Raft has told the target, and none at all while replication stands still.
func (n *Node) transferTo(s raft.Server) error {
	var err error
	for range 3 {
		if n.ctx.Err() != nil {
			return fmt.Errorf("%w: the node is stopping", revoked.ErrClosed)
		}
		if n.trans.Stalled(s.ID, n.cfg.HeartbeatTimeout/2) {
			return fmt.Errorf("%w: replication to %s stands still", revoked.ErrNoLeader, nodeOf(s.ID))
		}
		if !n.wishes.begin(s.ID, n.raft.CurrentTerm()) {
			return fmt.Errorf("%w: %s has not caught up for a transfer that was asked for before: name another member, or try again under another leader",
				revoked.ErrNoLeader, nodeOf(s.ID))
		}
		told := n.trans.TimeoutsSent(s.ID)
		err = n.wish(s)
		if n.trans.TimeoutsSent(s.ID) != told || errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			n.wishes.end(s.ID) // taken up, or never given
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, raft.ErrNotLeader) {
			return fmt.Errorf("%w: leadership moved meanwhile", revoked.ErrNoLeader)
		}
	}
	return fmt.Errorf("%w: transfer to %s failed: %v", revoked.ErrNoLeader, nodeOf(s.ID), err)
}

// wish gives Raft one wish for a transfer and waits for the answer while the node lives: a Raft that is
// shut down may take a wish and leave it.
func (n *Node) wish(s raft.Server) error {
	var future raft.Future
	if !n.wishes.give(func() { future = n.raft.LeadershipTransferToServer(s.ID, s.Address) }) {
		return raft.ErrRaftShutdown
	}
	answer := make(chan error, 1)
	go func() { answer <- future.Error() }()
	select {
	case err := <-answer:
		return err
	case <-n.ctx.Done():
		return raft.ErrRaftShutdown
	}
}

// wishes are the transfers that Raft may not have come to yet: at most one for each target and term. A term's
// replication takes its channels with it.
type wishes struct {
	mu    sync.Mutex
	terms map[raft.ServerID]uint64
	over  bool
}

// give gives Raft a wish, which must not wait, unless Raft is being shut down: nobody would answer it.
func (w *wishes) give(wish func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		wish()
	}
	return !w.over
}

// close comes before Raft is shut down.
func (w *wishes) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

func (w *wishes) open(id raft.ServerID, term uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.terms[id] == term
}

// begin notes a wish in a term; false where there is one already.
func (w *wishes) begin(id raft.ServerID, term uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.terms[id] == term {
		return false
	}
	if w.terms == nil {
		w.terms = map[raft.ServerID]uint64{}
	}
	w.terms[id] = term
	return true
}

func (w *wishes) end(id raft.ServerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.terms, id)
}
