package transport_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// This test reproduces hashicorp/raft#695. A leader is partitioned and replaced. Then only a
// heartbeat of the new leader reaches the deposed one, and a client of the deposed one writes.
//
// The first half shows that the test can fail. With the fast path, the write gets a term that the
// node does not lead. The entry of this write permanently replaces the new leader's first entry.
// The second half is the shipped behavior. The heartbeat goes through the main loop, so the node
// has stepped down before the write and refuses it.
func TestHeartbeat_DeposedLeader_WritesNothing(t *testing.T) {
	t.Run("fast path diverges", func(t *testing.T) {
		deposed, other, phantom := stagePhantom(t, func(p *fastPort) raft.Transport { return p })
		if phantom == nil && maps.Equal(deposed.fsm.all(), other.fsm.all()) {
			t.Error("got equal logs, want them different: is the bug fixed in the library?")
		}
		if at := deposed.fsm.await(t, "PHANTOM"); other.fsm.all()[at] == "PHANTOM" {
			t.Errorf("got PHANTOM at index %d on both, want it on one", at)
		}
	})
	t.Run("main loop refuses the write", func(t *testing.T) {
		deposed, other, phantom := stagePhantom(t, func(p *fastPort) raft.Transport { return deafPort{p} })
		if !errors.Is(phantom, raft.ErrNotLeader) && !errors.Is(phantom, raft.ErrLeadershipLost) {
			t.Errorf("write on the deposed leader: got %v, want %v", phantom, raft.ErrNotLeader)
		}
		if got, want := deposed.fsm.all(), other.fsm.all(); !maps.Equal(got, want) {
			t.Errorf("deposed leader: got %v applied, want %v", got, want)
		}
	})
}

// stagePhantom runs this schedule until both leaders have applied a later entry. It returns the
// deposed leader, the new leader, and the error of the write on the deposed leader.
func stagePhantom(t *testing.T, wrap func(*fastPort) raft.Transport) (deposed, leader *member, phantom error) {
	t.Helper()
	network := newFastNet()
	beats := make(chan uint64, 1024) // terms of heartbeats answered by the deposed leader
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
			timeout = 30 * time.Second // so that it does not step down during the test
		}
		members = append(members, newMember(t, memberConfig{
			id: string(s.ID), trans: ports[s.Address], servers: servers, timeout: timeout,
		}))
	}
	deposed = members[0]
	for first := awaitLeader(t, members); first != deposed; first = awaitLeader(t, members) {
		if err := first.raft.LeadershipTransferToServer("a", "a").Error(); err != nil {
			t.Logf("transfer to a failed, retrying: %v", err)
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
			t.Fatal("got no heartbeat, want one")
		}
	}
	last := deposed.raft.LastIndex()
	future := deposed.raft.Apply([]byte("PHANTOM"), longStop)
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	// The write is refused or stored before the rest of the network opens.
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
			t.Fatal("got the write neither refused nor stored")
		}
	}
	network.set(nil)
	if err := leader.raft.Apply([]byte("after"), longStop).Error(); err != nil {
		t.Fatalf("write on the new leader: got %v, want nil", err)
	}
	deposed.fsm.await(t, "after")
	leader.fsm.await(t, "after")
	return deposed, leader, <-done
}
