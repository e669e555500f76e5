package node

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

func TestVotersAreSpreadOverRegions(t *testing.T) {
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
		servers    map[raft.ServerID]*autopilot.ServerState
		candidates []raft.ServerID
		want       []raft.ServerID
	}{
		{"the region without a voter comes first", map[raft.ServerID]*autopilot.ServerState{
			"a": server("east", true), "b": server("east", false), "c": server("west", false),
		}, []raft.ServerID{"b", "c"}, []raft.ServerID{"c", "b"}},
		{"each promotion counts for the next", map[raft.ServerID]*autopilot.ServerState{
			"a": server("east", true), "b": server("west", false), "c": server("west", false), "d": server("east", false), "e": server("north", false),
		}, []raft.ServerID{"b", "c", "d", "e"}, []raft.ServerID{"b", "e", "c", "d"}},
		{"there are never more than seven", map[raft.ServerID]*autopilot.ServerState{
			"1": server("x", true), "2": server("x", true), "3": server("x", true), "4": server("x", true), "5": server("x", true), "6": server("x", true),
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
