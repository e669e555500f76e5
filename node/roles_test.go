package node_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/nodetest"
)

// withStaff starts a cluster with a client of each role of command version 4: ops, eye and aud.
func withStaff(t *testing.T, o nodetest.Options) *nodetest.Cluster {
	t.Helper()
	o.Clients = nodetest.Clients()
	for id, role := range map[string]revoked.Role{
		"ops": revoked.RoleOperator, "eye": revoked.RoleViewer, "aud": revoked.RoleAuditor} {
		client := o.Clients[0]
		client.ID, client.Roles = id, []revoked.Role{role}
		o.Clients = append(o.Clients, client)
	}
	return nodetest.Start(t, o)
}

// The leader decides by its own state about each change that a member forwards, whatever that
// member has checked. An operator may change only the membership and the settings. Viewers and
// auditors may not change anything.
func TestForwarded_ChangesByRole_TheLeaderDecides(t *testing.T) {
	t.Parallel()
	c := withStaff(t, nodetest.Options{})
	th := thief{c, c.Follower()}
	by := func(id string) revoked.Actor {
		client, ok := th.m.Node.Client(id)
		if !ok {
			t.Fatalf("client %s: got none, want one", id)
		}
		actor := revoked.ActorOf(client)
		actor.Admin = true // a false claim for all but one
		return actor
	}
	issuer := revoked.DefaultIssuer()
	issuer.Name, issuer.Issuer, issuer.JWKSURI = "as2", "https://as2.example", "https://as2.example/jwks"
	for _, id := range []string{"aud", "eye", "issuer", "resource_server", "app", "ops", "admin"} {
		operates := id == "ops" || id == "admin"
		mallory := nodetest.Clients()[0]
		mallory.ID = "mallory-" + id
		own, _ := th.m.Node.Client(id)
		promoted := *own
		promoted.Roles = []revoked.Role{revoked.RoleAdmin}
		settings := c.Leader().Node.Settings()
		for what, row := range map[string]struct {
			op    *command.Op
			works bool
		}{
			"settings":  {command.PutSettingsOp(by(id), settings, settings.Version), operates},
			"admission": {command.AdmitNodeOp(by(id), "node9", false, time.Hour), operates},
			"bar":       {command.BarNodeOp(by(id), "node8", "why"), operates},
			"voting":    {command.SetVotingOp(by(id), "node7", true, 0), operates},
			"join token": {command.CreateJoinTokenOp(by(id),
				&revoked.JoinToken{ID: id, Hash: revoked.DigestToken(id)}, time.Hour), operates},
			"new client": {command.PutClientOp(by(id), &mallory, 0), id == "admin"},
			"deletion":   {command.DeleteClientOp(by(id), "other_app"), id == "admin"},
			"issuer":     {command.PutIssuerOp(by(id), &issuer, 0), id == "admin"},
			"cut-off":    {command.CutoffOp(by(id), revoked.Selector{Subject: "nobody"}, 0, ""), id == "admin"},
		} {
			want := revoked.ErrForbidden
			if row.works {
				want = nil
			}
			th.want(want, what+" by "+id, nodepb.PathSubmit, &nodepb.SubmitRequest{Ops: []*command.Op{row.op}, Final: true})
		}
		if id != "admin" {
			th.want(revoked.ErrForbidden, "own promotion by "+id, nodepb.PathSubmit, &nodepb.SubmitRequest{
				Ops: []*command.Op{command.PutClientOp(by(id), &promoted, own.Version)}, Final: true})
		}
		for _, kind := range []nodepb.AdminRequest_Kind{nodepb.AdminRequest_REMOVE, nodepb.AdminRequest_PROMOTE,
			nodepb.AdminRequest_DEMOTE, nodepb.AdminRequest_TRANSFER} {
			req := &nodepb.AdminRequest{Kind: kind, Node: "nodeX", Actor: command.ActorMessage(by(id))}
			err := th.call(nodepb.PathAdmin, req)
			named := errors.Is(err, revoked.ErrForbidden) && strings.HasSuffix(err.Error(), "needs the role admin or operator")
			if operates && !errors.Is(err, revoked.ErrNotFound) || !operates && !named {
				t.Errorf("%s by %s: got %v, want allowed %v", kind, id, err, operates)
			}
		}
	}
}

