package saferaft

import (
	"sync"

	"github.com/hashicorp/raft"
)

// notices informs followers that an entry has committed. Without notices, a follower learns of the
// commit from the next entry, or after Raft's CommitTimeout.
//
// A notice is an AppendEntries request without entries, whose previous entry and commit index are
// the committed entry. It is the message that Raft itself sends after CommitTimeout. The leader of
// a term may send it at any time, and a follower checks it like any other request. The follower
// checks the term, then that its own log has an entry with this index and term.
//
// Only followers that are known to have stored the entry get a notice. The others get one once they
// have stored the entry. A notice that fails is not retried: Raft's own message follows.
//
// Invariant: a follower has at most one notice in flight. So a follower that does not answer
// occupies only one connection. Once it answers, it gets the newest commit index.
type notices struct {
	send func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error

	mu        sync.Mutex
	term      uint64 // term of the newest committed entry that was announced
	index     uint64 // index of that entry
	followers map[raft.ServerID]*follower
	stopped   bool
	wg        sync.WaitGroup
}

// A follower is the state of the log of a server as its answers show it, in request.Term.
type follower struct {
	id        raft.ServerID
	target    raft.ServerAddress
	request   raft.AppendEntriesRequest // the newest successful request, without its entries
	held      uint64                    // index up to which the follower's log equals the leader's
	announced uint64                    // highest commit index that was sent
	inFlight  bool
}

// appended records that Raft's own request to a server was answered.
func (n *notices) appended(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) {
	if !resp.Success {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.followers[id]
	if f == nil {
		if n.followers == nil || len(n.followers) >= maxContacts {
			n.followers = map[raft.ServerID]*follower{}
		}
		f = &follower{id: id}
		n.followers[id] = f
	}
	switch {
	case req.Term < f.request.Term: // a late answer
		return
	case req.Term > f.request.Term:
		f.held, f.announced = 0, 0
	}
	f.target, f.request = target, *req
	f.request.Entries = nil
	f.held = max(f.held, matched(req))
	f.announced = max(f.announced, min(req.LeaderCommitIndex, matched(req)))
	n.start(f)
}

// announce sends notices about the entry at index, which this node appended as the leader of term
// and which has committed.
func (n *notices) announce(term, index uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if term < n.term || term == n.term && index <= n.index {
		return
	}
	n.term, n.index = term, index
	for _, f := range n.followers {
		n.start(f)
	}
}

// isDue reports whether f has stored the announced entry and has not been sent a notice about it.
// The caller holds mu.
func (n *notices) isDue(f *follower) bool {
	return !n.stopped && f.request.Term == n.term && f.held >= n.index && f.announced < n.index
}

// start sends f a notice if one is due and none is in flight. The caller holds mu.
func (n *notices) start(f *follower) {
	if f.inFlight || !n.isDue(f) {
		return
	}
	f.inFlight = true
	n.wg.Go(func() { n.run(f) })
}

// run sends notices until none is due.
func (n *notices) run(f *follower) {
	for {
		n.mu.Lock()
		if !n.isDue(f) {
			f.inFlight = false
			n.mu.Unlock()
			return
		}
		target, req := f.target, f.request
		req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex = n.index, n.term, n.index
		f.announced = n.index
		n.mu.Unlock()
		// The error does not matter, because Raft's own message follows.
		_ = n.send(f.id, target, &req, &raft.AppendEntriesResponse{})
	}
}

// stop prevents further notices. The notices in flight end with their connections; wait for them
// with wg.
func (n *notices) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
}

// matched returns the index up to which the log of a follower that accepts req equals the leader's.
// This is the index of the last entry in req, or of its previous entry if req has no entries.
func matched(req *raft.AppendEntriesRequest) uint64 {
	if n := len(req.Entries); n > 0 {
		return req.Entries[n-1].Index
	}
	return req.PrevLogEntry
}
