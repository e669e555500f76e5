package scenario

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

func revokeEverywhere(c *cluster) {
	all := c.running()
	for i, k := range all {
		access, refresh := c.register(all[(i+1)%len(all)], fmt.Sprint(i))
		c.wantActive(true, access, all...)
		c.wantActive(true, refresh, all...)
		c.revoke(k, access)
		c.wantActive(false, access, all...)
		c.wantActive(false, refresh, all...)
	}
	for _, k := range all[1:] {
		c.until("equal hashes", func() error {
			a, err := c.status(all[0])
			if err != nil {
				return err
			}
			b, err := c.status(k)
			if err == nil && a.HashIndex == b.HashIndex && (a.LogHash != b.LogHash || a.StateHash != b.StateHash) {
				c.Fatalf("hashes at index %d: got %+v and %+v, want them equal", a.HashIndex, a, b)
			}
			if err == nil && a.HashIndex != b.HashIndex {
				err = fmt.Errorf("got indexes %d and %d", a.HashIndex, b.HashIndex)
			}
			return err
		})
	}
	if s, err := c.status(all[0]); err != nil || s.ClusterID == "" || s.Voters != len(all) {
		c.Errorf("status: got %+v, %v, want a cluster id and %d voters", s, err, len(all))
	}
}

func restartAll(c *cluster) {
	active, _ := c.register(0, "active")
	revoked, _ := c.register(0, "revoked")
	c.revoke(1, revoked)
	all := c.running()
	for _, k := range all {
		c.kill(k)
	}
	for _, k := range all {
		c.start(k)
	}
	c.awaitReady()
	c.wantActive(true, active, all...)
	c.wantActive(false, revoked, all...)
}

func failover(c *cluster) {
	revoked, _ := c.register(0, "revoked")
	old := c.leader()
	c.revoke(c.follower(), revoked)
	c.kill(old)
	c.awaitReady()
	c.wantActive(false, revoked, c.running()...)
	late, _ := c.register(c.follower(), "late")
	c.revoke(c.follower(), late)
	c.start(old)
	c.awaitReady()
	c.wantActive(false, revoked, old)
	c.wantActive(false, late, old)
}

// loseQuorum kills all nodes but a follower, restarts them, and kills all but the leader.
func loseQuorum(c *cluster) {
	active, _ := c.register(0, "active")
	revoked, _ := c.register(0, "revoked")
	c.revoke(0, revoked)
	all := c.running()
	c.wantActive(true, active, all...) // puts the token into every cache
	for _, last := range []int{c.follower(), c.leader()} {
		gone := c.running(last)
		for _, k := range gone {
			c.kill(k)
		}
		c.until("end of the read lease", func() error {
			r, err := c.send(last, "", http.MethodGet, "/readyz", nil)
			if err != nil || r.status != http.StatusServiceUnavailable {
				return fmt.Errorf("got %d, %v, want 503", r.status, err)
			}
			return nil
		})
		c.checkNoQuorum(last, active, revoked)
		for _, k := range gone {
			c.start(k)
		}
		c.awaitReady()
		c.wantActive(true, active, all...)
		c.wantActive(false, revoked, all...)
	}
}

func (c *cluster) checkNoQuorum(node int, active, revoked string) {
	c.Helper()
	token := func(v string) url.Values { return url.Values{"token": {v}} }
	var wg sync.WaitGroup // each request blocks until the request timeout
	for _, tt := range []struct {
		name, path, client string
		form               url.Values
		want               int
	}{
		{"introspect an active token", "/oauth2/introspect", "app", token(active), 503},
		{"introspect an active token as resource server", "/oauth2/introspect", "resource_server", token(active), 503},
		{"introspect an unknown token", "/oauth2/introspect", "app", token("unknown"), 503},
		{"revoke an active token", "/oauth2/revoke", "app", token(active), 503},
		{"revoke an unknown token", "/oauth2/revoke", "app", token("unknown"), 503},
		{"retry a revocation", "/oauth2/revoke", "app", token(revoked), 503},
		{"revoke without credentials", "/oauth2/revoke", "", token(active), 401},
		{"introspect without credentials", "/oauth2/introspect", "", token(active), 401},
		{"revoke without a token", "/oauth2/revoke", "app", url.Values{"hint": {"x"}}, 400},
		{"introspect without a token", "/oauth2/introspect", "app", url.Values{"hint": {"x"}}, 400},
	} {
		wg.Go(func() {
			r, err := c.send(node, tt.client, http.MethodPost, tt.path, tt.form)
			if err != nil || r.status != tt.want {
				c.Errorf("%s: got %d %s, %v, want %d", tt.name, r.status, r.body, err, tt.want)
			}
			if tt.want == 503 && (r.header.Get("Retry-After") == "" || !strings.Contains(r.body, "temporarily_unavailable")) {
				c.Errorf("%s: got Retry-After %q and %s, want temporarily_unavailable",
					tt.name, r.header.Get("Retry-After"), r.body)
			}
		})
	}
	wg.Wait()
	id, _ := c.Credentials("app")
	r, err := c.sendAs(node, id, "wrong", http.MethodPost, "/oauth2/revoke", token(active))
	if err != nil || r.status != http.StatusUnauthorized {
		c.Errorf("revoke with a wrong secret: got %d %s, %v, want 401", r.status, r.body, err)
	}
	r, err = c.send(node, "app", http.MethodPost, "/oauth2/introspect", token(revoked))
	inactive := r.status == http.StatusOK && strings.Contains(r.body, `"active":false`)
	if err != nil || !inactive && r.status != http.StatusServiceUnavailable {
		c.Errorf("introspect a revoked token: got %d %s, %v, want inactive or 503", r.status, r.body, err)
	}
}
