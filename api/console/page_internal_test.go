package console

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestHealth_EachState_IsOneSentence(t *testing.T) {
	for _, tt := range []struct{ name, status, level, want string }{
		{"healthy", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"},
			"voting":{"voters":3,"voters_up":3,"quorum":2,"failure_tolerance":1}}`,
			"good", "Healthy: 3 of 3 voters answer, n1 leads, and 1 may fail."},
		{"one node", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"},
			"voting":{"voters":1,"voters_up":1,"quorum":1,"failure_tolerance":0}}`,
			"warn", "Healthy without a spare: 1 of 1 voters answer, n1 leads, and revocations stop if one fails."},
		{"one of five lost", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"},
			"voting":{"voters":5,"voters_up":4,"quorum":3,"failure_tolerance":1}}`,
			"warn", "4 of 5 voters answer, n1 leads, and 1 more may fail."},
		{"one of three lost", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"},
			"voting":{"voters":3,"voters_up":2,"quorum":2,"failure_tolerance":0}}`,
			"bad", "2 of 3 voters answer, n1 leads, and revocations stop if one more fails."},
		{"no leader", `{"cluster_id":"c","voting":{"voters":3,"voters_up":1,"quorum":2}}`,
			"bad", "No leader: 1 of 3 voters answer and 2 are needed, so every revocation gets 503."},
		{"no leader, no voters", `{"cluster_id":"c"}`,
			"bad", "No leader: this node has no list of voters, so every revocation gets 503."},
		{"a lease delays revocations", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"},"waiting_for":["n2","n3"],
			"voting":{"voters":3,"voters_up":3,"quorum":2,"failure_tolerance":1}}`,
			"bad", "Revocations wait for n2 and n3, which could still answer “active”."},
		{"not ready", `{"cluster_id":"c","leader":{"node_id":"n1"},"reasons":["behind","no lease"]}`,
			"bad", "This node is not ready: behind; no lease."},
		{"voters unknown", `{"cluster_id":"c","healthy":true,"leader":{"node_id":"n1"}}`,
			"warn", "n1 leads, and the voters are unknown."},
		{"no cluster", `{}`, "bad", "This node is not in a cluster yet, so it cannot answer questions about tokens."},
	} {
		var s statusView
		if err := json.Unmarshal([]byte(tt.status), &s); err != nil {
			t.Fatal(err)
		}
		if level, got := s.health(); level != tt.level || got != tt.want {
			t.Errorf("%s: got %s %q, want %s %q", tt.name, level, got, tt.level, tt.want)
		}
	}
}

// The picture shows each node once, within its region and the frame. Its text names each node, too.
func TestDraw_Regions_ContainTheirNodes(t *testing.T) {
	var members []member
	for i := range 8 {
		m := member{NodeID: fmt.Sprintf("n%d", i), Region: []string{"south", "north"}[i%2], Alive: i != 3, Voter: i < 5}
		m.Leader = i == 0
		members = append(members, m)
	}
	p := draw(members)
	if len(p.Regions) != 2 || p.Regions[0].Name != "north" {
		t.Fatalf("got %+v, want two regions by name", p.Regions)
	}
	states := map[string]string{"n0": "leader", "n1": "voter", "n3": "lost", "n5": "non-voter"}
	seen := 0
	for _, r := range p.Regions {
		for _, n := range r.Nodes {
			seen++
			if n.Left < 0 || n.Right > p.Width || n.Top < r.Y || n.SubY > r.Y+r.Height || r.Y+r.Height > p.Height {
				t.Errorf("%s: got %+v outside of %+v", n.ID, n, r)
			}
			if want := states[n.ID]; want != "" && n.State != want {
				t.Errorf("%s: got %s, want %s", n.ID, n.State, want)
			}
			if !strings.Contains(p.Text, n.ID+" "+n.State) {
				t.Errorf("got the text %q without %s", p.Text, n.ID)
			}
		}
	}
	if seen != len(members) {
		t.Errorf("got %d nodes, want %d", seen, len(members))
	}
}

// A lineTail keeps the newest lines of a stream, regardless of the parts in which the stream
// arrives.
func TestLineTail_AnyParts_KeepsTheEnd(t *testing.T) {
	var all strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	for _, part := range []int{1, 7, 100, 1 << 20} {
		tail := lineTail{limit: 3}
		for rest := all.String(); rest != ""; {
			n := min(part, len(rest))
			tail.write([]byte(rest[:n]))
			rest = rest[n:]
		}
		var got []string
		for _, line := range tail.last() {
			got = append(got, string(line))
		}
		if want := "line 999,line 998,line 997"; strings.Join(got, ",") != want {
			t.Errorf("parts of %d: got %v, want %s", part, got, want)
		}
		if len(tail.lines) > 6 {
			t.Errorf("parts of %d: got %d lines in memory, want at most 6", part, len(tail.lines))
		}
	}
}
