//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A member whose data directory was restored from an older image exits and names the remedy. It
// returns as a new instance.
func TestRolledBackDisk_NodeExits(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	m := c.without(c.leader(t))[0]
	awaitWrites(t, l, 20)
	m.proc.Kill()
	image := m.Data + ".image"
	if err := os.CopyFS(image, os.DirFS(m.Data)); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	awaitWrites(t, l, 40)
	l.rest(true)
	c.awaitReady(t, c.Nodes...)
	m.proc.Kill()
	for _, step := range []error{os.RemoveAll(m.Data), os.Rename(image, m.Data)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	c.start(t, m)
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	for _, want := range []string{"rolled back to an older image", "move it away"} {
		if last := tail(m.Log, 4); !strings.Contains(last, want) {
			t.Errorf("got log %q, want %q in it", last, want)
		}
	}
	l.rest(false)
	awaitWrites(t, l, 20)
	if err := os.RemoveAll(m.Data); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	c.awaitVoters(t, 3, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// A copy of a member's data directory, for example a machine image, starts elsewhere while the
// member runs. The copy exits with the cause, and the member continues.
func TestCopiedIdentity_CopyExits(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	m := c.without(c.leader(t))[0]
	awaitWrites(t, l, 20)
	m.proc.Kill()
	clone := *m
	clone.Data, clone.Log, clone.proc = m.Data+"-clone", m.Log+"-clone", nil
	if err := os.CopyFS(clone.Data, os.DirFS(m.Data)); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	port := freePorts(t, 1)
	at := func(offset int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port+offset)) }
	clone.API = "https://" + at(0)
	clone.args = []string{"--data-dir", clone.Data, "--api-addr", at(0), "--api-advertise", at(0), "--cluster-addr",
		at(1000),
		"--cluster-advertise", at(1000), "--gossip-addr", at(2000), "--gossip-advertise", at(2000)}
	c.start(t, &clone)
	if code := clone.proc.exit(t); code != 1 {
		t.Errorf("copy: got exit code %d, want 1", code)
	}
	last := tail(clone.Log, 4)
	if !strings.Contains(last, "another process runs as node "+m.ID) &&
		!strings.Contains(last, "rolled back to an older image") {
		t.Errorf("copy: got log %q, want the cause", last)
	}
	if !m.proc.Running() {
		t.Errorf("member: got exit %v, want it to run", m.proc.Err())
	}
	awaitWrites(t, l, 20)
	c.awaitReady(t, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// The certificate of a removed node, with an empty directory, does not admit a node.
func TestRemovedCertificate_EmptyDirectory_IsRefused(t *testing.T) {
	c := startCluster(t, 4)
	m := c.without(c.leader(t))[0]
	others := c.without(m)
	m.proc.Kill()
	await(t, "the removal", func() error { // the node counts as alive for a moment
		return c.send(others[0], request{method: http.MethodPost, path: "/v1/cluster/remove", as: "admin",
			json: map[string]any{"node": m.ID}}).want(http.StatusOK)
	})
	if err := os.RemoveAll(m.Data); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	want := m.ID + " is not admitted: admit it with `revoked admit " + m.ID + "`, or give it a join token"
	await(t, "the refusal", func() error {
		if log := tail(m.Log, 20); !strings.Contains(log, want) {
			return fmt.Errorf("got log %q", log)
		}
		return nil
	})
	c.awaitVoters(t, 3, others...)
	c.admit(t, m, others[0])
	c.awaitReady(t, m)
	c.awaitVoters(t, 4, c.Nodes...)
}

// A member is stopped with SIGSTOP, and a second directory runs with its certificate. At no time do
// both vote. The first exits when it continues, because the second has replaced it.
func TestSecondDirectory_MemberStopped_CastsOneVote(t *testing.T) {
	c := startCluster(t, 3)
	m := c.without(c.leader(t))[0]
	others := c.without(m)
	m.proc.Signal(syscall.SIGSTOP)
	port := freePorts(t, 1)
	at := func(offset int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port+offset)) }
	second := *m
	second.API, second.Data, second.Log, second.proc = "https://"+at(0), m.Data+"-second", m.Log+"-second", nil
	c.rewriteConfig(t, m, fmt.Sprintf("join: [%q, %q]", others[0].Cluster, others[1].Cluster))
	second.args = []string{"--data-dir", second.Data, "--api-addr", at(0), "--api-advertise", at(0), "--cluster-addr",
		at(1000),
		"--cluster-advertise", at(1000), "--gossip-addr", at(2000), "--gossip-advertise", at(2000)}
	c.start(t, &second)
	await(t, "the replacement", func() error {
		a := c.send(others[0], request{method: http.MethodGet, path: "/v1/members", as: "admin"})
		var body struct {
			Members []struct {
				NodeID string `json:"node_id"`
				Voter  bool   `json:"voter"`
			} `json:"members"`
		}
		if err := json.Unmarshal(a.body, &body); err != nil {
			return err
		}
		votes := 0
		for _, o := range body.Members {
			if o.NodeID == m.ID && o.Voter {
				votes++
			}
		}
		if votes > 1 {
			t.Fatalf("got %d votes of %s, want at most 1: %s", votes, m.ID, a.body)
		}
		if len(body.Members) != 3 || votes != 1 || !strings.Contains(string(a.body), at(1000)) {
			return fmt.Errorf("got %s", a.body)
		}
		return nil
	})
	m.proc.Signal(syscall.SIGCONT)
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("replaced process: got exit code %d, want 1", code)
	}
	if last := tail(m.Log, 4); !strings.Contains(last, "another data directory has replaced this one") {
		t.Errorf("got log %q, want the replacement in it", last)
	}
	c.awaitVoters(t, 3, others...)
	second.proc.Kill()
}
