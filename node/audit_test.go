package node_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"revoked"
	"revoked/fsm/command"
	"revoked/node"
	"revoked/node/nodetest"
)

// auditLines returns the audit log of a member.
func auditLines(m *nodetest.Member, query string) []string {
	r := m.Decided(func() nodetest.Reply { return m.JSON(http.MethodGet, "/v1/audit?"+query, "admin", "") })
	return strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n")
}

// An auditLine is the part of an entry that these tests compare.
type auditLine struct {
	Index             uint64
	Kind, Actor, Node string
	RequestID         string `json:"request_id"`
	Outcome, Detail   string
	Object            map[string]any
}

func parseLine(t *testing.T, line string) (e auditLine) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	return e
}

// send retries a request until the cluster has decided. It returns the request id of the last
// attempt.
func send(t *testing.T, m *nodetest.Member, n *int, method, path, client, body string) (id string, status int) {
	t.Helper()
	r := m.Decided(func() nodetest.Reply {
		*n++
		id = fmt.Sprintf("test-%d", *n)
		req, err := http.NewRequest(method, m.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		req.Header.Set("X-Request-Id", id)
		req.SetBasicAuth(client, nodetest.Secret)
		return m.Do(req)
	})
	return id, r.Status
}

// Contract 6, "Audit entry": every member has the same entries, and a restart loses none. Each
// entry names the node that received the call. Accepted and refused calls leave one entry each.
func TestAudit_Cluster_SameEntriesEverywhere(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	calls := 0
	want := map[string]string{} // by request id
	token, _ := register(t, c.Members[0], "a")
	for _, step := range []struct{ method, path, body, want string }{
		{http.MethodPost, "/v1/clients", `{"client_id":"ops","roles":["operator"]}`, "client.create done roles=operator"},
		{http.MethodPost, "/v1/clients", `{"client_id":"ops"}`, "client.create refused conflict"},
		{http.MethodPatch, "/v1/clients/ops", `{"roles":["viewer"]}`, "client.update done roles=viewer"},
		{http.MethodDelete, "/v1/clients/ops", ``, "client.delete done"},
		{http.MethodDelete, "/v1/clients/ops", ``, "client.delete done no change"},
		{http.MethodPatch, "/v1/settings", `{"secret_grace":"1h"}`, "settings.update done secret_grace=1h"},
		{http.MethodPost, "/v1/revocations", `{"subject":"bob"}`, "cutoff.create done"},
		{http.MethodPost, "/v1/cluster/admit", `{"node":"node9"}`, "cluster.admit done"},
		{http.MethodDelete, "/v1/cluster/admit/node9", ``, "cluster.bar done"},
		{http.MethodDelete, "/v1/cluster/admit/node8", ``, "cluster.bar refused not_found"},
		{http.MethodPost, "/v1/cluster/join-tokens", `{}`, "cluster.token done created"},
		{http.MethodPost, "/v1/cluster/remove", `{"node":"node8"}`, "cluster.remove refused not_found"},
		{http.MethodPost, "/v1/cluster/promote", `{"node":"node1"}`, "cluster.promote done no change"},
		{http.MethodGet, "/v1/snapshot", ``, "snapshot.save done"},
	} {
		for _, m := range []*nodetest.Member{c.Members[calls%3]} {
			id, status := send(t, m, &calls, step.method, step.path, "admin", step.body)
			if refused := strings.Contains(step.want, "refused"); refused != (status >= 400) {
				t.Errorf("%s %s: got %d, want %q", step.method, step.path, status, step.want)
			}
			want[id] = m.ID + " admin " + step.want
		}
	}
	revoke(t, c.Follower(), token)
	check := func(when string) {
		t.Helper()
		first := auditLines(c.Members[0], "")
		got := map[string]string{}
		tokens := 0
		for i, line := range first {
			e := parseLine(t, line)
			switch {
			case i == 0 && (e.Actor != revoked.ActorBootstrap || e.Kind != string(revoked.AuditSettingsUpdate)):
				t.Errorf("%s: first entry: got %s, want the bootstrap", when, line)
			case e.Kind == string(revoked.AuditTokenRevoke):
				tokens++
			case got[e.RequestID] != "":
				t.Errorf("%s: got a second entry %s, want one", when, line)
			case strings.HasPrefix(e.RequestID, "test-"):
				got[e.RequestID] = strings.TrimSpace(fmt.Sprint(e.Node, " ", e.Actor, " ", e.Kind, " ", e.Outcome, " ", e.Detail))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || tokens != 1 {
			t.Errorf("%s: got %v and %d revocations, want %v and 1", when, got, tokens, want)
		}
		for _, m := range c.Members[1:] {
			if lines := auditLines(m, ""); !slices.Equal(lines, first) {
				t.Errorf("%s: %s: got %d entries that differ, want %d", when, m.ID, len(lines), len(first))
			}
		}
	}
	check("before restarts")
	for _, m := range c.Members {
		m.Restart()
	}
	c.WaitReady()
	check("after restarts")
}

// Changes of the membership leave one entry each, with the caller that requested them.
func TestAudit_MembershipChange_LeavesOneEntry(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) { patient(conf) }})
	m := c.Add()
	c.Admit(m)
	m.Start()
	mustJoin(t, m, c.Members[0])
	c.WaitReady()
	calls := 0
	demoted, _ := send(t, c.Members[0], &calls, http.MethodPost, "/v1/cluster/demote", "admin", `{"node":"`+m.ID+`"}`)
	moved, _ := send(t, c.Members[0], &calls, http.MethodPost, "/v1/cluster/transfer-leader", "admin", `{}`)
	left, status := send(t, m, &calls, http.MethodPost, "/v1/cluster/leave", "admin", ``)
	if status != http.StatusOK {
		t.Fatalf("leave: got %d, want 200", status)
	}
	gone := c.Follower()
	gone.Stop()
	c.Until(gone.ID+" is silent", func() bool { return !members(t, c)[gone.ID].Alive })
	removed, _ := send(t, c.Leader(), &calls, http.MethodPost, "/v1/cluster/remove", "admin",
		`{"node":"`+gone.ID+`","force":true,"reason":"disk"}`)
	byID, joins := map[string][]auditLine{}, 0
	for _, line := range auditLines(c.Leader(), "") {
		e := parseLine(t, line)
		byID[e.RequestID] = append(byID[e.RequestID], e)
		if e.Kind == string(revoked.AuditClusterJoin) && e.Object["node"] == m.ID && e.Actor == revoked.ActorCluster {
			joins++
		}
	}
	for id, kind := range map[string]revoked.AuditKind{
		demoted: revoked.AuditClusterDemote, moved: revoked.AuditClusterTransfer, left: revoked.AuditClusterLeave,
		removed: revoked.AuditClusterRemove,
	} {
		if list := byID[id]; len(list) != 1 || list[0].Kind != string(kind) || list[0].Actor != "admin" {
			t.Errorf("%s: got %+v, want one entry of admin", kind, list)
		}
	}
	if joins != 1 {
		t.Errorf("joins of %s: got %d entries, want 1", m.ID, joins)
	}
}

