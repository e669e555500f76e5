package transport_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/await"
	"revoked/transport"
)

// outage has two nodes. While node2 is down, it refuses Raft streams of node1.
type outage struct {
	n1, n2  *server
	down    atomic.Bool
	wanted  atomic.Bool
	asked   chan struct{} // receives a value for each call to replicates
	address raft.ServerAddress
}

func startOutage(t *testing.T) *outage {
	o := &outage{asked: make(chan struct{})}
	o.down.Store(true)
	o.wanted.Store(true)
	a := newCA(t)
	o.n1 = start(t, a, "node1", nil)
	o.n2 = start(t, a, "node2", func(c *transport.Config) {
		c.AllowRaft = func(string) error {
			if o.down.Load() {
				return errors.New("down")
			}
			return nil
		}
	})
	serveRaft(t, o.n2)
	o.address = transport.RaftAddress("node2", o.n2.addr)
	o.n1.DeferReplicationErrors(func(id raft.ServerID, term uint64) bool {
		if id != "2" || term != 7 {
			t.Errorf("got server %s in term %d, want 2 in 7", id, term)
		}
		select {
		case o.asked <- struct{}{}:
		default:
		}
		return o.wanted.Load()
	})
	return o
}

// entry sends a message that is not a heartbeat.
func (o *outage) entry() error {
	req := heartbeat(o.n1)
	req.Term, req.LeaderCommitIndex = 7, 1
	return o.n1.Raft().AppendEntries("2", o.address, req, &raft.AppendEntriesResponse{})
}

func (o *outage) snapshot() error {
	req := &raft.InstallSnapshotRequest{RPCHeader: heartbeat(o.n1).RPCHeader, SnapshotVersion: 1, Term: 7, Size: 1}
	return o.n1.Raft().InstallSnapshot("2", o.address, req, &raft.InstallSnapshotResponse{}, strings.NewReader("x"))
}

func (o *outage) heartbeat() error {
	return o.n1.Raft().AppendEntries("2", o.address, heartbeat(o.n1), &raft.AppendEntriesResponse{})
}

// deferred waits until the call is deferred, and fails if it returns.
func (o *outage) deferred(t *testing.T, returned <-chan error) {
	t.Helper()
	select {
	case <-o.asked:
	case err := <-returned:
		t.Fatalf("got %v during the outage, want the call deferred", err)
	case <-time.After(longStop):
		t.Fatal("got neither a deferred call nor its error")
	}
}

func TestReplicationErrors_ReturnAfterTheOutage(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(*outage) error
		end  func(*testing.T, *outage)
	}{
		{"entries, heartbeat", (*outage).entry, func(t *testing.T, o *outage) {
			o.down.Store(false)
			if err := o.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}},
		{"snapshot, heartbeat", (*outage).snapshot, func(t *testing.T, o *outage) {
			o.down.Store(false)
			if err := o.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}},
		{"end of leadership", (*outage).entry, func(_ *testing.T, o *outage) { o.wanted.Store(false) }},
		{"end of the transport", (*outage).entry, func(t *testing.T, o *outage) {
			if err := o.n1.Close(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOutage(t)
			returned := make(chan error, 1)
			go func() { returned <- c.call(o) }()
			o.deferred(t, returned)
			if err := o.heartbeat(); err == nil {
				t.Fatal("got nil, want an error for a heartbeat to a node that is down")
			}
			o.deferred(t, returned) // a failed heartbeat does not end the wait
			o.deferred(t, returned)
			c.end(t, o)
			select {
			case err := <-returned:
				if err == nil {
					t.Error("got nil, want the error of the call")
				}
			case <-time.After(longStop):
				t.Fatal("got no return, want the error")
			}
		})
	}
}

func TestReplicationErrors_Heartbeat_IsNotDeferred(t *testing.T) {
	o := startOutage(t)
	o.n1.DeferReplicationErrors(func(raft.ServerID, uint64) bool {
		t.Error("got a deferred heartbeat, want it returned")
		return false
	})
	if err := o.heartbeat(); err == nil {
		t.Error("got nil, want an error")
	}
}

// Leadership must not be transferred to a target while replication to it is stalled.
func TestStalled_DeferredCall_IsReported(t *testing.T) {
	o := startOutage(t)
	if o.n1.Stalled("2", 0) {
		t.Error("got stalled without a call, want false")
	}
	returned := make(chan error, 1)
	go func() { returned <- o.entry() }()
	o.deferred(t, returned)
	if !o.n1.Stalled("2", 0) || o.n1.Stalled("3", 0) || o.n1.Stalled("2", time.Hour) {
		t.Error("got the wrong servers stalled, want only server 2, for less than an hour")
	}
	o.wanted.Store(false)
	if err := await.Receive(t, returned, "result of the call"); err == nil {
		t.Error("got nil, want an error from a node that is down")
	}
	if o.n1.Stalled("2", 0) {
		t.Error("got stalled after the call, want false")
	}
}
