package transport

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Raft answers an error of replication with a pause that doubles from 10 ms to 10 s with every error in
// a row, and that nothing ends early: after half a minute of outage a member that is back waits ten
// seconds for its next entry, and has no lease meanwhile. So Raft is told of an outage once: an error of
// replication is held back until a heartbeat has reached the peer again. Heartbeats have a pause of
// their own, of half a heartbeat timeout at most.

// outages hold back errors of replication.
type outages struct {
	// replicates reports whether this node leads the term and replicates to the server. Until it is
	// set, and where it says no, errors are told at once.
	replicates atomic.Pointer[func(raft.ServerID, uint64) bool]

	mu    sync.Mutex
	beats map[raft.ServerID]chan struct{} // closed by the next heartbeat that arrives
	calls map[*call]struct{}              // of replication, under way or held
}

type call struct {
	to    raft.ServerID
	since time.Time
}

// begin notes a call of replication until end is called.
func (o *outages) begin(id raft.ServerID) (end func()) {
	c := &call{to: id, since: time.Now()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls == nil {
		o.calls = map[*call]struct{}{}
	}
	o.calls[c] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.calls, c)
	}
}

const outageLook = 100 * time.Millisecond // how often a held call asks whether it is still wanted

// beat returns a channel that is closed when a heartbeat has reached the server.
func (o *outages) beat(id raft.ServerID) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.beats == nil {
		o.beats = map[raft.ServerID]chan struct{}{}
	}
	if o.beats[id] == nil {
		o.beats[id] = make(chan struct{})
	}
	return o.beats[id]
}

func (o *outages) reached(id raft.ServerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if beat := o.beats[id]; beat != nil {
		close(beat)
		delete(o.beats, id)
	}
}

// hold returns when the server has been reached again, when nobody waits for it any more, or when done
// is closed.
func (o *outages) hold(id raft.ServerID, term uint64, done <-chan struct{}) {
	replicates := o.replicates.Load()
	if replicates == nil {
		return
	}
	beat := o.beat(id)
	look := time.NewTicker(outageLook)
	defer look.Stop()
	for (*replicates)(id, term) {
		select {
		case <-beat:
			return
		case <-look.C:
		case <-done:
			return
		}
	}
}

// HoldOutages lets Raft be told of an outage of a member once, when it is over, instead of at every
// attempt. replicates reports whether this node leads the term and replicates to the server; it is asked
// again and again, from many goroutines. Without HoldOutages errors are told at once.
func (t *Transport) HoldOutages(replicates func(server raft.ServerID, term uint64) bool) {
	t.raft.outages.replicates.Store(&replicates)
}

// Stalled reports whether a call of replication to the server has been under way, or held back, for longer
// than d. Raft's replication to it does nothing else meanwhile.
func (t *Transport) Stalled(server raft.ServerID, d time.Duration) bool {
	o := &t.raft.outages
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.calls {
		if c.to == server && time.Since(c.since) > d {
			return true
		}
	}
	return false
}

// AppendEntries implements raft.Transport.
func (s *safeTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(args) {
		defer s.outages.begin(id)()
	}
	err := s.NetworkTransport.AppendEntries(id, target, args, resp)
	switch {
	case isHeartbeat(args) && err == nil:
		s.outages.reached(id)
	case !isHeartbeat(args) && err != nil:
		s.outages.hold(id, args.Term, s.stream.done)
	}
	return err
}

// InstallSnapshot implements raft.Transport.
func (s *safeTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	defer s.outages.begin(id)()
	err := s.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		s.outages.hold(id, args.Term, s.stream.done)
	}
	return err
}

// isHeartbeat tells heartbeats as Raft's own transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
