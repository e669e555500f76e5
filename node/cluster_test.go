package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node"
	"revoked/node/nodetest"
)

// register registers a token pair of the client app and returns it.
func register(t testing.TB, m *nodetest.Member, name string) (access, refresh string) {
	t.Helper()
	access, refresh = "at-"+name, "rt-"+name
	body := fmt.Sprintf(`{"client_id":"app","subject":"alice",`+
		`"access_token":{"token":%q,"expires_at":%d},"refresh_token":{"token":%q}}`,
		access, time.Now().Add(time.Hour).Unix(), refresh)
	r := m.Decided(func() nodetest.Reply { return m.JSON(http.MethodPost, "/v1/grants", "issuer", body) })
	if r.Status != http.StatusCreated && r.Status != http.StatusOK {
		t.Fatalf("register: got %d %s, want 201", r.Status, r.Body)
	}
	return access, refresh
}

func isActive(t testing.TB, m *nodetest.Member, client, token string) bool {
	t.Helper()
	r := m.Decided(func() nodetest.Reply {
		return m.Form("/oauth2/introspect", client, url.Values{"token": {token}})
	})
	if r.Status != http.StatusOK {
		t.Fatalf("introspect on %s: got %d %s, want 200", m.ID, r.Status, r.Body)
	}
	var a struct{ Active bool }
	if err := json.Unmarshal([]byte(r.Body), &a); err != nil {
		t.Fatal(err)
	}
	return a.Active
}

func TestReadBarrier_LeaderChanges_Retries(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, c *node.Config) { c.RequestTimeout = nodetest.LongStop }})
	old := c.Leader()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var answers atomic.Uint64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := old.Node.Status(t.Context(), revoked.DigestToken("unknown"), "rs")
				var outage *revoked.OutageError // the restarts may take longer than requests wait
				switch {
				case err == nil:
					answers.Add(1)
				case !errors.As(err, &outage):
					t.Errorf("status of an unknown token: got %v, want an answer from the next leader", err)
					return
				}
			}
		})
	}
	more := func(n uint64) {
		from := answers.Load()
		c.Until("reads are answered", func() bool { return answers.Load() >= from+n || t.Failed() })
	}
	more(100)
	for _, m := range c.Members {
		if m != old {
			m.Stop()
		}
	}
	c.Until("the leader steps down", func() bool { return old.Node.NodeStatus(t.Context()).State != "leader" })
	for _, m := range c.Members {
		if m != old {
			m.Start()
		}
	}
	more(100)
}

// Operations that every member can apply still commit.
func TestAdmit_OldMember_RefusesNewOperation(t *testing.T) {
	t.Parallel()
	for version, status := range map[uint32]int{
		command.Version: http.StatusOK, command.Version + 1: http.StatusUnprocessableEntity,
	} {
		c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) { conf.OfVersion(version) }})
		access, _ := register(t, c.Follower(), "old")
		var r nodetest.Reply
		c.Until("the leader has all reports", func() bool {
			r = c.Follower().JSON(http.MethodPatch, "/v1/settings", "admin", `{"secret_grace":"1h"}`)
			return r.Status != http.StatusServiceUnavailable && !strings.Contains(r.Body, "has not reported")
		})
		if r.Status != status || status != http.StatusOK && !strings.Contains(r.Body, "upgrade every member first") {
			t.Errorf("an operation of version %d: got %d %s, want %d", version, r.Status, r.Body, status)
		}
		if !isActive(t, c.Members[0], "resource_server", access) {
			t.Error("introspect a token registered before: got inactive, want active")
		}
	}
}

func TestOpen_InvalidBootstrapClient_Refused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) {
		if k == 1 {
			bad := nodetest.Clients()[:1]
			bad[0].Roles = []revoked.Role{revoked.RoleAdmin, revoked.RoleAdmin}
			conf.BootstrapClients = bad
		}
	}})
	err := c.Add().TryStart()
	if !errors.Is(err, revoked.ErrInvalid) || !strings.Contains(err.Error(), `client 1 ("admin")`) {
		t.Errorf("got %v, want %v that mentions client admin", err, revoked.ErrInvalid)
	}
}
