package node_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
	"revoked/internal/testjwt"
	"revoked/node"
	"revoked/node/jwt"
	"revoked/node/nodepb"
	"revoked/node/nodetest"
)

// While a member of version 0.3 is present, the leader proposes nothing that it cannot apply. Once
// the log has commands of version 2, no node can pretend to be such a member.
func TestOldMember_UntilUpgraded_LimitsTheCluster(t *testing.T) {
	t.Parallel()
	var log logLines
	old := map[string]bool{"node3": true}
	c := nodetest.Start(t, nodetest.Options{Log: log.handler(), Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID == "node3" // it must not lead
		if old[conf.NodeID] {
			conf.Announce(1)
		}
	}})
	third := thief{c, c.Members[2]}
	written := 0
	write := func() {
		t.Helper()
		written++
		body := fmt.Sprintf(`{"client_id":"app","access_token":{"token":"written-%d"}}`, written)
		c.Until("a write", func() bool {
			return c.Leader().JSON(http.MethodPost, "/v1/grants", "issuer", body).Status < 300
		})
	}
	names422 := func(path, body string) { t.Helper(); namesOld(t, c, c.Leader, "node3", path, body) }
	names422("/v1/cluster/admit", `{"node":"node9"}`)
	names422("/v1/cluster/join-tokens", `{}`)
	names422("/v1/cluster/demote", `{"node":"node2"}`)
	write()
	if got := c.Leader().Node.LogVersion(); got != 1 {
		t.Errorf("log with an old member: got version %d, want 1", got)
	}
	unnamed := &nodepb.AdminRequest{Kind: nodepb.AdminRequest_REMOVE, Node: "nodeX"}
	c.Until("a leader with a report of the old member takes its change without a caller", func() bool {
		return errors.Is(third.call(nodepb.PathAdmin, unnamed), revoked.ErrNotFound)
	})
	thief{c, c.Members[0]}.onlyFollower().want(revoked.ErrForbidden, "change without a caller, from a new member",
		nodepb.PathAdmin, unnamed)

	fresh, oldJoiner := c.Add(), c.Add()
	old[oldJoiner.ID] = true
	for _, m := range []*nodetest.Member{fresh, oldJoiner} {
		m.Start()
		mustJoin(t, m, c.Members[0]) // without an admission
	}
	c.Until("a warning in the log names node3", func() bool {
		return log.has("admission is not enforced", "node=node3")
	})

	clear(old) // the upgrade
	c.Members[2].Restart()
	oldJoiner.Restart()
	c.WaitReady()
	c.Until("the log has the newest rules", func() bool { write(); return c.Leader().Node.LogVersion() == command.Rules })
	late := c.Add()
	old["node3"], old[late.ID] = true, true // node3 reports an old version falsely
	c.Members[2].Restart()
	late.Start()
	r := decidedJoin(late, c.Members[0])
	if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, late.ID+" runs version") {
		t.Errorf("join of an old node: got %d %s, want 422 that names it", r.Status, r.Body)
	}
	third.want(revoked.ErrForbidden, "change without a caller, after the upgrade", nodepb.PathAdmin, unnamed)
	c.Until("a node is admitted whatever node3 reports", func() bool {
		r := c.Leader().JSON(http.MethodPost, "/v1/cluster/admit", "admin", `{"node":"node9"}`)
		if r.Status != http.StatusOK && r.Status != http.StatusServiceUnavailable {
			t.Fatalf("admit: got %d %s, want 200", r.Status, r.Body)
		}
		return r.Status == http.StatusOK
	})
}

// onlyFollower returns a thief at a voter that does not lead.
func (th thief) onlyFollower() thief {
	if leader := th.c.Leader(); leader == th.m {
		th.m = th.c.Members[1]
	}
	return th
}

