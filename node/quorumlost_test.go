package node_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"revoked/node/nodetest"
)

// A survivor reports the missing voters to callers of /v1, and only their number to all others. It
// works again once they are back.
func TestOutage_QuorumLost_ReportsSilentVoters(t *testing.T) {
	t.Parallel()
	for name, survivor := range map[string]func(c *nodetest.Cluster) *nodetest.Member{
		"leader survives": (*nodetest.Cluster).Leader, "follower survives": (*nodetest.Cluster).Follower,
	} {
		t.Run(name, func(t *testing.T) {
			c := nodetest.Start(t, nodetest.Options{})
			m := survivor(c)
			access, _ := register(t, m, "a")
			var gone []string
			for _, other := range c.Members {
				if other != m {
					other.Stop()
					gone = append(gone, other.ID)
				}
			}
			const summary = "no leader: 1 of 3 voters reachable, 2 needed"
			tells := func(body string) bool {
				detail := strings.TrimPrefix(summary, "no leader: ") + "; node"
				return strings.Contains(body, summary) || strings.Contains(body, detail) &&
					strings.Contains(body, gone[0]) && strings.Contains(body, gone[1]) && strings.Contains(body, " silent since 2")
			}
			for _, call := range []func() nodetest.Reply{
				func() nodetest.Reply {
					return m.JSON(http.MethodPost, "/v1/grants", "issuer", `{"client_id":"app","access_token":{"token":"b"}}`)
				},
				func() nodetest.Reply { return m.JSON(http.MethodGet, "/v1/grants/g", "admin", "") },
				func() nodetest.Reply {
					return m.JSON(http.MethodPost, "/v1/cluster/remove", "admin", `{"node":"`+gone[0]+`"}`)
				},
				func() nodetest.Reply { return m.JSON(http.MethodPost, "/v1/cluster/leave", "admin", `{}`) },
				func() nodetest.Reply { return m.Form("/oauth2/revoke", "app", url.Values{"token": {access}}) },
				func() nodetest.Reply { return m.Form("/oauth2/introspect", "admin", url.Values{"token": {"none"}}) },
			} {
				var got nodetest.Reply
				c.Until("the answer contains the missing voters", func() bool {
					got = call()
					return got.Status == http.StatusServiceUnavailable && tells(got.Body)
				})
				if got.Header.Get("Retry-After") == "" {
					t.Errorf("got %v, want a Retry-After", got.Header)
				}
				if oauth := strings.Contains(got.Body, "error_description"); oauth == strings.Contains(got.Body, gone[0]) {
					t.Errorf("got %s, want the names of nodes only at /v1", got.Body)
				}
			}
			for _, other := range c.Members {
				if other != m {
					other.Start()
				}
			}
			c.WaitReady()
			revoke(t, m, access)
		})
	}
}