// A revocation through a node with an old member succeeds and leaves no entry. After the upgrade it
// leaves one.
func TestAudit_OldMember_RevocationsSucceed(t *testing.T) {
	t.Parallel()
	old := map[string]bool{"node3": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID == "node3" // it must not lead
		if old[conf.NodeID] {
			conf.Announce(4)
		}
	}})
	revokeUnknown := func(m *nodetest.Member) {
		t.Helper()
		r := m.Decided(func() nodetest.Reply { return m.Form("/oauth2/revoke", "app", url.Values{"token": {"ghost"}}) })
		if r.Status != http.StatusOK {
			t.Fatalf("revoke at %s: got %d %s, want 200", m.ID, r.Status, r.Body)
		}
	}
	for _, m := range c.Members {
		revokeUnknown(m)
	}
	version, lines := c.Leader().Node.LogVersion(), auditLines(c.Members[0], "")
	if version >= command.Audit || len(lines) != 1 || lines[0] != "" {
		t.Errorf("with an old member: got version %d and %q, want no entry", version, lines)
	}
	clear(old)
	c.Members[2].Restart()
	c.WaitReady()
	c.Until("the log has audited entries", func() bool {
		revokeUnknown(c.Members[0])
		return c.Leader().Node.LogVersion() >= command.Audit
	})
	before := len(auditLines(c.Members[0], ""))
	revokeUnknown(c.Members[2])
	if n := len(auditLines(c.Members[1], "")) - before; n != 1 {
		t.Errorf("after the upgrade: got %d more entries, want 1", n)
	}
}

