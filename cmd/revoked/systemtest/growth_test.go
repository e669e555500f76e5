//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// A cluster grows from one node to three and five and shrinks to three under load. One of the nodes
// that leave is the leader. No acknowledged write is lost, and every member serves.
func TestGrowth_UnderLoad_LosesNothing(t *testing.T) {
	c := newCluster(t, 5)
	first := c.Nodes[0]
	c.rewriteConfig(t, first, "bootstrap_expect: 1")
	for _, m := range c.Nodes[1:] {
		c.rewriteConfig(t, m)
	}
	c.start(t, first)
	c.awaitReady(t, first)
	l := startLoad(t, c, 6, 50)
	l.use(first)
	for size := 3; size <= 5; size += 2 {
		for _, m := range c.Nodes[size-2 : size] {
			c.start(t, m)
			c.join(t, m, c.Nodes[size-3])
		}
		c.awaitVoters(t, size, c.Nodes[:size]...)
		c.awaitReady(t, c.Nodes[:size]...)
		l.use(c.Nodes[:size]...)
		l.check(t)
	}
	leader := c.leader(t)
	left := []*member{leader}
	for _, m := range c.Nodes {
		if m != leader && m != first && len(left) < 2 {
			left = append(left, m)
		}
	}
	var stay []*member
	for _, m := range c.Nodes {
		if m != left[0] && m != left[1] {
			stay = append(stay, m)
		}
	}
	for i, m := range left {
		await(t, "leave of "+m.ID, func() error { // the leader may change at any time
			if code, out, messages := runProgram(t, c.tool("admin", m), "", "leave"); code != 0 && m.proc.Running() {
				return fmt.Errorf("exit code %d: %s%s", code, out, messages)
			}
			return nil
		})
		if code := m.proc.exit(t); code != 0 {
			t.Errorf("%s: got exit code %d after leave, want 0; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
		}
		c.awaitVoters(t, 4-i, stay...)
	}
	l.use(stay...)
	for range 5 { // more writes on the remaining nodes
		c.mustRevoke(t, stay[0], "after-the-others-left")
	}
	l.halt()
	c.awaitReady(t, stay...)
	c.checkAgreement(t, stay...)
	l.end(t, stay...)

	t.Run("node that left comes back with --rejoin", func(t *testing.T) {
		m := left[1]
		c.admit(t, m, stay[0])
		m.args = []string{"--rejoin", "--join", stay[0].Cluster}
		c.start(t, m)
		c.awaitReady(t, m)
		now := append([]*member{m}, stay...)
		c.awaitVoters(t, 4, now...)
		c.checkAgreement(t, now...)
	})
}

// rewriteConfig removes the bootstrap settings from a node's file and adds lines.
func (c *cluster) rewriteConfig(t testing.TB, m *member, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "join:") && !strings.HasPrefix(line, "bootstrap_expect:") {
			kept = append(kept, line)
		}
	}
	for _, line := range lines {
		kept = append(kept, line+"\n")
	}
	if err := os.WriteFile(m.Config, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// join joins a running node without a cluster through a member.
func (c *cluster) join(t testing.TB, m, through *member) {
	t.Helper()
	await(t, m.ID+" to listen", func() error {
		return c.send(m, request{method: http.MethodGet, path: "/livez"}).want(http.StatusOK)
	})
	c.admit(t, m, through)
	await(t, "join of "+m.ID, func() error { // the leader may change at any time
		code, out, messages := runProgram(t, c.tool("admin", m), "", "join", through.Cluster)
		if code != 0 && !strings.Contains(messages, " 409 ") { // an earlier attempt succeeded
			return fmt.Errorf("exit code %d: %s%s", code, out, messages)
		}
		return nil
	})
}

// admit admits a node to the cluster.
func (c *cluster) admit(t testing.TB, m, through *member) {
	t.Helper()
	await(t, "admission of "+m.ID, func() error { // the leader may change at any time
		a := c.send(through, request{method: http.MethodPost, path: "/v1/cluster/admit", as: "admin",
			json: map[string]any{"node": m.ID}})
		if a.status == http.StatusConflict { // it is a member
			return nil
		}
		return a.want(http.StatusOK)
	})
}

// awaitVoters waits until each node sees n voters.
func (c *cluster) awaitVoters(t testing.TB, want int, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, fmt.Sprintf("%d voters, as %s sees it", want, m.ID), func() error {
			a := c.send(m, request{method: http.MethodGet, path: "/v1/members", as: "admin"})
			if err := a.want(http.StatusOK); err != nil {
				return err
			}
			var body struct {
				Members []struct {
					Voter bool `json:"voter"`
				} `json:"members"`
			}
			if err := json.Unmarshal(a.body, &body); err != nil {
				return err
			}
			got := 0
			for _, s := range body.Members {
				if s.Voter {
					got++
				}
			}
			if got != want {
				return fmt.Errorf("got %d", got)
			}
			return nil
		})
	}
}
