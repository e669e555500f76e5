//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recoverDisk runs `revoked recover` on a stopped node.
func recoverDisk(t testing.TB, m *member, args ...string) (code int, out, messages string) {
	t.Helper()
	return runProgram(t, nil, "", append([]string{"recover", "--data-dir", m.Data}, args...)...)
}

// The test follows "Quorum lost" in docs/operate.md: two of three disks are gone. The third becomes
// a new cluster, which two new nodes join. A node with a disk of the old cluster cannot join it.
func TestRecover_TwoOfThreeDisksLost_KeepsPromise(t *testing.T) {
	c := startCluster(t, 3)
	first := c.leader(t)
	others := c.without(first)
	c.mustRegister(t, first, "before", "alice", "before-at", "before-rt")
	c.mustRegister(t, first, "revoked", "alice", "revoked-at", "revoked-rt")
	c.mustRevoke(t, first, "revoked-rt")
	old := clusterID(t, c, first)
	if code, _, messages := recoverDisk(t, first, "--dry-run=false"); code != 1 ||
		!strings.Contains(messages, "in use by another process") {
		t.Errorf("a running node: got exit code %d and %q, want 1", code, messages)
	}
	for _, m := range c.Nodes {
		m.proc.Kill()
	}
	oldDisk := others[0].Data + ".old"
	for _, step := range []error{os.Rename(others[0].Data, oldDisk), os.RemoveAll(others[1].Data)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	c.start(t, first)
	await(t, "503 without a quorum", func() error {
		return c.revoke(first, "app", "before-at").want(http.StatusServiceUnavailable)
	})
	stop(t, first)

	code, out, messages := recoverDisk(t, first, "-o", "json")
	var shown struct {
		DryRun bool `json:"dry_run"`
		Before struct {
			ClusterID string `json:"cluster_id"`
			Members   []any  `json:"members"`
		} `json:"before"`
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 || !shown.DryRun ||
		shown.Before.ClusterID != old || len(shown.Before.Members) != 3 ||
		!strings.Contains(messages, "nothing was changed") {
		t.Fatalf("dry run: got exit code %d, %q and %q", code, out, messages)
	}
	code, out, messages = recoverDisk(t, first, "--dry-run=false", "--reason", "two disks are gone")
	if code != 0 || !strings.Contains(messages, "recovered: "+first.ID) || !strings.Contains(out, old) {
		t.Fatalf("got exit code %d, %q and %q, want 0", code, out, messages)
	}
	if code, _, messages := recoverDisk(t, first, "--dry-run=false"); code != 1 ||
		!strings.Contains(messages, "nothing to recover") {
		t.Errorf("again: got exit code %d and %q, want 1", code, messages)
	}

	for _, m := range c.Nodes {
		c.rewriteConfig(t, m, fmt.Sprintf("join: [%q]", first.Cluster))
	}
	c.start(t, first)
	c.awaitReady(t, first)
	c.awaitVoters(t, 1, first)
	renewed := clusterID(t, c, first)
	if renewed == old {
		t.Errorf("got cluster %s, want another", renewed)
	}
	for _, m := range others {
		c.admit(t, m, first)
	}
	if err := os.Rename(oldDisk, others[0].Data); err != nil {
		t.Fatal(err)
	}
	c.start(t, others[0])
	await(t, "503 of the old disk", func() error {
		return c.revoke(others[0], "app", "before-at").want(http.StatusServiceUnavailable)
	})
	if got := clusterID(t, c, others[0]); got != old {
		t.Errorf("old disk: got cluster %s, want %s", got, old)
	}
	c.awaitVoters(t, 1, first)
	others[0].proc.Kill()
	if err := os.RemoveAll(others[0].Data); err != nil {
		t.Fatal(err)
	}
	for _, m := range others {
		c.start(t, m)
	}
	c.awaitReady(t, c.Nodes...)
	c.awaitVoters(t, 3, c.Nodes...)
	c.wantActive(t, "revoked-at", false, c.Nodes...)
	c.wantActive(t, "before-at", false, c.Nodes...)
	c.wantActive(t, "before-rt", false, c.Nodes...)
	if err := c.register(others[1], "undated", "alice", "undated-at", "undated-rt").want(422); err != nil {
		t.Errorf("a token without issued_at: %v", err)
	}
	await(t, "a token of the new cluster", func() error { // issued in a later second than the cut-off
		now := time.Now().Unix()
		name := fmt.Sprint("new-", now)
		a := c.send(others[1], request{method: http.MethodPost, path: "/v1/grants", as: "issuer", json: map[string]any{
			"grant_id": name, "client_id": "app", "access_token": map[string]any{"token": name, "issued_at": now}}})
		if active, ok := c.introspect(others[0], "app", name).active(); !ok || !active {
			return fmt.Errorf("got %d %s, and active %t, %t", a.status, a.body, active, ok)
		}
		return nil
	})
	c.checkAgreement(t, c.Nodes...)
}

// The command is killed at many moments. The directory then holds either the old member or the new
// one, complete.
func TestRecover_Killed_LeavesOldOrNewState(t *testing.T) {
	c := startCluster(t, 3)
	m := c.leader(t)
	c.mustRegister(t, m, "g", "alice", "at", "rt")
	old := clusterID(t, c, m)
	for _, m := range c.Nodes {
		m.proc.Kill()
	}
	// A recovery of so few tokens takes about 50 ms. The last round does not kill it.
	outcomes := map[string]int{}
	for delay, done := time.Duration(0), false; !done; delay += 4 * time.Millisecond {
		p := startProcess(t, "", nil, "revoked", "recover", "--data-dir", m.Data, "--dry-run=false")
		select {
		case <-p.Done():
		case <-time.After(delay):
		}
		p.Kill()
		code, out, messages := recoverDisk(t, m, "-o", "json")
		switch {
		case code == 0 && strings.Contains(out, old):
			outcomes["old"]++
		case code == 0 && strings.Contains(out, `"resumed":true`):
			outcomes["resumed"]++
			if code, _, messages = recoverDisk(t, m, "--dry-run=false"); code != 0 {
				t.Fatalf("after %v: got exit code %d and %q, want the rest done", delay, code, messages)
			}
			done = true
		case code == 1 && strings.Contains(messages, "nothing to recover"):
			outcomes["new"]++
			done = true
		default:
			t.Fatalf("killed after %v: got exit code %d, %q and %q", delay, code, out, messages)
		}
	}
	t.Logf("killed: %v", outcomes)
	if outcomes["old"] == 0 {
		t.Error("got no recovery that was killed before its end")
	}
	c.start(t, m)
	c.awaitReady(t, m)
	if got := clusterID(t, c, m); got == old {
		t.Errorf("got cluster %s, want another", got)
	}
	c.wantActive(t, "at", false, m)
	if left, err := filepath.Glob(filepath.Join(m.Data, "recovery*")); err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want recovery.json only", left, err)
	}
}
