package roster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
)

// The test enumerates the configurations that are reachable from two nodes with three instances
// each. Every permitted change must preserve the invariants of rules.go. Removals and demotions are
// always permitted here.
func TestRules_PermittedChange_KeepsInvariants(t *testing.T) {
	var ids []raft.ServerID
	for _, id := range []string{"a/1", "a/2", "a/3", "b/1", "b/2", "b/3"} {
		ids = append(ids, raft.ServerID(id))
	}
	seen := map[string]bool{}
	queue := []raft.Configuration{{Servers: []raft.Server{{ID: "a/1"}, {ID: "b/1"}}}}
	for len(queue) > 0 {
		conf := queue[0]
		queue = queue[1:]
		if key := fmt.Sprint(conf); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		checkInvariants(t, conf)
		for _, id := range ids {
			queue = append(queue, changesOf(conf, id)...)
		}
	}
	if len(seen) < 100 {
		t.Errorf("got %d configurations, want at least 100", len(seen))
	}
}

// changesOf returns the configurations that one permitted change of the server id produces from
// conf.
func changesOf(conf raft.Configuration, id raft.ServerID) (out []raft.Configuration) {
	k := slices.IndexFunc(conf.Servers, func(s raft.Server) bool { return s.ID == id })
	with := func(s raft.ServerSuffrage) {
		next := conf.Clone()
		next.Servers[k].Suffrage = s
		out = append(out, next)
	}
	switch {
	case k < 0 && checkAdd(conf, id) == nil:
		next := conf.Clone()
		next.Servers = append(next.Servers, raft.Server{ID: id, Suffrage: raft.Nonvoter})
		slices.SortFunc(next.Servers, func(a, b raft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return []raft.Configuration{next}
	case k < 0:
		return nil
	case conf.Servers[k].Suffrage == raft.Voter:
		with(raft.Nonvoter)
	case checkPromote(conf, id) == nil:
		with(raft.Voter)
	}
	next := conf.Clone()
	next.Servers = slices.Delete(next.Servers, k, k+1)
	return append(out, next)
}

func checkInvariants(t *testing.T, conf raft.Configuration) {
	t.Helper()
	votes, instances := map[string]int{}, map[string]int{}
	for _, s := range conf.Servers {
		instances[nodeOf(s.ID)]++
		if s.Suffrage == raft.Voter {
			votes[nodeOf(s.ID)]++
		}
	}
	for node, n := range instances {
		if n > 2 || votes[node] > 1 {
			t.Errorf("node %s: got %d instances and %d votes, want at most 2 and 1: %v", node, n, votes[node], conf)
		}
	}
}

func TestRules_Bounds_AreKept(t *testing.T) {
	if maxMembers != 32 || maxVoters != 7 { // the documented limits
		t.Errorf("got %d members and %d voters, want 32 and 7", maxMembers, maxVoters)
	}
	var conf raft.Configuration
	for k := range maxMembers {
		suffrage := raft.Nonvoter
		if k < maxVoters {
			suffrage = raft.Voter
		}
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(fmt.Sprintf("n%d/a", k)), Suffrage: suffrage})
	}
	if err := checkAdd(conf, "other/a"); !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("member %d: got %v, want %v", maxMembers+1, err, revoked.ErrUnprocessable)
	}
	if err := checkAdd(conf, "n3/b"); err != nil {
		t.Errorf("replacement of a member of a full cluster: got %v, want nil", err)
	}
	if err := checkPromote(conf, "n20/a"); !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("voter %d: got %v, want %v", maxVoters+1, err, revoked.ErrUnprocessable)
	}
	if err := checkPromote(conf, "none/a"); !errors.Is(err, revoked.ErrNotFound) {
		t.Errorf("no member: got %v, want %v", err, revoked.ErrNotFound)
	}
	conf.Servers = append(conf.Servers, raft.Server{ID: "n1/b", Suffrage: raft.Nonvoter})
	if err := checkPromote(conf, "n1/b"); !errors.Is(err, revoked.ErrUnprocessable) ||
		!strings.Contains(err.Error(), "another instance of n1 still has a vote") {
		t.Errorf("second instance of a voter: got %v, want the other instance named", err)
	}
	if err := checkAdd(conf, "n1/c"); !errors.Is(err, revoked.ErrConflict) {
		t.Errorf("third instance: got %v, want %v", err, revoked.ErrConflict)
	}
}