// While a member supports commands up to version 2 only, the leader refuses operations of trusted
// issuers with a 422 that contains that member's name. After the upgrade all succeed. Then a node
// of version 2 cannot join, and a program of version 2 cannot read a snapshot.
func TestOldMember_UntilUpgraded_RefusesIssuers(t *testing.T) {
	t.Parallel()
	given, fetched := newJWTSigner(t, "k1"), newJWTSigner(t, "k2")
	server := newKeyServer(t, fetched.jwks())
	old := map[string]bool{"node3": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.KeyFetch = node.KeyFetchConfig{CAFile: server.ca, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		conf.NonVoter = conf.NodeID == "node3" // it must not lead
		if old[conf.NodeID] {
			conf.Announce(2)
		}
	}})
	const iss, other = "https://as2.example", "https://other.example"
	inline := fmt.Sprintf(`{"name":"as2","issuer":%q,"jwks":%s}`, iss, given.jwks())
	third := thief{c, c.Members[2]}
	for what, op := range issuerOps(t, admin(c), given.jwks()) {
		c.Until("the leader has reports", func() bool {
			var err error
			if op.GetPutIssuerKeys() != nil { // no leader accepts fetched keys from another member
				err = c.Leader().Node.ProposeHere(t.Context(), op)
			} else {
				err = third.call(nodepb.PathSubmit, &nodepb.SubmitRequest{Ops: []*command.Op{op}, Final: true})
			}
			if errors.Is(err, revoked.ErrNoLeader) || err != nil && strings.Contains(err.Error(), "has not reported") {
				return false
			}
			if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), "node3 runs version") {
				t.Errorf("%s: got %v, want %v that names node3", what, err, revoked.ErrUnprocessable)
			}
			return true
		})
	}
	for _, m := range c.Members {
		by := func() *nodetest.Member { return m }
		namesOld(t, c, by, "node3", "/v1/issuers", inline)
		namesOld(t, c, by, "node3", "/v1/revocations", fmt.Sprintf(`{"issuer":%q,"jti":"j1"}`, iss))
		if got := snapshotVersion(t, m); got > 2 {
			t.Errorf("snapshot of %s: got version %d, want at most 2", m.ID, got)
		}
	}

	clear(old) // the upgrade
	third.m.Restart()
	c.WaitReady()
	c.Until("the leader trusts an issuer", func() bool {
		return c.Follower().JSON("POST", "/v1/issuers", "admin", inline).Status == http.StatusCreated
	})
	adminCall(t, c.Leader(), "POST", "/v1/issuers",
		fmt.Sprintf(`{"name":"other","issuer":%q,"jwks_uri":"%s/jwks"}`, other, server.URL), http.StatusCreated)
	kept, ended := fetched.token(other, "j1"), given.token(iss, "j1")
	for _, m := range c.Members {
		c.Until(m.ID+" has the fetched keys", func() bool { return active(t, m, kept) == "true" })
	}
	adminCall(t, third.m, "POST", "/v1/revocations", fmt.Sprintf(`{"issuer":%q,"jti":"j1"}`, iss), http.StatusOK)
	thumbprint := inlineKeys(t, fetched.jwks())[0].Thumbprint
	adminCall(t, third.m, "DELETE", "/v1/issuers/other/keys/"+thumbprint, "", http.StatusOK)
	for _, m := range c.Members {
		for what, token := range map[string]string{"revoked": ended, "of a banned key": kept} {
			if got := active(t, m, token); got != "false" {
				t.Errorf("%s, a token %s: got active %s, want false", m.ID, what, got)
			}
		}
	}
	adminCall(t, third.m, "DELETE", "/v1/issuers/other", "", http.StatusOK)

	late := c.Add()
	old[late.ID] = true
	late.Start()
	r := decidedJoin(late, c.Members[0])
	if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, late.ID+" runs version") {
		t.Errorf("join of a node of version 2: got %d %s, want 422 that names it", r.Status, r.Body)
	}
	for _, m := range c.Members[:3] {
		if got := snapshotVersion(t, m); got != command.Rules {
			t.Errorf("snapshot of %s: got version %d, want %d", m.ID, got, command.Rules)
		}
	}
}

// While a member of version 2 leads, the other members refuse operations that it does not support.
// The leader could only answer that it does not understand them.
func TestOldMember_Leads_OthersRefuseIssuers(t *testing.T) {
	t.Parallel()
	old := map[string]bool{"node1": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID != "node1" // so that it leads
		if old[conf.NodeID] {
			conf.Announce(2)
		}
	}})
	body := fmt.Sprintf(`{"name":"as2","issuer":"https://as2.example","jwks":%s}`, newJWTSigner(t, "k1").jwks())
	for _, m := range c.Members[1:] {
		namesOld(t, c, func() *nodetest.Member { return m }, "node1", "/v1/issuers", body)
	}
	clear(old) // the upgrade
	c.Members[0].Restart()
	c.WaitReady()
	adminCall(t, c.Members[1], "POST", "/v1/issuers", body, http.StatusCreated)
}

