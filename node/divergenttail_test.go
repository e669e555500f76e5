package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A leader that was cut off has a divergent tail that ends at the index of the others' snapshot.
// When it reconnects, it accepts entries again.
func TestLog_TailEndsAtSnapshot_AcceptsEntries(t *testing.T) {
	for seed := range uint64(10) {
		met := false
		synctest.Test(t, func(t *testing.T) { met = tailMeetsSnapshot(t, seed) })
		if met {
			return
		}
	}
	t.Error("got no snapshot that ends at the tail's last index, want one")
}

// tailMeetsSnapshot reports whether the snapshot is at the tail's last index. Another entry may
// have come first.
func tailMeetsSnapshot(t *testing.T, seed uint64) bool {
	s := newSim(t, seed, t.TempDir(), newSimCounts())
	defer s.end()
	s.begin()
	time.Sleep(10 * time.Second) // the bootstrap entries are committed
	nemesis := &simNemesis{s: s}
	first := nemesis.leader()
	deposed := first.now().n.raft
	var heals []func()
	for _, m := range s.nodes {
		if m != first {
			heals = append(heals, s.net.Cut(m.k, first.k), s.net.Cut(first.k, m.k))
		}
	}
	for range 40 { // the others' logs are shorter when they elect
		deposed.Apply([]byte("x"), time.Second)
	}
	if !s.until("another node leads", time.Minute, func() bool {
		l := nemesis.leader()
		return l != nil && l != first && deposed.State() != raft.Leader
	}) {
		t.Fatal(s.o.err)
	}
	end := deposed.LastIndex()
	if !snapshotAt(t, s, nemesis.leader().now(), end) {
		return false
	}
	for _, heal := range heals {
		heal()
	}
	if !s.until("the node accepts entries and every node holds a lease", time.Minute,
		func() bool { return deposed.LastIndex() > end && s.allHold() }) {
		t.Fatal(s.o.err)
	}
	if got := s.o.count.of("race: snapshot installed on a follower"); got != 1 {
		t.Errorf("got %d installed snapshots, want 1", got)
	}
	if s.o.failed() {
		t.Error(s.o.err)
	}
	return true
}

// snapshotAt makes a leader write up to the index, take a snapshot there and truncate its log.
func snapshotAt(t *testing.T, s *sim, lead *simLife, index uint64) bool {
	for lead.n.fsm.Applied() < index { // one entry each
		if _, err := lead.n.Register(context.Background(), lead.actor("issuer"),
			[]revoked.Registration{s.newGrant().registration()}); err != nil {
			t.Fatal(err)
		}
	}
	conf := lead.n.raft.ReloadableConfig()
	conf.TrailingLogs = 0
	if err := lead.n.raft.ReloadConfig(conf); err != nil {
		t.Fatal(err)
	}
	snapshot := lead.n.raft.Snapshot()
	if err := snapshot.Error(); err != nil {
		t.Fatal(err)
	}
	meta, r, err := snapshot.Open()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return meta.Index == index
}