// Every node serves the calls by an operator, a viewer and an auditor, and refuses the others with
// 403 before it calls the leader.
func TestStaff_AtEveryNode_ServedByRole(t *testing.T) {
	t.Parallel()
	c := withStaff(t, nodetest.Options{})
	for _, m := range c.Members {
		for _, row := range []struct {
			method, path, body string
			status             map[string]int // by client; others: 403
		}{
			{"GET", "/v1/members", "", map[string]int{"ops": 200, "eye": 200}},
			{"GET", "/v1/status", "", map[string]int{"ops": 200, "eye": 200}},
			{"GET", "/v1/settings", "", map[string]int{"ops": 200, "eye": 200}},
			{"PATCH", "/v1/settings", `{"secret_grace":"25h"}`, map[string]int{"ops": 200}},
			{"POST", "/v1/cluster/admit", `{"node":"node9"}`, map[string]int{"ops": 200}},
			{"DELETE", "/v1/cluster/admit/node9", "", map[string]int{"ops": 200}},
			{"GET", "/v1/cluster/admitted", "", map[string]int{"ops": 200}},
			{"POST", "/v1/cluster/promote", fmt.Sprintf(`{"node":%q}`, m.ID), map[string]int{"ops": 200}},
			{"GET", "/v1/snapshot", "", map[string]int{"ops": 200}},
			{"POST", "/v1/explain", `{"token":"x"}`, map[string]int{"eye": 200}},
			{"GET", "/v1/revocations", "", map[string]int{"aud": 200}},
			{"GET", "/v1/clients", "", nil}, {"POST", "/v1/clients", `{"client_id":"new"}`, nil},
			{"POST", "/v1/revocations", `{"subject":"nobody"}`, nil}, {"GET", "/v1/issuers", "", nil},
		} {
			for _, who := range []string{"ops", "eye", "aud"} {
				want := http.StatusForbidden
				if s, ok := row.status[who]; ok {
					want = s
				}
				r := m.Decided(func() nodetest.Reply { return m.JSON(row.method, row.path, who, row.body) })
				if r.Status != want {
					t.Errorf("%s %s at %s as %s: got %d %s, want %d", row.method, row.path, m.ID, who, r.Status, r.Body, want)
				}
			}
		}
	}
}

// An operator grows and shrinks the cluster. It admits a node, and makes the node join and leave
// with the credentials of the node's own bootstrap clients. A viewer may do none of this.
func TestStaff_Operator_GrowsAndShrinks(t *testing.T) {
	t.Parallel()
	c := withStaff(t, nodetest.Options{})
	late := c.Add()
	late.Start()
	call := func(m *nodetest.Member, who, path, body string, want int) {
		t.Helper()
		r := m.Decided(func() nodetest.Reply { return m.JSON(http.MethodPost, path, who, body) })
		if r.Status != want {
			t.Fatalf("%s at %s as %s: got %d %s, want %d", path, m.ID, who, r.Status, r.Body, want)
		}
	}
	join := fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr())
	// A node that is not in a cluster cannot check whether the role has been granted since.
	if r := late.JSON(http.MethodPost, "/v1/cluster/join", "eye", join); r.Status != http.StatusServiceUnavailable {
		t.Errorf("join by a viewer: got %d %s, want 503", r.Status, r.Body)
	}
	call(c.Follower(), "ops", "/v1/cluster/admit", fmt.Sprintf(`{"node":%q}`, late.ID), http.StatusOK)
	r := late.Decided(func() nodetest.Reply { return late.JSON(http.MethodPost, "/v1/cluster/join", "ops", join) })
	if r.Status != http.StatusOK && r.Status != http.StatusConflict { // the answer was lost
		t.Fatalf("join: got %d %s, want 200", r.Status, r.Body)
	}
	c.Until("the node is a member", func() bool { return len(members(t, c)) == 4 })
	call(late, "eye", "/v1/cluster/leave", "{}", http.StatusForbidden)
	call(late, "ops", "/v1/cluster/leave", "{}", http.StatusOK)
	c.Until("the node has left", func() bool { return len(members(t, c)) == 3 })
}