// namesOld checks that a call by an administrator gets a 422 that contains the name of the old
// member, once the leader has all reports.
func namesOld(t *testing.T, c *nodetest.Cluster, by func() *nodetest.Member, old, path, body string) {
	t.Helper()
	c.Until("the leader has reports", func() bool {
		r := by().JSON(http.MethodPost, path, "admin", body)
		if r.Status == http.StatusServiceUnavailable || strings.Contains(r.Body, "has not reported") {
			return false
		}
		if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, old+" runs version") {
			t.Errorf("%s at %s: got %d %s, want 422 that names %s", path, by().ID, r.Status, r.Body, old)
		}
		return true
	})
}

// issuerOps returns each operation of command version 3.
func issuerOps(t *testing.T, by revoked.Actor, jwks string) map[string]*command.Op {
	t.Helper()
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer, i.Keys = "as2", "https://as2.example", inlineKeys(t, jwks)
	ops := map[string]*command.Op{
		"PutIssuer":     command.PutIssuerOp(by, &i, 0),
		"DeleteIssuer":  command.DeleteIssuerOp(by, i.Name),
		"PutIssuerKeys": command.PutIssuerKeysOp(i.Name, 1, i.Keys),
		"BanIssuerKey":  command.BanIssuerKeyOp(by, i.Name, i.Keys[0].Thumbprint),
		"RevokeJWT":     command.RevokeJWTOp(by, &revoked.JWT{Issuer: i.Issuer, JTI: "j1"}, ""),
	}
	for what, op := range ops {
		if command.VersionOf(op) != 3 {
			t.Fatalf("%s: got version %d, want 3", what, command.VersionOf(op))
		}
	}
	return ops
}

func inlineKeys(t *testing.T, jwks string) []revoked.IssuerKey {
	t.Helper()
	keys, err := jwt.ParseInline([]byte(jwks))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// snapshotVersion returns the command version that a program needs to read a snapshot of m.
func snapshotVersion(t *testing.T, m *nodetest.Member) uint32 {
	t.Helper()
	r := adminCall(t, m, "GET", "/v1/snapshot", "", http.StatusOK)
	h, err := snapshot.Read(strings.NewReader(r.Body), nil)
	if err != nil {
		t.Fatal(err)
	}
	return h.Commands
}

// While a member does not support the roles operator, viewer and auditor, no client gets one. The
// answer is a 422 that contains the name of that member. After the upgrade every member serves such
// clients. A node of version 3 cannot join, and a program of version 3 cannot read a snapshot.
func TestOldMember_UntilUpgraded_RefusesOperatorRoles(t *testing.T) {
	t.Parallel()
	old := map[string]bool{"node3": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID == "node3" // it must not lead
		if old[conf.NodeID] {
			conf.Announce(3)
		}
	}})
	third := thief{c, c.Members[2]}
	ops := nodetest.Clients()[0]
	ops.ID, ops.Roles = "ops", []revoked.Role{revoked.RoleOperator}
	c.Until("the leader has reports", func() bool {
		err := third.call(nodepb.PathSubmit, &nodepb.SubmitRequest{
			Ops: []*command.Op{command.PutClientOp(admin(c), &ops, 0)}, Final: true})
		if err == nil || strings.Contains(err.Error(), "has not reported") {
			return false
		}
		if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), "node3 runs version") {
			t.Errorf("forwarded: got %v, want %v that names node3", err, revoked.ErrUnprocessable)
		}
		return true
	})
	for _, m := range c.Members {
		by := func() *nodetest.Member { return m }
		namesOld(t, c, by, "node3", "/v1/clients", `{"client_id":"ops","roles":["operator"]}`)
		r := m.JSON(http.MethodPatch, "/v1/clients/app", "admin", `{"roles":["auditor"]}`)
		if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, "node3 runs version") {
			t.Errorf("PATCH at %s: got %d %s, want 422 that names node3", m.ID, r.Status, r.Body)
		}
		if got := snapshotVersion(t, m); got > 2 {
			t.Errorf("snapshot of %s: got version %d, want at most 2", m.ID, got)
		}
	}
	adminCall(t, c.Leader(), "POST", "/v1/clients", `{"client_id":"rs9","roles":["resource_server"]}`, http.StatusCreated)

	clear(old) // the upgrade
	third.m.Restart()
	c.WaitReady()
	secret := strings.Repeat("0123456789abcdef", 2)
	for id, role := range map[string]string{"ops": "operator", "eye": "viewer", "aud": "auditor"} {
		body := fmt.Sprintf(`{"client_id":%q,"roles":[%q],"client_secret":%q}`, id, role, secret)
		c.Until(id+" is created", func() bool {
			return c.Follower().JSON("POST", "/v1/clients", "admin", body).Status == http.StatusCreated
		})
	}
	late := c.Add()
	old[late.ID] = true
	late.Start()
	r := decidedJoin(late, c.Members[0])
	if r.Status != http.StatusUnprocessableEntity || !strings.Contains(r.Body, late.ID+" runs version") {
		t.Errorf("join of a node of version 3: got %d %s, want 422 that names it", r.Status, r.Body)
	}
	for _, m := range c.Members[:3] {
		if got := snapshotVersion(t, m); got != command.Rules {
			t.Errorf("snapshot of %s: got version %d, want %d", m.ID, got, command.Rules)
		}
		if _, ok := m.Node.Client("ops"); !ok {
			t.Errorf("%s: got no client ops, want it", m.ID)
		}
	}
}

