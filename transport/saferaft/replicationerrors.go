package saferaft

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// replicationErrors defers the errors of replication calls during an outage of their peer.
//
// After each consecutive error Raft doubles its pause, from 10 ms to 10 s, and no event ends a
// pause. A member that returns after half a minute would wait ten seconds for its next entry,
// without a lease. So Raft receives only one error per outage: the call returns it after a
// heartbeat has reached the peer again. Heartbeats have their own pause of at most half a heartbeat
// timeout.
type replicationErrors struct {
	replicates atomic.Pointer[func(raft.ServerID, uint64) bool] // see DeferReplicationErrors; may be nil

	mu         sync.Mutex
	heartbeats map[raft.ServerID]chan struct{} // closed by the next heartbeat that succeeds
	calls      map[*replication]struct{}       // calls in progress or deferred
}

// replication is one call that replicates entries or a snapshot.
type replication struct {
	to    raft.ServerID
	since time.Time
}

// begin records a call until end is called.
func (e *replicationErrors) begin(id raft.ServerID) (end func()) {
	c := &replication{to: id, since: time.Now()}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.calls == nil {
		e.calls = map[*replication]struct{}{}
	}
	e.calls[c] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.calls, c)
	}
}

// heartbeat returns a channel that is closed by the next heartbeat that reaches the server.
func (e *replicationErrors) heartbeat(id raft.ServerID) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heartbeats == nil {
		e.heartbeats = map[raft.ServerID]chan struct{}{}
	}
	if e.heartbeats[id] == nil {
		e.heartbeats[id] = make(chan struct{})
	}
	return e.heartbeats[id]
}

func (e *replicationErrors) reached(id raft.ServerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.heartbeats[id]; c != nil {
		close(c)
		delete(e.heartbeats, id)
	}
}

const replicatesInterval = 100 * time.Millisecond // time between calls to replicates

// wait blocks until a heartbeat reaches the server, this node stops replicating to it, or done is
// closed.
func (e *replicationErrors) wait(id raft.ServerID, term uint64, done <-chan struct{}) {
	replicates := e.replicates.Load()
	if replicates == nil {
		return
	}
	heartbeat := e.heartbeat(id)
	tick := time.NewTicker(replicatesInterval)
	defer tick.Stop()
	for (*replicates)(id, term) {
		select {
		case <-heartbeat:
			return
		case <-tick.C:
		case <-done:
			return
		}
	}
}

// stalled reports whether a call to the server has been in progress or deferred for longer than d.
func (e *replicationErrors) stalled(server raft.ServerID, d time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.calls {
		if c.to == server && time.Since(c.since) > d {
			return true
		}
	}
	return false
}

// isHeartbeat reports whether raft.NetworkTransport treats a as a heartbeat.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
