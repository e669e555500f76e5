package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// What the newest snapshot holds is not compared, whatever the log holds there; anything else stays as it came.
func TestAnchoredAppends(t *testing.T) {
	review := anchorAppends(func() (uint64, uint64) { return 10, 3 })
	for name, tt := range map[string]struct {
		index, term         uint64
		entries             []*raft.Log
		wantIndex, wantTerm uint64
		want                []*raft.Log
	}{
		"after the snapshot":                    {10, 3, entries(4, 11, 12), 0, 0, entries(4, 11, 12)},
		"after the snapshot, nothing":           {10, 3, nil, 0, 0, nil},
		"of another term at its index":          {10, 2, entries(4, 11, 12), 10, 2, entries(4, 11, 12)},
		"from below it, beyond it":              {8, 2, entries(3, 9, 12), 0, 0, entries(3, 11, 12)},
		"from below it, up to it":               {8, 2, entries(3, 9, 10), 0, 0, nil},
		"below it":                              {4, 1, entries(2, 5, 8), 0, 0, nil},
		"from below it, of another term at it":  {8, 2, entries(2, 9, 12), 8, 2, entries(2, 9, 12)},
		"after an entry above it":               {11, 3, entries(4, 12, 13), 11, 3, entries(4, 12, 13)},
		"a heartbeat, after no entry":           {0, 0, nil, 0, 0, nil},
		"the first entries of a log, beyond it": {0, 0, entries(3, 1, 12), 0, 0, entries(3, 11, 12)},
	} {
		req := &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: tt.index, PrevLogTerm: tt.term, LeaderCommitIndex: 10, Entries: tt.entries}
		review(req)
		if req.PrevLogEntry != tt.wantIndex || req.PrevLogTerm != tt.wantTerm {
			t.Errorf("%s: got previous entry %d of term %d, want %d of term %d", name, req.PrevLogEntry, req.PrevLogTerm, tt.wantIndex, tt.wantTerm)
		}
		if len(req.Entries) != len(tt.want) || len(tt.want) > 0 && (req.Entries[0].Index != tt.want[0].Index || req.Entries[0].Term != tt.want[0].Term) {
			t.Errorf("%s: got entries %+v, want %+v", name, req.Entries, tt.want)
		}
		if req.LeaderCommitIndex != 10 || req.Term != 4 {
			t.Errorf("%s: got %+v: more was changed", name, req)
		}
	}
	none := anchorAppends(func() (uint64, uint64) { return 0, 0 })
	req := &raft.AppendEntriesRequest{Entries: entries(1, 1, 2)}
	if none(req); len(req.Entries) != 2 {
		t.Errorf("without a snapshot: got %+v", req)
	}
}

// A leader that was cut off has a tail that ends at just the index at which the others take a snapshot. It is a
// member like any other once it is back.
func TestATailThatEndsWhereASnapshotDoes(t *testing.T) {
	for seed := range uint64(10) {
		met := false
		synctest.Test(t, func(t *testing.T) { met = tailMeetsSnapshot(t, seed) })
		if met {
			return
		}
	}
	t.Error("no snapshot ended where the tail did: the test proves nothing")
}

// tailMeetsSnapshot reports whether the snapshot ended where the tail did: an entry may have come between.
func tailMeetsSnapshot(t *testing.T, seed uint64) bool {
	s := newSim(t, seed, t.TempDir(), newSimCounts())
	defer s.end()
	s.begin()
	time.Sleep(10 * time.Second) // what is written at the foundation is over
	nemesis := &simNemesis{s: s}
	first := nemesis.leader()
	deposed := first.now().n.raft
	var heals []func()
	for _, m := range s.nodes {
		if m != first {
			heals = append(heals, s.net.cut(m.k, first.k), s.net.cut(first.k, m.k))
		}
	}
	for range 40 { // so that the others have not come as far when they have a leader
		deposed.Apply([]byte("x"), time.Second)
	}
	if !s.until("another leads", time.Minute, func() bool {
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
	if !s.until("it takes entries and every node holds a lease", time.Minute, func() bool { return deposed.LastIndex() > end && s.allHold() }) {
		t.Fatal(s.o.err)
	}
	if got := s.o.count.of("race: snapshot installed on a follower"); got != 1 {
		t.Errorf("%d snapshots were installed, want 1", got)
	}
	if s.o.failed() {
		t.Error(s.o.err)
	}
	return true
}

// snapshotAt has a leader write up to the index, take a snapshot there and keep no log below it.
func snapshotAt(t *testing.T, s *sim, lead *simLife, index uint64) bool {
	for lead.n.fsm.Applied() < index { // an entry each
		if _, err := lead.n.Register(context.Background(), lead.actor("issuer"), []revoked.Registration{s.newGrant().registration()}); err != nil {
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