// A new cluster whose bootstrap clients have such a role waits until every initial member supports
// it.
func TestOldMember_InitialMember_DelaysTheBootstrap(t *testing.T) {
	t.Parallel()
	var log logLines
	old := map[string]bool{"node3": true}
	ops := nodetest.Clients()[0]
	ops.ID, ops.Roles = "ops", []revoked.Role{revoked.RoleOperator}
	c := nodetest.Start(t, nodetest.Options{Log: log.handler(), NoWait: true, Clients: append(nodetest.Clients(), ops),
		Node: func(_ int, conf *node.Config) {
			conf.NonVoter = conf.NodeID == "node3" // it must not lead
			if old[conf.NodeID] {
				conf.Announce(3)
			}
		}})
	c.Until("a warning in the log names node3", func() bool {
		return log.has("cannot initialize cluster", "node3 runs version")
	})
	for _, m := range c.Members {
		if id := m.Node.NodeStatus(t.Context()).ClusterID; id != "" {
			t.Errorf("%s: got cluster id %q, want none", m.ID, id)
		}
	}
	clear(old) // the upgrade
	c.Members[2].Restart()
	c.WaitReady()
	for _, m := range c.Members {
		if client, ok := m.Node.Client("ops"); !ok || client.Version == 0 || m.Node.LogVersion() < command.Audit {
			t.Errorf("%s: got client %+v and version %d, want it and at least %d", m.ID, client, m.Node.LogVersion(),
				command.Audit)
		}
	}
}

// strongRecords returns bodies that create clients: one for each method, and one for each kind of
// name in a certificate.
func strongRecords(jwks string) map[string]string {
	records := map[string]string{
		"robot": `{"client_id":"robot","roles":["operator"],"auth_methods":["private_key_jwt"],"jwks":` + jwks + `}`,
		"self":  `{"client_id":"self","auth_methods":["self_signed_tls_client_auth"],"jwks":` + jwks + `}`,
		"mixed": `{"client_id":"mixed","auth_methods":["client_secret_basic","private_key_jwt"],"jwks":` + jwks + `}`,
	}
	for name, value := range map[string]string{"subject_dn": "CN=web", "san_dns": "web.example",
		"san_uri": "spiffe://example/web", "san_ip": "192.0.2.1", "san_email": "web@example.org"} {
		records[name] = fmt.Sprintf(`{"client_id":%q,"roles":["viewer"],"auth_methods":["tls_client_auth"],`+
			`"tls_client_auth_%s":%q}`, name, name, value)
	}
	return records
}

