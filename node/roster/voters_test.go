package roster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"revoked"
	"revoked/fsm"
	"revoked/node/propose"
)

// Autopilot decides on data that may be older than a removal.
func TestVoters_RemovedInParallel_StaysRemoved(t *testing.T) {
	r := singleRoster(t)
	err := pilotRaft{r.Raft, r.changes}.AddVoter("gone/1", "nowhere", 0, 0).Error()
	conf, confErr := r.Configuration()
	if !errors.Is(err, revoked.ErrNotFound) || confErr != nil || len(conf.Servers) != 1 {
		t.Errorf("got %v, %v, %v, want the server to stay removed", err, conf, confErr)
	}
}

// A promotion, a demotion and a removal are proposed only in the term in which they were decided.
// In a later term the server may hold a lease.
func TestChanges_Proposed_UseDecisionTerm(t *testing.T) {
	r := singleRoster(t)
	if err := r.Raft.AddNonvoter("b/1", "nowhere", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	var terms []uint64
	r.Leader.Clear = func(context.Context, raft.ServerID) (uint64, error) { return 1, nil }
	r.Leader.Unblock = func(raft.ServerID) {}
	r.Leader.ChangeInTerm = func(
		_ context.Context, term uint64, _ func(time.Duration) raft.IndexFuture,
	) (raft.IndexFuture, error) {
		terms = append(terms, term)
		return nil, revoked.ErrNoLeader // the term has ended
	}
	turn, err := r.changes.begin()
	if err != nil {
		t.Fatal(err)
	}
	_, demoted := turn.demote("b/1")
	_, removed := turn.remove("b/1")
	turn.end()
	_, promoted := r.changes.promote("b/1")
	for _, err := range []error{demoted, removed, promoted} {
		if !errors.Is(err, revoked.ErrNoLeader) {
			t.Errorf("got %v, want %v", err, revoked.ErrNoLeader)
		}
	}
	conf, err := r.Configuration()
	if want := []uint64{1, 1, 1}; err != nil || !slices.Equal(terms, want) || isVoter(conf, "b/1") ||
		!inConfiguration(conf, "b/1") {
		t.Errorf("got terms %v and %v, %v, want %v and no change", terms, conf, err, want)
	}
}

// singleRoster returns the roster of a node that leads a cluster of one node.
func singleRoster(t *testing.T) *Roster {
	t.Helper()
	f, err := fsm.Open(fsm.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	conf := raft.DefaultConfig()
	led := make(chan bool, 1)
	conf.LocalID, conf.LogOutput, conf.NotifyCh = "self/1", io.Discard, led
	addr, trans := raft.NewInmemTransport("")
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown().Error() })
	servers := []raft.Server{{ID: conf.LocalID, Address: addr}}
	if err := r.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case leads := <-led:
		if !leads {
			t.Fatal("got no leader, want this node")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("got no election, want one")
	}
	return New(Config{
		NodeID: "self", Identity: Identity{Server: conf.LocalID, Instance: "1", Cluster: func() string { return "c" }},
		Context: t.Context(), RequestTimeout: time.Minute, HeartbeatTimeout: time.Second, Raft: r, FSM: f,
		Log: slog.New(slog.DiscardHandler), Clock: propose.NewClock(time.Now, "self/1"),
		Leader: Leader{
			Term:       func() uint64 { return 1 },
			SetMembers: func(raft.Configuration) {},
			ChangeInTerm: func(
				_ context.Context, _ uint64, change func(time.Duration) raft.IndexFuture,
			) (raft.IndexFuture, error) {
				return change(time.Minute), nil
			},
		},
	})
}

func TestSpread_Regions_FewestVotersFirst(t *testing.T) {
	type servers = map[raft.ServerID]*autopilot.ServerState
	server := func(region string, voter bool) *autopilot.ServerState {
		s := &autopilot.ServerState{State: autopilot.RaftNonVoter}
		if voter {
			s.State = autopilot.RaftVoter
		}
		s.Server.Meta = map[string]string{regionMeta: region}
		return s
	}
	for _, tc := range []struct {
		name       string
		servers    servers
		candidates []raft.ServerID
		want       []raft.ServerID
	}{
		{"the region without a voter comes first", servers{
			"a": server("east", true), "b": server("east", false), "c": server("west", false),
		}, []raft.ServerID{"b", "c"}, []raft.ServerID{"c", "b"}},
		{"each promotion affects the next", servers{
			"a": server("east", true), "b": server("west", false), "c": server("west", false),
			"d": server("east", false), "e": server("north", false),
		}, []raft.ServerID{"b", "c", "d", "e"}, []raft.ServerID{"b", "e", "c", "d"}},
		{"at most seven voters", servers{
			"1": server("x", true), "2": server("x", true), "3": server("x", true),
			"4": server("x", true), "5": server("x", true), "6": server("x", true),
			"7": server("x", false), "8": server("y", false),
		}, []raft.ServerID{"7", "8"}, []raft.ServerID{"8"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := spread(tc.candidates, tc.servers); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestStandIn_OnlyForMembersWithoutVote(t *testing.T) {
	voter, other := raft.Server{ID: "a/1", Suffrage: raft.Voter}, raft.Server{ID: "b/1", Suffrage: raft.Nonvoter}
	for _, tc := range []struct {
		name      string
		servers   []raft.Server
		candidate raft.ServerID
		want      raft.ServerID
	}{
		{"a member without a vote", []raft.Server{other, voter}, "b/1", "a/1"},
		{"a voter", []raft.Server{voter, other}, "a/1", ""},
		{"a server outside the configuration", []raft.Server{voter, other}, "c/1", ""},
		{"another instance of a member", []raft.Server{voter, other}, "b/2", ""},
		{"no candidate", []raft.Server{voter, other}, "", ""},
		{"no voter", []raft.Server{other}, "b/1", ""},
		{"empty configuration", nil, "a/1", ""},
	} {
		if got := standIn(raft.Configuration{Servers: tc.servers}, tc.candidate); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