// entriesAbout returns the entries about a node, from the cluster itself or from calls by an
// administrator.
func entriesAbout(t *testing.T, c *nodetest.Cluster, node string) (list []string) {
	t.Helper()
	for _, line := range auditLines(c.Leader(), "object="+node) {
		if line != "" {
			e := parseLine(t, line)
			list = append(list, strings.TrimSpace(fmt.Sprint(e.Actor, " ", e.Kind, " ", e.Outcome, " ", e.Detail)))
		}
	}
	return list
}

// The cluster leaves one entry for each change that it makes by itself. The changes are a
// promotion, a new address, a replaced instance and its promotion, and a demotion.
func TestAudit_ClusterActs_OneEntryEach(t *testing.T) {
	t.Parallel()
	replica := ""
	setup := func(_ int, conf *node.Config) { conf.NonVoter = conf.NodeID == replica }
	c := nodetest.Start(t, nodetest.Options{Node: setup})
	m := c.Add()
	c.Admit(m)
	m.Start()
	mustJoin(t, m, c.Members[0])
	voter := func(want bool) func() bool { return func() bool { return members(t, c)[m.ID].Voter == want } }
	c.Until("the new node votes", voter(true))
	first := string(m.Node.Server())
	m.Stop()
	was := m.ClusterAddr()
	m.Move()
	now := m.ClusterAddr()
	m.Start()
	c.Until("the members have the new address", func() bool { return members(t, c)[m.ID].Cluster == now })
	c.WaitReady()
	m.Stop()
	m.Wipe()
	m.Start()
	mustJoin(t, m, c.Members[0])
	c.Until("the new instance votes", func() bool { return len(entriesAbout(t, c, m.ID)) == 7 })
	second := string(m.Node.Server())
	replica = m.ID
	m.Restart()
	c.Until("the new node is demoted", voter(false))
	c.WaitReady()
	instance := func(server string) string { return strings.TrimPrefix(server, m.ID+"/") }
	want := []string{
		"admin cluster.admit done", "cluster cluster.join done", "cluster cluster.promote done it had caught up",
		"cluster cluster.join done address " + now + ", was " + was,
		"cluster cluster.join done new instance " + instance(second) + ", in addition to " + instance(first),
		"cluster cluster.remove done instance " + instance(first) + ", replaced by " + instance(second),
		"cluster cluster.promote done it had caught up", "cluster cluster.demote done configured as a non-voter",
	}
	c.Until("the last change has its entry", func() bool { return len(entriesAbout(t, c, m.ID)) >= len(want) })
	if got := entriesAbout(t, c, m.ID); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// If a leader fails between a change of the configuration and its audit entry, the next leader
// writes the entry exactly once. The actor of the entry is the cluster, or the administrator whose
// call continues.
func TestAudit_LeaderFailsBeforeTheEntry_OneEntry(t *testing.T) {
	t.Parallel()
	var refuse atomic.Pointer[func([]command.NotedMember) bool]
	c := nodetest.Start(t, nodetest.Options{Nodes: 4, Node: func(_ int, conf *node.Config) {
		patient(conf)
		conf.RefuseMembers(func(list []command.NotedMember) bool { f := refuse.Load(); return f != nil && (*f)(list) })
	}})
	refuseVote := func(node string, voter bool) {
		f := func(list []command.NotedMember) bool {
			return slices.ContainsFunc(list, func(v command.NotedMember) bool {
				return strings.HasPrefix(v.Server, node+"/") && v.Voter == voter
			})
		}
		refuse.Store(&f)
	}
	fail := func() (back func()) {
		lead := c.Leader()
		lead.Stop()
		refuse.Store(nil)
		return func() {
			lead.Start()
			c.WaitReady()
		}
	}

	m := c.Add()
	c.Admit(m)
	m.Start()
	refuseVote(m.ID, true)
	mustJoin(t, m, c.Leader())
	c.Until("the new node votes", func() bool { return members(t, c)[m.ID].Voter })
	if got := entriesAbout(t, c, m.ID); len(got) != 2 {
		t.Errorf("before the failure: got %q, want an admission and a join", got)
	}
	back := fail()
	c.Until("the promotion has an entry", func() bool { return len(entriesAbout(t, c, m.ID)) > 2 })
	back()
	want := []string{"admin cluster.admit done", "cluster cluster.join done",
		"cluster cluster.promote done it had caught up"}
	if got := entriesAbout(t, c, m.ID); !slices.Equal(got, want) {
		t.Errorf("a promotion: got %q, want %q", got, want)
	}

	var through *nodetest.Member
	for _, o := range c.Members {
		if o != m && o != c.Leader() {
			through = o
		}
	}
	refuseVote(m.ID, false)
	by, err := admin(c), make(chan error, 1)
	by.RequestID = "the-call"
	go func() {
		_, failed := through.Node.Demote(t.Context(), by, m.ID)
		err <- failed
	}()
	c.Until("the new node is demoted", func() bool { return !members(t, c)[m.ID].Voter })
	back = fail()
	if err := <-err; err != nil && !errors.Is(err, revoked.ErrOutcomeUnknown) && !errors.Is(err, revoked.ErrNoLeader) &&
		!errors.Is(err, revoked.ErrClosed) { // on a busy machine, this member may be the leader that fails
		t.Errorf("demote: got %v, want no refusal", err)
	}
	c.Until("the demotion has an entry", func() bool { return len(entriesAbout(t, c, m.ID)) > 3 })
	back()
	want = append(want, "admin cluster.demote done")
	if got := entriesAbout(t, c, m.ID); !slices.Equal(got, want) {
		t.Errorf("a demotion: got %q, want %q", got, want)
	}
}

// A node that is not in a cluster has no audit log. If it refuses a call by an administrator, its
// log and LocalAudit each contain the call once.
func TestAudit_NoCluster_RefusalsStayLocal(t *testing.T) {
	t.Parallel()
	entries := make(chan revoked.AuditEntry, 16)
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) {
		if k == 1 {
			conf.LocalAudit = func(e revoked.AuditEntry) { entries <- e }
		}
	}})
	m := c.Add()
	m.Start()
	join := `{"addresses":["` + c.Members[0].ClusterAddr() + `"]}`
	for i, step := range []struct {
		client, path, body string
		status             int
		want               string
	}{
		{"admin", "/v1/cluster/join", join, 403, "cluster.join"},
		{"admin", "/v1/cluster/join", `{"addresses":[]}`, 400, ""},
		{"issuer", "/v1/cluster/join", join, 503, ""}, // this node does not have its roles
		{"admin", "/v1/cluster/promote", `{"node":"secret-name"}`, 422, "cluster.promote"},
	} {
		req, err := http.NewRequest(http.MethodPost, m.URL+step.path, strings.NewReader(step.body))
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("none-", i)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", id)
		req.SetBasicAuth(step.client, nodetest.Secret)
		var r nodetest.Reply
		c.Until("the cluster decides", func() bool {
			r = m.Do(req.Clone(t.Context()))
			req.Body, _ = req.GetBody()
			return r.Status == step.status || r.Status != http.StatusServiceUnavailable
		})
		if r.Status != step.status {
			t.Errorf("%s %s by %s: got %d %s, want %d", step.path, step.body, step.client, r.Status, r.Body, step.status)
		}
		var got []revoked.AuditEntry
		for len(entries) > 0 {
			got = append(got, <-entries)
		}
		if step.want == "" {
			if len(got) > 0 {
				t.Errorf("%s %s by %s: got %+v, want no entry", step.path, step.body, step.client, got)
			}
			continue
		}
		if len(got) != 1 || string(got[0].Kind) != step.want || got[0].Actor != "admin" || got[0].Node != m.ID ||
			got[0].RequestID != id || !got[0].Refused || got[0].Time == 0 || got[0].Object.Node != "" {
			t.Errorf("%s: got %+v, want one entry of request %s", step.path, got, id)
		}
	}
	c.Admit(m)
	mustJoin(t, m, c.Members[0])
	if got := entriesAbout(t, c, m.ID); len(got) < 2 || got[1] != "cluster cluster.join done" {
		t.Errorf("got %q, want the join in the audit log of the cluster", got)
	}
	if len(entries) > 0 {
		t.Errorf("got %d entries of an accepted join, want none", len(entries))
	}
}
