//go:build system

package systemtest

import (
	"net/http"
	"net/url"
	"sync"
	"testing"
)

// Rounds of kill -9 under load: the leader, then a follower, each started again. No token comes back,
// no acknowledged registration is lost, and in the end all nodes hold the same log and the same state.
// Twice on the way everything is killed at once.
func TestKillRounds(t *testing.T) {
	rounds := number(t, "REVOKED_ROUNDS", 20)
	c := startCluster(t, 3)
	l := startLoad(t, c, 8, 60)
	for round := range rounds {
		leader := c.leader(t)
		leader.proc.kill()
		next := c.leader(t) // the survivors have one, and are ready
		c.start(t, leader)
		c.awaitReady(t, leader)
		for _, m := range c.Nodes {
			if m != next && m != leader {
				m.proc.kill()
				c.mustRevoke(t, next, "revoked-while-one-is-away")
				c.start(t, m)
				c.awaitReady(t, m)
			}
		}
		if round == rounds/3 || round == 2*rounds/3 {
			for _, m := range c.Nodes {
				m.proc.kill()
			}
			c.startAll(t)
			c.awaitReady(t, c.Nodes...)
		}
		l.check(t)
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// Two of three nodes are gone: the third says 503 and when to come back, for revocations and for
// introspections, and never active. Callers who are wrong are still told so.
func TestNoQuorum(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.leader(t)
	c.mustRegister(t, leader, "g-live", "alice", "at-live", "rt-live")
	c.mustRegister(t, leader, "g-dead", "alice", "at-dead", "rt-dead")
	c.mustRevoke(t, leader, "at-dead")
	c.wantActive(t, "at-live", true, c.Nodes...) // it is in every cache
	for _, last := range []struct {
		name    string
		isRight func(*member) bool
	}{
		{"a follower is left", func(m *member) bool { return m != leader }},
		{"the leader is left", func(m *member) bool { return m == c.leader(t) }},
	} {
		t.Run(last.name, func(t *testing.T) {
			var left *member
			for _, m := range c.Nodes {
				if left == nil && last.isRight(m) {
					left = m
				}
			}
			for _, m := range c.Nodes {
				if m != left {
					m.proc.kill()
				}
			}
			c.awaitNotReady(t, left)
			c.checkNoQuorum(t, left)
			for _, m := range c.Nodes {
				if m != left {
					c.start(t, m)
				}
			}
			c.awaitReady(t, c.Nodes...)
			c.wantActive(t, "at-live", true, c.Nodes...)
			c.wantActive(t, "at-dead", false, c.Nodes...)
		})
	}
}

func (c *cluster) checkNoQuorum(t *testing.T, m *member) {
	t.Helper()
	var asked sync.WaitGroup
	token := func(v string) url.Values { return url.Values{"token": {v}} }
	for _, tt := range []struct {
		name, path, as string
		form           url.Values
		want           int
	}{
		{"introspection of a live token", "/oauth2/introspect", "app", token("at-live"), 503},
		{"introspection of a live token by a resource server", "/oauth2/introspect", "resource_server", token("at-live"), 503},
		{"introspection of an unknown token", "/oauth2/introspect", "app", token("nobody-knows"), 503},
		{"revocation of a live token", "/oauth2/revoke", "app", token("at-live"), 503},
		{"revocation of an unknown token", "/oauth2/revoke", "app", token("nobody-knows"), 503},
		{"a repeated revocation", "/oauth2/revoke", "app", token("at-dead"), 503},
		{"no credentials", "/oauth2/revoke", "", token("at-live"), 401},
		{"no token", "/oauth2/revoke", "app", url.Values{"hint": {"x"}}, 400},
		{"no token to introspect", "/oauth2/introspect", "app", url.Values{"hint": {"x"}}, 400},
	} {
		asked.Go(func() { // at once: each waits for request_timeout
			a := c.send(m, request{method: http.MethodPost, path: tt.path, as: tt.as, form: tt.form})
			if err := a.want(tt.want); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if retry := a.header.Get("Retry-After"); a.status == 503 && retry == "" {
				t.Errorf("%s: 503 without Retry-After", tt.name)
			}
			if active, ok := a.active(); ok && active {
				t.Errorf("%s: says active", tt.name)
			}
		})
	}
	asked.Wait()
	a := c.send(m, request{method: http.MethodPost, path: "/oauth2/revoke", form: token("at-live"), header: http.Header{"Authorization": {"Basic YXBwOndyb25n"}}})
	if err := a.want(http.StatusUnauthorized); err != nil {
		t.Errorf("a wrong secret: %v", err)
	}
	a = c.introspect(m, "app", "at-dead")
	if active, ok := a.active(); ok && active || !ok && a.want(http.StatusServiceUnavailable) != nil {
		t.Errorf("introspection of a revoked token: got %d %s, want inactive or 503", a.status, a.body)
	}
}
