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

// A cluster of one grows to three and to five and shrinks to three again, under load, and the leader is
// among those that leave. No acknowledged write is lost, and every node that is in serves.
func TestGrowthUnderLoad(t *testing.T) {
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
		await(t, "leave of "+m.ID, func() error { // the leader may change in the middle of it
			if code, out, messages := runProgram(t, c.tool("admin", m), "", "leave"); code != 0 && m.proc.runs() {
				return fmt.Errorf("exit code %d: %s%s", code, out, messages)
			}
			return nil
		})
		if code := m.proc.exit(t); code != 0 {
			t.Errorf("%s ended with %d after leave, want 0; the end of its log:\n%s", m.ID, code, tail(m.Log, 10))
		}
		c.awaitVoters(t, 4-i, stay...)
	}
	l.use(stay...)
	for range 5 { // some more writes on those who stay
		c.mustRevoke(t, stay[0], "after-the-others-left")
	}
	l.halt()
	c.awaitReady(t, stay...)
	c.checkAgreement(t, stay...)
	l.end(t, stay...)

	t.Run("who has left does not start by itself", func(t *testing.T) {
		m := left[1]
		c.start(t, m)
		if code := m.proc.exit(t); code != 1 {
			t.Errorf("got exit code %d, want 1", code)
		}
		if last := tail(m.Log, 1); !strings.Contains(last, "has left its cluster") || !strings.Contains(last, "--rejoin") {
			t.Errorf("got %q, want it to say that it has left, and --rejoin", last)
		}
	})
	t.Run("and comes back as another with --rejoin", func(t *testing.T) {
		m := left[1]
		m.args = []string{"--rejoin", "--join", stay[0].Cluster}
		c.start(t, m)
		c.awaitReady(t, m)
		now := append([]*member{m}, stay...)
		c.awaitVoters(t, 4, now...)
		c.checkAgreement(t, now...)
	})
}

// rewriteConfig takes how the cluster is founded out of a node's file and puts lines in.
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

// join has a node that runs and is in no cluster join through a member.
func (c *cluster) join(t testing.TB, m, through *member) {
	t.Helper()
	await(t, m.ID+" to listen", func() error {
		return c.send(m, request{method: http.MethodGet, path: "/livez"}).want(http.StatusOK)
	})
	await(t, "join of "+m.ID, func() error { // the leader may change in the middle of it
		code, out, messages := runProgram(t, c.tool("admin", m), "", "join", through.Cluster)
		if code != 0 && !strings.Contains(messages, " 409 ") { // it is in since the try before
			return fmt.Errorf("exit code %d: %s%s", code, out, messages)
		}
		return nil
	})
}

// awaitVoters returns when each of the nodes sees that many voters.
func (c *cluster) awaitVoters(t testing.TB, want int, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, fmt.Sprintf("%d voters, as %s sees it", want, m.ID), func() error {
			a := c.send(m, request{method: http.MethodGet, path: "/v1/members", as: "admin"})
			if err := a.want(http.StatusOK); err != nil {
				return err
			}
			var said struct {
				Members []struct {
					Voter bool `json:"voter"`
				} `json:"members"`
			}
			if err := json.Unmarshal(a.body, &said); err != nil {
				return err
			}
			got := 0
			for _, s := range said.Members {
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
