package transport_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// The staged form of hashicorp/raft#695. A leader is cut off and replaced; then a heartbeat of the
// new leader reaches it, and nothing else; then one of its clients writes.
//
// The first half shows that the test can fail: with the fast path the write is stamped with a term
// that the node does not lead, and takes the place of the new leader's first entry for good. The
// second half is the shipped behaviour: the heartbeat goes through the main loop, the node is no
// leader any more when the write comes, and refuses it.
func TestADeposedLeaderWritesNothing(t *testing.T) {
	t.Run("with the fast path the copies diverge", func(t *testing.T) {
		deposed, other, phantom := stagePhantom(t, func(p *fastPort) raft.Transport { return p })
		if phantom == nil && maps.Equal(deposed.fsm.all(), other.fsm.all()) {
			t.Error("no divergence: this half proves nothing any more; is the bug fixed in the library?")
		}
		if at := deposed.fsm.await(t, "PHANTOM"); other.fsm.all()[at] == "PHANTOM" {
			t.Errorf("index %d is PHANTOM on both", at)
		}
	})
	t.Run("without it the write is refused", func(t *testing.T) {
		deposed, other, phantom := stagePhantom(t, func(p *fastPort) raft.Transport { return deafPort{p} })
		if !errors.Is(phantom, raft.ErrNotLeader) && !errors.Is(phantom, raft.ErrLeadershipLost) {
			t.Errorf("write on the deposed leader: got %v, want it refused", phantom)
		}
		if got, want := deposed.fsm.all(), other.fsm.all(); !maps.Equal(got, want) {
			t.Errorf("the deposed leader applied %v, the new one %v", got, want)
		}
	})
}

// stagePhantom plays the schedule and returns the deposed leader, the new one, and what the write on
// the deposed one returned, when both have applied a later entry.
func stagePhantom(t *testing.T, wrap func(*fastPort) raft.Transport) (deposed, leader *member, phantom error) {
	t.Helper()
	network := newFastNet()
	beats := make(chan uint64, 1024) // terms of heartbeats that the deposed leader answered
	network.answered = func(_, to raft.ServerAddress, term uint64) {
		if to == "a" {
			select {
			case beats <- term:
			default:
			}
		}
	}
	servers := []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}, {ID: "c", Address: "c"}}
	ports := map[raft.ServerAddress]raft.Transport{}
	for _, s := range servers {
		ports[s.Address] = wrap(network.port(s.Address))
	}
	var members []*member
	for _, s := range servers {
		timeout := time.Second
		if s.ID == "a" {
			timeout = 30 * time.Second // it stays leader, in its own eyes, for all of the test
		}
		members = append(members, newMember(t, memberConfig{
			id: string(s.ID), trans: ports[s.Address], servers: servers, timeout: timeout,
		}))
	}
	deposed = members[0]
	for first := awaitLeader(t, members); first != deposed; first = awaitLeader(t, members) {
		if err := first.raft.LeadershipTransferToServer("a", "a").Error(); err != nil {
			t.Logf("transfer to a, tried again: %v", err)
		}
	}
	if err := deposed.raft.Apply([]byte("before"), longStop).Error(); err != nil {
		t.Fatal(err)
	}

	network.set(func(from, to raft.ServerAddress, _ bool) bool { return from != "a" && to != "a" })
	leader = awaitLeader(t, members[1:])
	term := leader.raft.CurrentTerm()
	network.set(func(from, to raft.ServerAddress, isHeartbeat bool) bool {
		return from != "a" && (to != "a" || isHeartbeat)
	})
	for got := uint64(0); got < term; {
		select {
		case got = <-beats:
		case <-time.After(longStop):
			t.Fatal("no heartbeat came through")
		}
	}
	last := deposed.raft.LastIndex()
	future := deposed.raft.Apply([]byte("PHANTOM"), longStop)
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	// The write is either refused or in the log before the rest of the network opens.
	stored := time.NewTicker(time.Millisecond)
	defer stored.Stop()
	stop := time.After(longStop)
	for refused := false; !refused && deposed.raft.LastIndex() == last; {
		select {
		case phantom = <-done:
			refused = true
			done <- phantom
		case <-stored.C:
		case <-stop:
			t.Fatal("the write was neither refused nor stored")
		}
	}
	network.set(nil)
	if err := leader.raft.Apply([]byte("after"), longStop).Error(); err != nil {
		t.Fatalf("write on the new leader: %v", err)
	}
	deposed.fsm.await(t, "after")
	leader.fsm.await(t, "after")
	return deposed, leader, <-done
}
