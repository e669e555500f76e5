package node_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked/node"
	"revoked/node/nodetest"
)

func joinToken(t *testing.T, c *nodetest.Cluster, body string) string {
	t.Helper()
	m := c.Leader()
	r := m.Decided(func() nodetest.Reply {
		return m.JSON(http.MethodPost, "/v1/cluster/join-tokens", "admin", body)
	})
	_, rest, ok := strings.Cut(r.Body, `"token":"`)
	token, _, ok2 := strings.Cut(rest, `"`)
	if r.Status != http.StatusCreated || !ok || !ok2 {
		t.Fatalf("join token: got %d %s, want 201", r.Status, r.Body)
	}
	return token
}

func wantRefused(t *testing.T, r nodetest.Reply, m *nodetest.Member) {
	t.Helper()
	text := m.ID + " is not admitted: admit it with `revoked admit " + m.ID + "`, or give it a join token"
	if r.Status != http.StatusForbidden || !strings.Contains(r.Body, text) {
		t.Errorf("join of %s: got %d %s, want 403: %s", m.ID, r.Status, r.Body, text)
	}
}

// A certificate of the cluster's CA does not suffice to join the cluster.
func TestJoin_NotAdmitted_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	m := c.Add()
	m.Start()
	for _, through := range c.Members[:3] {
		wantRefused(t, decidedJoin(m, through), m)
	}
	if got := len(members(t, c)); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
	c.Admit(m)
	mustJoin(t, m, c.Members[0])
}

// A node that may not have received a client yet never answers 401 to credentials that may be
// right, because 401 is final.
func TestNoCluster_Credentials_Get503(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	m := c.Add()
	m.Start()
	token := url.Values{"token": {"any"}}
	for _, client := range []string{"rs", "app", "unknown"} {
		for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke"} {
			if r := m.Form(path, client, token); r.Status != http.StatusServiceUnavailable {
				t.Errorf("%s as %s: got %d %s, want 503", path, client, r.Status, r.Body)
			}
		}
		if r := m.JSON(http.MethodGet, "/v1/status", client, ""); r.Status != http.StatusServiceUnavailable {
			t.Errorf("/v1/status as %s: got %d %s, want 503", client, r.Status, r.Body)
		}
	}
	c.Admit(m)
	mustJoin(t, m, c.Members[0])
	unknown := m.Decided(func() nodetest.Reply { return m.Form("/oauth2/revoke", "unknown", token) })
	if unknown.Status != http.StatusUnauthorized {
		t.Errorf("unknown client of a member: got %d %s, want 401", unknown.Status, unknown.Body)
	}
}

// The certificate of a removed node, with an empty directory or with --rejoin, does not admit a
// node. This holds for an initial member and for a node that used an admission.
func TestJoin_RemovedOrLeft_NeedsNewAdmission(t *testing.T) {
	t.Parallel()
	var rejoin bool
	c := nodetest.Start(t, nodetest.Options{Nodes: 4, Node: func(_ int, conf *node.Config) { conf.Rejoin = rejoin }})
	initial, removed, left := c.Members[3], c.Add(), c.Add()
	for _, m := range []*nodetest.Member{removed, left} {
		m.Start()
		c.Admit(m)
		mustJoin(t, m, c.Members[0])
	}
	for _, m := range []*nodetest.Member{initial, removed} {
		m.Stop()
		c.Until(m.ID+" is silent", func() bool { return !members(t, c)[m.ID].Alive })
		remove := func() nodetest.Reply {
			return c.Leader().JSON(http.MethodPost, "/v1/cluster/remove", "admin", `{"node":"`+m.ID+`"}`)
		}
		c.Until(m.ID+" is removed", func() bool {
			s := remove().Status
			return s == http.StatusOK || s == http.StatusNotFound
		})
		m.Wipe()
	}
	c.Until("the other leaves", func() bool {
		select {
		case <-left.Node.Done(): // the answer was lost
			return true
		default:
			left.JSON(http.MethodPost, "/v1/cluster/leave", "admin", `{}`)
			return false
		}
	})
	left.Stop()
	rejoin = true
	ended := []*nodetest.Member{initial, removed, left}
	for _, m := range ended {
		m.Start()
		wantRefused(t, decidedJoin(m, c.Members[0]), m)
	}
	if got := len(members(t, c)); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
	for _, m := range ended {
		c.Admit(m)
		mustJoin(t, m, c.Members[0])
	}
}

// A node with a join token in its settings joins when it starts.
func TestJoin_Token_AdmitsOneNode(t *testing.T) {
	t.Parallel()
	tokens := map[string]string{}
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(_ int, conf *node.Config) {
		conf.JoinToken = tokens[conf.NodeID]
	}})
	m, other, third := c.Add(), c.Add(), c.Add()
	tokens[m.ID] = joinToken(t, c, `{"non_voter":true}`)
	tokens[other.ID] = tokens[m.ID]
	tokens[third.ID] = joinToken(t, c, `{"node":"`+other.ID+`"}`)
	for _, n := range []*nodetest.Member{m, other, third} {
		n.Start()
	}
	mustJoin(t, m, c.Members[0])
	wantRefused(t, decidedJoin(other, c.Members[0]), other) // used
	wantRefused(t, decidedJoin(third, c.Members[0]), third) // for another node
	c.Admit(third)
	mustJoin(t, third, c.Members[0])
	c.Until("the third node votes", func() bool { return members(t, c)[third.ID].Voter })
	if members(t, c)[m.ID].Voter {
		t.Error("node with a non-voter token: got a voter, want a replica")
	}
	other.Stop()
	third.Stop()
	for _, o := range []*nodetest.Member{m, c.Members[0]} {
		for _, name := range []string{"raft.db", "identity.json"} {
			b, err := os.ReadFile(filepath.Join(o.Dir, "data", name))
			if err == nil && strings.Contains(string(b), tokens[m.ID]) {
				t.Errorf("%s of %s contains the token, want only its digest", name, o.ID)
			}
		}
	}
}
