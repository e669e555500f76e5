//go:build system

package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// backups returns the paths of the backups in a directory, oldest first.
func backups(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "revoked-*.snap"))
	if err != nil {
		t.Fatal(err)
	}
	return all // sorted
}

// awaitNewerBackup waits until there is a newer backup than before, and returns it.
func awaitNewerBackup(t testing.TB, dir, before string) (newest string) {
	t.Helper()
	await(t, "a newer backup", func() error {
		all := backups(t, dir)
		if len(all) == 0 || all[len(all)-1] == before {
			return errors.New("none")
		}
		newest = all[len(all)-1]
		return nil
	})
	return newest
}

// Under load, the leader and a follower each make a backup every second. The disk of the backups
// becomes full, and the follower is killed during a backup. All the time, every request is
// answered, and the older backups stay. Once there is free space, the next backup follows, and a
// restore from it succeeds.
func TestScheduledBackups_FullDisk_LastGoodRestores(t *testing.T) {
	needRoot(t, "file systems of the test's own")
	need(t, "mkfs.ext4")
	need(t, "mount")
	c := newCluster(t, 3)
	first, second := c.Nodes[0], c.Nodes[1]
	dirs := map[*member]string{}
	for _, m := range []*member{first, second} {
		dirs[m] = filepath.Join(c.dir, "backup-"+m.ID)
		newDisk(t, dirs[m], 16, "")
		m.args = []string{"--backup-schedule=1s", "--backup-dir=" + dirs[m], "--backup-keep=3"}
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	lead(t, c, first)
	l := startLoad(t, c, 4, 50)
	for _, m := range []*member{first, second} {
		awaitNewerBackup(t, dirs[m], awaitNewerBackup(t, dirs[m], ""))
	}
	good := map[*member][]string{}
	for _, m := range []*member{first, second} {
		fill(t, filepath.Join(dirs[m], "ballast"))
		c.awaitFailedBackups(t, m, 2)
		good[m] = backups(t, dirs[m])
		if len(good[m]) == 0 {
			t.Errorf("%s: got no backup on the full disk, want the older ones", m.ID)
		}
	}
	c.awaitReady(t, c.Nodes...) // a full disk of backups does not disturb the nodes
	c.mustRevoke(t, first, "revoked-while-the-disk-of-backups-is-full")
	l.check(t)
	for _, m := range []*member{first, second} {
		if got := backups(t, dirs[m]); !slices.Equal(got, good[m]) {
			t.Errorf("%s: got %v after failed backups, want %v", m.ID, got, good[m])
		}
		if code, _, messages := runProgram(t, nil, "", "snapshot", "inspect", good[m][len(good[m])-1]); code != 0 {
			t.Errorf("inspect: got exit code %d: %s", code, messages)
		}
	}

	second.proc.Kill() // it leaves a half-written file
	leftover := filepath.Join(dirs[second], ".revoked-backup-"+second.ID+"-7.tmp")
	for _, m := range []*member{first, second} {
		if err := os.Remove(filepath.Join(dirs[m], "ballast")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(leftover, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(t, second)
	c.awaitReady(t, second)
	const marker = "revoked-before-the-last-backup"
	if err := c.register(first, "g-marker", "alice", marker, "refresh-of-"+marker).want(http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	l.halt()
	c.mustRevoke(t, second, marker)
	for _, m := range []*member{first, second} {
		awaitNewerBackup(t, dirs[m], awaitNewerBackup(t, dirs[m], good[m][len(good[m])-1]))
		await(t, "the surplus of "+m.ID+" to be removed", func() error {
			if got := backups(t, dirs[m]); len(got) > 3 {
				return fmt.Errorf("got %d backups, want at most 3", len(got))
			}
			return nil
		})
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the half-written file of the killed process removed", err)
	}
	if _, out, _ := runProgram(t, c.tool("admin", second), "", "status"); !strings.Contains(out, "Backup (dir)") ||
		!strings.Contains(out, " old") {
		t.Errorf("status: got %s, want the age of the newest backup", out)
	}
	l.end(t, c.Nodes...)
	for _, m := range c.Nodes {
		m.proc.Kill()
	}
	all := backups(t, dirs[second])
	c.restoreLast(t, all[len(all)-1], marker)
}

// awaitFailedBackups waits until a node has counted n failed backups and its log names the cause.
func (c *cluster) awaitFailedBackups(t testing.TB, m *member, n int) {
	t.Helper()
	await(t, "failed backups of "+m.ID, func() error {
		a := c.send(m, request{method: http.MethodGet, path: "/metrics"})
		for line := range strings.Lines(string(a.body)) {
			var got int
			if _, err := fmt.Sscanf(line, `revoked_backup_failures_total{target="dir"} %d`, &got); err == nil && got >= n {
				return nil
			}
		}
		return errors.New("fewer")
	})
	for _, want := range []string{"backup failed", "no space left on device"} {
		if log := tail(m.Log, 1000); !strings.Contains(log, want) {
			t.Errorf("%s: got log %s, want %q in it", m.ID, log, want)
		}
	}
}

// restoreLast starts a new cluster of only the first node from a backup. It checks that this
// cluster has a token that was revoked before the backup.
func (c *cluster) restoreLast(t *testing.T, backup, revoked string) {
	t.Helper()
	m := c.Nodes[0]
	if err := os.Rename(m.Data, m.Data+".old"); err != nil {
		t.Fatal(err)
	}
	code, out, messages := runProgram(t, nil, "", "snapshot", "restore", backup, "--data-dir", m.Data, "--node-id", m.ID,
		"--accept-loss", "--reason", "a test", "-o", "json")
	if code != 0 {
		t.Fatalf("snapshot restore: got exit code %d, want 0: %s", code, messages)
	}
	var header struct {
		Tokens uint64 `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(out), &header); err != nil || header.Tokens == 0 {
		t.Errorf("got %s, %v, want a state with tokens", out, err)
	}
	m.args = nil
	c.rewriteConfig(t, m)
	c.start(t, m)
	c.awaitReady(t, m)
	c.wantActive(t, revoked, false, m)
	if s, err := c.status(m); err != nil || s.Tokens == 0 {
		t.Errorf("got %+v, %v, want the tokens of the backup", s, err)
	}
}
