package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/node/nodepb"
)

// A member often learns of its removal from a reply to a report before the response to its leave
// request arrives.
func TestLeave_RemovalSeenFirst_EndsCleanly(t *testing.T) {
	for name, answer := range map[string]error{
		"answered":        nil,
		"outcome unknown": fmt.Errorf("%w: connection lost", revoked.ErrOutcomeUnknown),
	} {
		t.Run(name, func(t *testing.T) {
			r, ended := leaver(t, func(r *Roster) error {
				r.reporter.removed("")
				return answer
			})
			if _, err := r.Leave(t.Context(), revoked.Actor{}); !errors.Is(err, answer) {
				t.Errorf("got %v, want %v", err, answer)
			}
			if err := <-ended; err != nil {
				t.Errorf("got the node stopped with %v, want nil after its leave", err)
			}
		})
	}
	t.Run("removed after a refused leave", func(t *testing.T) {
		r, ended := leaver(t, func(*Roster) error { return revoked.ErrQuorumRisk })
		if _, err := r.Leave(t.Context(), revoked.Actor{}); !errors.Is(err, revoked.ErrQuorumRisk) {
			t.Errorf("got %v, want %v", err, revoked.ErrQuorumRisk)
		}
		r.reporter.removed("")
		if err := <-ended; err == nil {
			t.Error("got the node stopped with nil, want an error: an operator removed it")
		}
	})
}

func TestCheckLeaver_AnotherNode_IsForbidden(t *testing.T) {
	for _, tc := range []struct {
		peer, server string
		want         error
	}{
		{"a", "a/1", nil},
		{"a", "b/1", revoked.ErrForbidden},
		{"a", "", revoked.ErrForbidden},
	} {
		req := &nodepb.AdminRequest{Kind: nodepb.AdminRequest_LEAVE, Server: tc.server}
		if err := checkLeaver(tc.peer, req); !errors.Is(err, tc.want) {
			t.Errorf("leave of %q by %s: got %v, want %v", tc.server, tc.peer, err, tc.want)
		}
	}
}

// leaver returns a follower whose calls to the leader run call. The channel receives the arguments
// of Config.End.
func leaver(t *testing.T, call func(*Roster) error) (*Roster, <-chan error) {
	t.Helper()
	f, err := fsm.Open(fsm.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	ended := make(chan error, 2)
	var r *Roster
	r = New(Config{
		Context: t.Context(), RequestTimeout: time.Minute, Log: slog.New(slog.DiscardHandler), FSM: f,
		Identity: Identity{Cluster: func() string { return "c" }, MarkLeft: func() error { return nil }},
		Holder:   Holder{Drop: func() {}}, Leader: Leader{Term: func() uint64 { return 0 }},
		End:           func(err error) { ended <- err },
		LeaderChanged: func() <-chan struct{} { return nil },
		NoLeader:      func() error { return nil },
		CallLeader: func(context.Context, string, proto.Message, proto.Message) error {
			return call(r)
		},
	})
	return r, ended
}

// While no leader can be elected, Leave and Remove do not wait for a leader, and the node keeps its
// lease.
func TestLeaveAndRemove_Outage_RefusedImmediately(t *testing.T) {
	r, _ := leaver(t, func(*Roster) error { return revoked.ErrNoLeader })
	outage := &revoked.OutageError{Voters: 3, Reachable: 1}
	r.NoLeader = func() error { return outage }
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, leave := r.Leave(t.Context(), revoked.Actor{})
		_, remove := r.toLeader(t.Context(), &nodepb.AdminRequest{Kind: nodepb.AdminRequest_REMOVE, Node: "node3"})
		if leave != outage || remove != outage || time.Since(began) != 0 {
			t.Errorf("got %v and %v after %v, want %v immediately", leave, remove, time.Since(began), outage)
		}
	})
	if r.reporter.leaving.Load() {
		t.Error("reporter after a refused leave: got leaving, want not")
	}
}
