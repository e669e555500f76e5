package roster

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// The transfers type transfers leadership from this node to other nodes.
type transfers struct {
	*local
	pending pendingTransfers
}

// transfer transfers leadership to the named node, or to the live voter with the longest log.
func (t *transfers) transfer(node string) (uint64, error) {
	if node == "" {
		if err := t.transferAway(); err != nil {
			return 0, err
		}
		return t.FSM.Applied(), nil
	}
	for _, p := range t.views() {
		if nodeOf(p.server.ID) != node {
			continue
		}
		switch {
		case p.server.ID == t.self:
			return t.FSM.Applied(), nil // the node leads already
		case p.server.Suffrage != raft.Voter:
			return 0, fmt.Errorf("%w: %s is not a voter", revoked.ErrUnprocessable, node)
		case !p.alive && t.peers.inGracePeriod(time.Now()):
			return 0, fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader, node)
		case !p.alive:
			return 0, fmt.Errorf("%w: %s is not reachable", revoked.ErrUnprocessable, node)
		}
		return t.FSM.Applied(), t.transferTo(p.server)
	}
	return 0, fmt.Errorf("%w: no member is named %q", revoked.ErrNotFound, node)
}

// transferAway transfers leadership to the live voter with the longest log.
func (t *transfers) transferAway() error {
	var best *peerView
	for _, p := range t.views() {
		if p.server.ID == t.self || p.server.Suffrage != raft.Voter || !p.alive || p.diverged != "" ||
			t.pending.has(p.server.ID, t.Raft.CurrentTerm()) {
			continue
		}
		if best == nil || p.lastIndex > best.lastIndex {
			best = &p
		}
	}
	switch {
	case best != nil:
		return t.transferTo(best.server)
	case t.peers.inGracePeriod(time.Now()):
		return fmt.Errorf("%w: the leader is new and has no report from the other voters yet", revoked.ErrNoLeader)
	}
	return fmt.Errorf("%w: no other voter is reachable", revoked.ErrQuorumRisk)
}

// transferTo transfers leadership to s. It tries up to three times, because a transfer fails when
// the target is a few entries behind.
//
// Raft puts a transfer request into a channel of capacity one that only replication to the target
// reads. A second request blocks Raft's goroutine. If leadership ends while it is blocked, the
// goroutine never returns, and this node rejects all entries whenever it leads again
// (hashicorp/raft#696). Hence transferTo makes no request while replication is stalled, and no
// second request before Raft has sent the first to the target.
func (t *transfers) transferTo(s raft.Server) error {
	var err error
	for range 3 {
		if t.Context.Err() != nil {
			return fmt.Errorf("%w: the node is stopping", revoked.ErrClosed)
		}
		if t.Transport.Stalled(s.ID, t.HeartbeatTimeout/2) {
			return fmt.Errorf("%w: replication to %s is stalled", revoked.ErrNoLeader, nodeOf(s.ID))
		}
		if !t.pending.add(s.ID, t.Raft.CurrentTerm()) {
			return fmt.Errorf("%w: an earlier transfer to %s is still pending: name another member, "+
				"or try again under another leader", revoked.ErrNoLeader, nodeOf(s.ID))
		}
		sent := t.Transport.TimeoutsSent(s.ID)
		err = t.transferRequest(s)
		if t.Transport.TimeoutsSent(s.ID) != sent || errors.Is(err, raft.ErrNotLeader) ||
			errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			t.pending.remove(s.ID) // Raft sent it, or never queued it
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, raft.ErrNotLeader) {
			return fmt.Errorf("%w: the leader changed during the call", revoked.ErrNoLeader)
		}
	}
	return fmt.Errorf("%w: transfer to %s: %v", revoked.ErrNoLeader, nodeOf(s.ID), err)
}

// transferRequest requests one transfer from Raft and waits for the result until the node stops.
// Raft does not answer a request that it receives during its shutdown.
func (t *transfers) transferRequest(s raft.Server) error {
	var future raft.Future
	if !t.pending.unlessClosed(func() { future = t.Raft.LeadershipTransferToServer(s.ID, s.Address) }) {
		return raft.ErrRaftShutdown
	}
	result := make(chan error, 1)
	go func() { result <- future.Error() }()
	select {
	case err := <-result:
		return err
	case <-t.Context.Done():
		return raft.ErrRaftShutdown
	}
}

// pendingTransfers holds the transfer requests that Raft may not have sent yet, at most one for
// each target and term. Raft creates new channels in each term. The zero value is ready.
type pendingTransfers struct {
	mu     sync.Mutex
	terms  map[raft.ServerID]uint64
	closed bool
}

// unlessClosed calls f, which must not block, and reports whether it did.
func (t *pendingTransfers) unlessClosed(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		f()
	}
	return !t.closed
}

// close ensures that unlessClosed calls no further function.
func (t *pendingTransfers) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// has reports whether a request to id is pending in the given term.
func (t *pendingTransfers) has(id raft.ServerID, term uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.terms[id] == term
}

// add records a request to id. It returns false if a request to id is pending in the given term.
func (t *pendingTransfers) add(id raft.ServerID, term uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.terms[id] == term {
		return false
	}
	if t.terms == nil {
		t.terms = map[raft.ServerID]uint64{}
	}
	t.terms[id] = term
	return true
}

// remove records that Raft has sent the request to id or did not accept it.
func (t *pendingTransfers) remove(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.terms, id)
}
