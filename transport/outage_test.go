package transport_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport"
)

// An outage is two nodes, one of which takes no Raft from the other while it is down, and what is asked
// about the calls that are held.
type outage struct {
	n1, n2  *server
	down    atomic.Bool
	wanted  atomic.Bool
	asked   chan struct{} // whether a held call is still wanted
	address raft.ServerAddress
}

func startOutage(t *testing.T) *outage {
	o := &outage{asked: make(chan struct{})}
	o.down.Store(true)
	o.wanted.Store(true)
	a := newAuthority(t)
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
	o.n1.HoldOutages(func(id raft.ServerID, term uint64) bool {
		if id != "2" || term != 7 {
			t.Errorf("asked about server %s in term %d, want 2 in 7", id, term)
		}
		select {
		case o.asked <- struct{}{}:
		default:
		}
		return o.wanted.Load()
	})
	return o
}

// entry is no heartbeat.
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

// held waits until the call is held back, and fails when its error is told.
func (o *outage) held(t *testing.T, told <-chan error) {
	t.Helper()
	select {
	case <-o.asked:
	case err := <-told:
		t.Fatalf("told of the outage while it lasts: %v", err)
	case <-time.After(longStop):
		t.Fatal("the call is neither held nor told")
	}
}

func TestRaftIsToldOfAnOutageWhenItIsOver(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(*outage) error
		end  func(*testing.T, *outage)
	}{
		{"entries, by the next heartbeat", (*outage).entry, func(t *testing.T, o *outage) {
			o.down.Store(false)
			if err := o.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}},
		{"a snapshot, by the next heartbeat", (*outage).snapshot, func(t *testing.T, o *outage) {
			o.down.Store(false)
			if err := o.heartbeat(); err != nil {
				t.Fatal(err)
			}
		}},
		{"or by the end of the leadership", (*outage).entry, func(_ *testing.T, o *outage) { o.wanted.Store(false) }},
		{"or by the end of the transport", (*outage).entry, func(t *testing.T, o *outage) {
			if err := o.n1.Close(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOutage(t)
			told := make(chan error, 1)
			go func() { told <- c.call(o) }()
			o.held(t, told)
			if err := o.heartbeat(); err == nil {
				t.Fatal("a heartbeat arrived at a node that is down")
			}
			o.held(t, told) // one that does not arrive ends nothing
			o.held(t, told)
			c.end(t, o)
			select {
			case err := <-told:
				if err == nil {
					t.Error("got no error for a call that failed")
				}
			case <-time.After(longStop):
				t.Fatal("the error is never told")
			}
		})
	}
}

func TestErrorsOfHeartbeatsAreToldAtOnce(t *testing.T) {
	o := startOutage(t)
	o.n1.HoldOutages(func(raft.ServerID, uint64) bool {
		t.Error("a heartbeat is held")
		return false
	})
	if err := o.heartbeat(); err == nil {
		t.Error("got no error")
	}
}

// A transfer of leadership must not be asked for while replication to the target stands still.
func TestReplicationThatStandsStillIsSeen(t *testing.T) {
	o := startOutage(t)
	if o.n1.Stalled("2", 0) {
		t.Error("stalled before there was a call")
	}
	told := make(chan error, 1)
	go func() { told <- o.entry() }()
	o.held(t, told)
	if !o.n1.Stalled("2", 0) || o.n1.Stalled("3", 0) || o.n1.Stalled("2", time.Hour) {
		t.Error("got another word than that the call to 2 has been held for a moment")
	}
	o.wanted.Store(false)
	if err := <-told; err == nil {
		t.Error("the call to a node that is down went well")
	}
	if o.n1.Stalled("2", 0) {
		t.Error("stalled when the call was over")
	}
}
