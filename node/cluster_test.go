package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// register gives app a pair of tokens, named after name, and returns them.
func register(t testing.TB, m *nodetest.Member, name string) (access, refresh string) {
	t.Helper()
	access, refresh = "at-"+name, "rt-"+name
	body := fmt.Sprintf(`{"client_id":"app","subject":"alice","access_token":{"token":%q,"expires_at":%d},"refresh_token":{"token":%q}}`,
		access, time.Now().Add(time.Hour).Unix(), refresh)
	for began := time.Now(); ; {
		r := m.JSON(http.MethodPost, "/v1/grants", "issuer", body)
		switch {
		case r.Status == http.StatusCreated || r.Status == http.StatusOK:
			return access, refresh
		case r.Status != http.StatusServiceUnavailable || time.Since(began) > 10*time.Second: // the leader may change at any time
			t.Fatalf("register: got %d %s, want 201", r.Status, r.Body)
		}
	}
}

func isActive(t testing.TB, m *nodetest.Member, client, token string) bool {
	t.Helper()
	r := m.Form("/oauth2/introspect", client, url.Values{"token": {token}})
	if r.Status != http.StatusOK {
		t.Fatalf("introspect on %s: got %d %s, want 200", m.ID, r.Status, r.Body)
	}
	var a struct{ Active bool }
	if err := json.Unmarshal([]byte(r.Body), &a); err != nil {
		t.Fatal(err)
	}
	return a.Active
}

func TestARevocationThroughAnyNodeIsFinalOnEveryNode(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	for i, m := range c.Members {
		access, refresh := register(t, c.Members[(i+1)%3], fmt.Sprint(i))
		for _, o := range c.Members {
			if !isActive(t, o, "resource_server", access) || !isActive(t, o, "app", refresh) {
				t.Fatalf("%s says inactive of a live pair", o.ID)
			}
		}
		if r := m.Form("/oauth2/revoke", "app", url.Values{"token": {access}}); r.Status != 200 || r.Body != "{}" {
			t.Fatalf("revoke: got %d %q, want 200 {}", r.Status, r.Body)
		}
		for _, o := range c.Members {
			if isActive(t, o, "resource_server", access) || isActive(t, o, "app", refresh) {
				t.Fatalf("%s says active after the 200", o.ID)
			}
		}
	}
	first := c.Members[0].Node.NodeStatus(context.Background())
	for _, m := range c.Members[1:] {
		c.Until("hashes agree", func() bool {
			a, b := c.Members[0].Node.NodeStatus(context.Background()), m.Node.NodeStatus(context.Background())
			return a.HashIndex == b.HashIndex && a.LogHash == b.LogHash && a.StateHash == b.StateHash
		})
	}
	if first.ClusterID == "" || first.Voters != 3 {
		t.Errorf("status: got %+v, want a cluster id and three voters", first)
	}
}

func TestRevokedStaysRevokedOverRestarts(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	live, _ := register(t, c.Members[0], "live")
	dead, _ := register(t, c.Members[0], "dead")
	if r := c.Members[1].Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	for _, m := range c.Members {
		m.Stop()
	}
	for _, m := range c.Members {
		m.Start()
	}
	c.WaitReady()
	for _, m := range c.Members {
		if !isActive(t, m, "resource_server", live) {
			t.Errorf("%s lost an acknowledged registration", m.ID)
		}
		if isActive(t, m, "resource_server", dead) {
			t.Errorf("%s brought a revoked token back", m.ID)
		}
	}
}

func TestALostLeaderCostsNoAcknowledgedRevocation(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	dead, _ := register(t, c.Members[0], "dead")
	leader := c.Leader()
	if r := c.Follower().Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	leader.Stop()
	c.WaitReady()
	for _, m := range c.Members {
		if m.Node != nil && isActive(t, m, "resource_server", dead) {
			t.Errorf("%s brought a revoked token back", m.ID)
		}
	}
	late, _ := register(t, c.Follower(), "late")
	if r := c.Follower().Form("/oauth2/revoke", "app", url.Values{"token": {late}}); r.Status != 200 {
		t.Fatalf("revoke after the failover: got %d %s", r.Status, r.Body)
	}
	leader.Start()
	c.WaitReady()
	if isActive(t, leader, "resource_server", dead) || isActive(t, leader, "resource_server", late) {
		t.Errorf("the returned node brought a revoked token back")
	}
}

