//go:build system

package systemtest

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// slowLink is the rate of a link in bytes per second: 1 Mbit/s.
const slowLink = 125_000

// A node joins over a link of 1 Mbit/s. The log of the cluster is compacted, so the node gets a
// snapshot. The snapshot arrives in one transfer, and the other nodes continue to serve.
func TestSnapshot_OverSlowLink_SentOnce(t *testing.T) {
	w := newNetwork(t, 4)
	w.putLinks(t)
	first, newcomer := w.Nodes[0], w.Nodes[3]
	w.rewriteConfig(t, first, "bootstrap_expect: 1")
	for _, m := range w.Nodes[1:] {
		w.rewriteConfig(t, m)
	}
	w.start(t, first)
	w.awaitReady(t, first)
	for i := range 4 {
		if err := w.sendLines(first, "/v1/grants", manyLines(i, 2000)).want(http.StatusOK); err != nil {
			t.Fatal(err)
		}
	}
	w.restoreFromBackup(t, first)
	for _, m := range w.Nodes[1:] {
		m.args = []string{"--join", first.Cluster}
		w.admit(t, m, first)
	}
	w.start(t, w.Nodes[1])
	w.start(t, w.Nodes[2])
	w.awaitVoters(t, 3, w.Nodes[:3]...)
	w.awaitReady(t, w.Nodes[:3]...)
	for _, m := range w.Nodes[:3] {
		w.link(m, newcomer).limit(slowLink)
		w.link(newcomer, m).limit(slowLink)
	}
	l := startLoad(t, w.cluster, 6, 20)
	l.use(w.Nodes[:3]...)
	began := time.Now()
	w.start(t, newcomer)
	for !strings.Contains(tail(newcomer.Log, 200), "state restored") { // the others continue to serve
		awaitWrites(t, l, 20)
	}
	came := time.Since(began)
	w.awaitReady(t, newcomer)
	t.Logf("state restored after %v, lease after %v", came.Round(10*time.Millisecond),
		time.Since(began).Round(10*time.Millisecond))
	l.check(t)
	awaitWrites(t, l, 20)
	w.awaitVoters(t, 4, w.Nodes...)
	l.halt()
	if n := strings.Count(tail(newcomer.Log, 1000), "state restored"); n != 1 {
		t.Errorf("got %d restored snapshots, want 1", n)
	}
	w.checkAgreement(t, w.Nodes...)
	l.end(t, w.Nodes...)
}

// restoreFromBackup restores the only node of a cluster from its own backup, so that its log begins
// after the state.
func (w *network) restoreFromBackup(t *testing.T, m *member) {
	t.Helper()
	backup := filepath.Join(w.dir, "backup.snap")
	save := startProcess(t, "", func(c *exec.Cmd) { c.Env = append(c.Env, w.tool("admin", m)...) },
		"ip", "netns", "exec", w.hub, "revoked", "snapshot", "save", backup)
	if code := save.exit(t); code != 0 {
		t.Fatalf("snapshot save: got exit code %d, want 0: %s", code, save.out.String())
	}
	m.proc.Kill()
	if err := os.RemoveAll(m.Data); err != nil {
		t.Fatal(err)
	}
	if code, out, messages := runProgram(t, nil, "", "snapshot", "restore", backup, "--data-dir", m.Data, "--node-id",
		m.ID, "--accept-loss", "--reason", "a test"); code != 0 {
		t.Fatalf("snapshot restore: got exit code %d, want 0: %s%s", code, out, messages)
	}
	w.rewriteConfig(t, m)
	w.start(t, m)
	w.awaitReady(t, m)
}
