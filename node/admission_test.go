package node_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"revoked/node"
	"revoked/node/nodetest"
)

// adminCall calls m as the administrator and fails the test unless the status is want.
func adminCall(t *testing.T, m *nodetest.Member, method, path, body string, want int) nodetest.Reply {
	t.Helper()
	r := m.Decided(func() nodetest.Reply { return m.JSON(method, path, "admin", body) })
	if r.Status != want {
		t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, r.Status, r.Body, want)
	}
	return r
}

// nodeState returns the state of a node in the list of m, "" if it is not listed.
func nodeState(t *testing.T, m *nodetest.Member, name string) string {
	t.Helper()
	var list struct {
		Nodes []struct{ Node, State string }
	}
	r := adminCall(t, m, "GET", "/v1/cluster/admitted", "", http.StatusOK)
	if err := json.Unmarshal([]byte(r.Body), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list.Nodes {
		if n.Node == name {
			return n.State
		}
	}
	return ""
}

func TestAdmission_AnyNode_ShowsSameState(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	by := c.Follower()
	adminCall(t, by, "POST", "/v1/cluster/admit", `{"node":"node9","ttl":"2h"}`, 200)
	made := adminCall(t, by, "POST", "/v1/cluster/join-tokens", `{"node":"node8"}`, 201)
	var token struct{ ID, Token string }
	if err := json.Unmarshal([]byte(made.Body), &token); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members { // final: every node shows it immediately
		if got := nodeState(t, m, "node9"); got != "admitted" {
			t.Errorf("%s: got state %q of node9, want admitted", m.ID, got)
		}
		if got := nodeState(t, m, "node1"); got != "member" {
			t.Errorf("%s: got state %q of node1, want member", m.ID, got)
		}
		list := adminCall(t, m, "GET", "/v1/cluster/join-tokens", "", 200)
		if !strings.Contains(list.Body, token.ID) || strings.Contains(list.Body, token.Token) {
			t.Errorf("%s: got %s, want the id without the token", m.ID, list.Body)
		}
	}
	if r := adminCall(t, by, "DELETE", "/v1/cluster/admit/node1", "", 409); !strings.Contains(r.Body, "remove") {
		t.Errorf("withdrawal of a member: got %s, want an answer that mentions remove", r.Body)
	}
	adminCall(t, by, "POST", "/v1/cluster/admit", `{"node":"node1"}`, 409)
	adminCall(t, by, "DELETE", "/v1/cluster/admit/nodeX", "", 404)
	for range 2 {
		adminCall(t, by, "DELETE", "/v1/cluster/admit/node9", "", 200)
		adminCall(t, by, "DELETE", "/v1/cluster/join-tokens/"+token.ID, "", 200)
	}
	if got := nodeState(t, c.Leader(), "node9"); got != "" {
		t.Errorf("withdrawn: got state %q, want none", got)
	}
}

// Autopilot promotes all healthy non-voters in one step. So if the new node votes, autopilot has
// passed over the demoted one.
func TestDemote_HealthyMember_IsNotPromotedAgain(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	m := c.Follower()
	adminCall(t, m, "POST", "/v1/cluster/demote", `{"node":"`+m.ID+`"}`, 200)
	fourth := joinNew(t, c)
	c.Until("the fourth node votes", func() bool { return members(t, c)[fourth.ID].Voter })
	c.Until("the demoted node has no vote", func() bool { return !members(t, c)[m.ID].Voter })
	adminCall(t, m, "POST", "/v1/cluster/promote", `{"node":"`+m.ID+`"}`, 200)
	c.Until("the promoted node votes", func() bool { return members(t, c)[m.ID].Voter })
	adminCall(t, m, "POST", "/v1/cluster/demote", `{"node":"nodeX"}`, 404)
}

// A refused demotion must not take effect later, when the cluster could tolerate it.
func TestDemote_Refused_ChangesNothing(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) { conf.NonVoter = k == 1 }})
	only := c.Members[0]
	r := adminCall(t, only, "POST", "/v1/cluster/demote", `{"node":"node1"}`, 409)
	if !strings.Contains(r.Body, "quorum") {
		t.Errorf("got %s, want an answer that mentions the quorum", r.Body)
	}
	r = adminCall(t, only, "GET", "/v1/cluster/admitted", "", 200)
	if !strings.Contains(r.Body, `{"node":"node1","non_voter":false,"state":"member","expires_at":null`) {
		t.Errorf("got %s, want a member with non_voter false", r.Body)
	}
}
