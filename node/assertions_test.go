package node_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"revoked"
	"revoked/internal/testjwt"
	"revoked/node/nodetest"
)

// A robot is a client that authenticates with private_key_jwt.
type robot struct{ testjwt.Key }

// newRobots starts a cluster with the clients robot and robot-admin, which share a key.
func newRobots(t *testing.T) (*nodetest.Cluster, robot) {
	t.Helper()
	key := testjwt.NewKey(t, "k")
	clients := nodetest.Clients()
	for id, roles := range map[string][]revoked.Role{"robot": nil, "robot-admin": {revoked.RoleAdmin}} {
		clients = append(clients, revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles,
			Keys: []revoked.IssuerKey{key.Record(t)}, AuthMethods: []string{revoked.AuthPrivateKey}})
	}
	return nodetest.Start(t, nodetest.Options{Clients: clients}), robot{key}
}

// assertion returns an assertion for the cluster, whose issuer is that of the test kit.
func (r robot) assertion(client, jti string) string {
	return r.Sign("", map[string]any{"iss": client, "sub": client, "aud": "https://as.example", "jti": jti,
		"exp": time.Now().Add(5 * time.Minute).Unix()})
}

func assertionForm(token, assertion string) url.Values {
	return url.Values{"token": {token}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
}

// post sends a form without other credentials.
func post(t *testing.T, m *nodetest.Member, path string, form url.Values) nodetest.Reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return m.Do(req)
}

// CA-33: if three nodes concurrently receive revocations with one assertion, exactly one succeeds.
// The others get 401, as do later requests and requests after restarts.
func TestAssertion_ConcurrentReplays_OneSucceeds(t *testing.T) {
	c, r := newRobots(t)
	const rounds = 8
	for round := range rounds {
		assertion := r.assertion("robot", fmt.Sprint("j", round))
		replies := make([]nodetest.Reply, 2*len(c.Members))
		var wg sync.WaitGroup
		for i := range replies {
			wg.Go(func() {
				m := c.Members[i%len(c.Members)]
				replies[i] = m.Decided(func() nodetest.Reply {
					return post(t, m, "/oauth2/revoke", assertionForm(fmt.Sprint("t", i), assertion))
				})
			})
		}
		wg.Wait()
		done := 0
		for i, got := range replies {
			switch got.Status {
			case http.StatusOK:
				done++
			case http.StatusUnauthorized:
			default:
				t.Errorf("round %d, request %d: got %d %s, want 200 or 401", round, i, got.Status, got.Body)
			}
		}
		if done != 1 {
			t.Errorf("round %d: %d requests succeeded, want one", round, done)
		}
	}
	for _, m := range c.Members {
		m.Restart()
	}
	c.WaitReady()
	assertion := r.assertion("robot", "j0")
	for _, m := range c.Members {
		for _, path := range []string{"/oauth2/revoke", "/oauth2/introspect"} {
			got := m.Decided(func() nodetest.Reply { return post(t, m, path, assertionForm("t", assertion)) })
			if got.Status != http.StatusUnauthorized {
				t.Errorf("%s at %s after the restart: got %d %s, want 401", path, m.ID, got.Status, got.Body)
			}
		}
	}
}

// A bulk registration has many operations in several entries, all authenticated by one assertion.
func TestAssertion_BulkRegistration_IsOneUse(t *testing.T) {
	c, r := newRobots(t)
	var lines strings.Builder
	const n = 3000
	for i := range n {
		fmt.Fprintf(&lines, `{"client_id":"app","access_token":{"token":"bulk-%d"}}`+"\n", i)
	}
	assertion := r.assertion("robot-admin", "bulk")
	send := func(m *nodetest.Member) nodetest.Reply {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.URL+"/v1/grants?results=errors",
			strings.NewReader(lines.String()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-ndjson")
		req.Header.Set("Authorization", "Bearer "+assertion)
		return m.Do(req)
	}
	first := c.Members[0].Decided(func() nodetest.Reply { return send(c.Members[0]) })
	if first.Status != http.StatusOK || !strings.Contains(first.Body, fmt.Sprintf(`"registered":%d`, n)) {
		t.Fatalf("got %d %.300s, want %d registrations", first.Status, first.Body, n)
	}
	second := c.Members[1].Decided(func() nodetest.Reply { return send(c.Members[1]) })
	if second.Status == http.StatusOK && !strings.Contains(second.Body, fmt.Sprintf(`"failed":%d`, n)) {
		t.Errorf("replay: got %d %.300s, want no registration", second.Status, second.Body)
	}
}
