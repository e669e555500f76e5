package revoked_test

import (
	"fmt"
	"strings"
	"testing"

	"revoked"
)

// Each word lists the members of a region: "+" is a voter that responds, "-" a voter that does not,
// and "." a non-voter.
func TestVotingOf_EachCluster_CountsTolerance(t *testing.T) {
	for cluster, want := range map[string]string{
		"":                "0 of 0 up, quorum 0, 0 nodes and 0 regions may fail:",
		".":               "0 of 0 up, quorum 0, 0 nodes and 0 regions may fail:",
		"+":               "1 of 1 up, quorum 1, 0 nodes and 0 regions may fail: 1/1",
		"++":              "2 of 2 up, quorum 2, 0 nodes and 0 regions may fail: 2/2",
		"+++":             "3 of 3 up, quorum 2, 1 nodes and 0 regions may fail: 3/3",
		"+++.":            "3 of 3 up, quorum 2, 1 nodes and 0 regions may fail: 3/3",
		"++-":             "2 of 3 up, quorum 2, 0 nodes and 0 regions may fail: 2/3",
		"+--":             "1 of 3 up, quorum 2, 0 nodes and 0 regions may fail: 1/3",
		"+ + +":           "3 of 3 up, quorum 2, 1 nodes and 1 regions may fail: 1/1* 1/1* 1/1*",
		"++ +":            "3 of 3 up, quorum 2, 1 nodes and 0 regions may fail: 2/2 1/1*",
		"++ ++ +":         "5 of 5 up, quorum 3, 2 nodes and 1 regions may fail: 2/2* 2/2* 1/1*",
		"+- ++ +":         "4 of 5 up, quorum 3, 1 nodes and 0 regions may fail: 1/2* 2/2 1/1*",
		"+++ + +":         "5 of 5 up, quorum 3, 2 nodes and 0 regions may fail: 3/3 1/1* 1/1*",
		"+ + + + +":       "5 of 5 up, quorum 3, 2 nodes and 2 regions may fail: 1/1* 1/1* 1/1* 1/1* 1/1*",
		"+ + + - -":       "3 of 5 up, quorum 3, 0 nodes and 0 regions may fail: 1/1 1/1 1/1 0/1* 0/1*",
		"+ + - - -":       "2 of 5 up, quorum 3, 0 nodes and 0 regions may fail: 1/1 1/1 0/1 0/1 0/1",
		". . ++ ++ ++ +":  "7 of 7 up, quorum 4, 3 nodes and 1 regions may fail: 2/2* 2/2* 2/2* 1/1*",
		"-- ++ ++ + . .+": "6 of 8 up, quorum 5, 1 nodes and 0 regions may fail: 0/2* 2/2 2/2 1/1* 1/1*",
	} {
		var members []revoked.Member
		for region, nodes := range strings.Fields(cluster) {
			for _, node := range nodes {
				members = append(members, revoked.Member{Region: fmt.Sprint(region), Voter: node != '.', Alive: node != '-'})
			}
		}
		v := revoked.VotingOf(members)
		got := fmt.Sprintf("%d of %d up, quorum %d, %d nodes and %d regions may fail:", v.Up, v.Voters, v.Quorum,
			v.FailureTolerance, v.RegionTolerance)
		for _, r := range v.Regions {
			got += fmt.Sprintf(" %d/%d%s", r.Up, r.Voters, map[bool]string{true: "*"}[r.Survivable])
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", cluster, got, want)
		}
	}
}