// While a member of version 4 is present, no client gets a key or the name of a certificate. The
// answer is a 422 that contains the name of that member. Once that member is upgraded, or has left,
// all calls succeed, and an assertion authenticates at every member.
func TestOldMember_UntilUpgradedOrGone_RefusesKeys(t *testing.T) {
	t.Parallel()
	for ending, end := range map[string]func(*nodetest.Cluster, map[string]bool){
		"upgraded": func(c *nodetest.Cluster, old map[string]bool) {
			clear(old)
			c.Members[2].Restart()
			c.WaitReady()
		},
		"left": func(c *nodetest.Cluster, _ map[string]bool) {
			adminCall(t, c.Members[2], "POST", "/v1/cluster/leave", "{}", http.StatusOK)
		},
	} {
		t.Run(ending, func(t *testing.T) {
			old := map[string]bool{"node3": true}
			c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
				conf.NonVoter = conf.NodeID == "node3" // it must not lead
				if old[conf.NodeID] {
					conf.Announce(4)
				}
			}})
			r := robot{testjwt.NewKey(t, "k")}
			set := fmt.Sprintf(`{"keys":[%s]}`, r.JWK())
			for _, m := range c.Members {
				by := func() *nodetest.Member { return m }
				for _, body := range strongRecords(set) {
					namesOld(t, c, by, "node3", "/v1/clients", body)
				}
				for _, patch := range []string{`{"auth_methods":["private_key_jwt"],"jwks":` + set + `}`,
					`{"auth_methods":["tls_client_auth"],"tls_client_auth_san_dns":"web.example"}`} {
					got := m.JSON(http.MethodPatch, "/v1/clients/app", "admin", patch)
					if got.Status != http.StatusUnprocessableEntity || !strings.Contains(got.Body, "node3 runs version") {
						t.Errorf("PATCH at %s: got %d %s, want 422 that names node3", m.ID, got.Status, got.Body)
					}
				}
				if got := snapshotVersion(t, m); got > 4 {
					t.Errorf("snapshot of %s: got version %d, want at most 4", m.ID, got)
				}
			}
			adminCall(t, c.Leader(), "POST", "/v1/clients", `{"client_id":"ops","roles":["operator"]}`, http.StatusCreated)

			end(c, old)
			members := c.Members[:2]
			if ending == "upgraded" {
				members = c.Members
			}
			for id, body := range strongRecords(set) {
				c.Until(id+" is created", func() bool {
					return members[1].JSON("POST", "/v1/clients", "admin", body).Status == http.StatusCreated
				})
			}
			for _, m := range members {
				got := m.Decided(func() nodetest.Reply {
					return post(t, m, "/oauth2/revoke", assertionForm("t", r.assertion("robot", ending+m.ID)))
				})
				if got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "unauthorized_client") {
					t.Errorf("%s: got %d %s, want the robot authenticated as an operator", m.ID, got.Status, got.Body)
				}
				got = m.Decided(func() nodetest.Reply {
					return post(t, m, "/oauth2/revoke", assertionForm("t", r.assertion("mixed", ending+m.ID)))
				})
				if got.Status != http.StatusOK {
					t.Errorf("%s: got %d %s, want 200", m.ID, got.Status, got.Body)
				}
			}
		})
	}
}

// While a member of version 4 leads, the other members refuse such records, because that leader
// could only answer that it does not understand them.
func TestOldMember_Leads_OthersRefuseKeys(t *testing.T) {
	t.Parallel()
	old := map[string]bool{"node1": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID != "node1" // so that it leads
		if old[conf.NodeID] {
			conf.Announce(4)
		}
	}})
	records := strongRecords(fmt.Sprintf(`{"keys":[%s]}`, testjwt.NewKey(t, "k").JWK()))
	for _, m := range c.Members[1:] {
		for _, body := range records {
			namesOld(t, c, func() *nodetest.Member { return m }, "node1", "/v1/clients", body)
		}
	}
	clear(old) // the upgrade
	c.Members[0].Restart()
	c.WaitReady()
	for _, body := range records {
		adminCall(t, c.Members[1], "POST", "/v1/clients", body, http.StatusCreated)
	}
}