func TestWithoutQuorumNothingIsPromised(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Node: nil})
	live, _ := register(t, c.Members[0], "live")
	last := c.Follower()
	for _, m := range c.Members {
		if m != last {
			m.Stop()
		}
	}
	c.Until("its lease is over", func() bool { return !last.Node.NodeStatus(context.Background()).Lease.Held })
	for _, path := range []string{"/oauth2/revoke", "/oauth2/introspect"} {
		client := map[string]string{"/oauth2/revoke": "app", "/oauth2/introspect": "resource_server"}[path]
		r := last.Form(path, client, url.Values{"token": {live}})
		if r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !strings.Contains(r.Body, "temporarily_unavailable") {
			t.Errorf("%s without quorum: got %d %q Retry-After %q, want 503", path, r.Status, r.Body, r.Header.Get("Retry-After"))
		}
		if r := last.Form(path, "", url.Values{"token": {live}}); r.Status != http.StatusUnauthorized {
			t.Errorf("%s without credentials and quorum: got %d, want 401", path, r.Status)
		}
	}
}

func TestGrowingFromOneToThreeAndBack(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	live, _ := register(t, c.Members[0], "live")
	dead, _ := register(t, c.Members[0], "dead")
	for range 2 {
		m := c.Add()
		m.Start()
		r := m.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, c.Members[0].ClusterAddr()))
		if r.Status != 200 {
			t.Fatalf("join: got %d %s, want 200", r.Status, r.Body)
		}
	}
	c.Until("all three vote", func() bool { return c.Members[0].Node.NodeStatus(context.Background()).Voters == 3 })
	c.WaitReady()
	if r := c.Members[2].Form("/oauth2/revoke", "app", url.Values{"token": {dead}}); r.Status != 200 {
		t.Fatalf("revoke: got %d %s", r.Status, r.Body)
	}
	for _, m := range c.Members {
		if !isActive(t, m, "resource_server", live) || isActive(t, m, "resource_server", dead) {
			t.Errorf("%s: wrong answers after growing", m.ID)
		}
	}
	leaver := c.Leader()
	if r := leaver.JSON(http.MethodPost, "/v1/cluster/leave", "admin", `{}`); r.Status != 200 {
		t.Fatalf("leave of the leader: got %d %s, want 200", r.Status, r.Body)
	}
	<-leaver.Node.Done()
	if err := leaver.Node.Err(); err != nil {
		t.Errorf("after leave: got %v, want nil", err)
	}
	leaver.Stop()
	if err := leaver.TryStart(); err == nil || !strings.Contains(err.Error(), "--rejoin") {
		t.Errorf("start after leave: got %v, want a refusal that names --rejoin", err)
	}
	c.WaitReady()
	for _, m := range c.Members {
		if m.Node != nil && isActive(t, m, "resource_server", dead) {
			t.Errorf("%s says active after the leave", m.ID)
		}
	}
}

func TestAQuestionOutlivesTheLeadershipThatItWasAskedUnder(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, c *node.Config) { c.RequestTimeout = nodetest.LongStop }})
	asked := c.Leader()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var answers atomic.Uint64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := asked.Node.Status(t.Context(), revoked.DigestToken("nobody's")); err != nil {
					t.Errorf("a token that nobody knows: got %v, want an answer, from the next leader", err)
					return
				}
				answers.Add(1)
			}
		})
	}
	more := func(n uint64) {
		from := answers.Load()
		c.Until("questions are answered", func() bool { return answers.Load() >= from+n || t.Failed() })
	}
	more(100)
	for _, m := range c.Members {
		if m != asked {
			m.Stop()
		}
	}
	c.Until("the leader gives up", func() bool { return asked.Node.NodeStatus(t.Context()).State != "leader" })
	for _, m := range c.Members {
		if m != asked {
			m.Start()
		}
	}
	more(100)
	stop()
	wg.Wait()
}

// An operation that not every member can apply is refused, and everything else goes on.
func TestNothingIsProposedThatAMemberCannotApply(t *testing.T) {
	for version, status := range map[uint32]int{1: http.StatusOK, 2: http.StatusUnprocessableEntity} {
		c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) { conf.OfVersion(version) }})
		access, _ := register(t, c.Follower(), "old")
		r := c.Follower().JSON(http.MethodPatch, "/v1/settings", "admin", `{"secret_grace":"1h"}`)
		if r.Status != status || status != http.StatusOK && !strings.Contains(r.Body, "upgrade every member first") {
			t.Errorf("an operation of version %d: got %d %s, want %d", version, r.Status, r.Body, status)
		}
		if !isActive(t, c.Members[0], "resource_server", access) {
			t.Error("a token that was registered beside it is not active")
		}
	}
}
