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

// slowWire is what a link carries, in bytes a second: 1 Mbit/s.
const slowWire = 125_000

// A member comes over a wire of 1 Mbit/s to a cluster whose log no longer holds its beginning, so it is sent
// the whole state, while the others serve. It comes in by one transfer; nobody waits for it meanwhile.
func TestSnapshotOverASlowWire(t *testing.T) {
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
	w.seedAnew(t, first)
	for _, m := range w.Nodes[1:] {
		m.args = []string{"--join", first.Cluster}
	}
	w.start(t, w.Nodes[1])
	w.start(t, w.Nodes[2])
	w.awaitVoters(t, 3, w.Nodes[:3]...)
	w.awaitReady(t, w.Nodes[:3]...)
	for _, m := range w.Nodes[:3] {
		w.link(m, newcomer).limit(slowWire)
		w.link(newcomer, m).limit(slowWire)
	}
	l := startLoad(t, w.cluster, 6, 20)
	l.use(w.Nodes[:3]...)
	began := time.Now()
	w.start(t, newcomer)
	for !strings.Contains(tail(newcomer.Log, 200), "state restored") { // the others serve as before
		awaitWrites(t, l, 20)
	}
	came := time.Since(began)
	w.awaitReady(t, newcomer)
	t.Logf("the state was there after %v, the lease after %v", came.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	l.check(t)
	awaitWrites(t, l, 20)
	w.awaitVoters(t, 4, w.Nodes...)
	l.halt()
	if n := strings.Count(tail(newcomer.Log, 1000), "state restored"); n != 1 {
		t.Errorf("the state was sent and restored %d times, want once", n)
	}
	w.checkAgreement(t, w.Nodes...)
	l.end(t, w.Nodes...)
}

// seedAnew backs the only node of a cluster up and has it begin again from the backup: its log then
// begins after the state.
func (w *network) seedAnew(t *testing.T, m *member) {
	t.Helper()
	backup := filepath.Join(w.dir, "backup.snap")
	save := startProcess(t, "", func(c *exec.Cmd) { c.Env = append(c.Env, w.tool("admin", m)...) },
		"ip", "netns", "exec", w.hub, "revoked", "snapshot", "save", backup)
	if code := save.exit(t); code != 0 {
		t.Fatalf("snapshot save: exit code %d: %s", code, save.out.String())
	}
	m.proc.kill()
	if err := os.RemoveAll(m.Data); err != nil {
		t.Fatal(err)
	}
	if code, out, messages := runProgram(t, nil, "", "snapshot", "restore", backup, "--data-dir", m.Data, "--node-id", m.ID, "--accept-loss", "--reason", "a test"); code != 0 {
		t.Fatalf("snapshot restore: exit code %d: %s%s", code, out, messages)
	}
	w.rewriteConfig(t, m)
	w.start(t, m)
	w.awaitReady(t, m)
}
