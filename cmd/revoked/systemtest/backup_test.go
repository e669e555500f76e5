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
	"time"
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
// answered, and the older backups stay. The value of the alert's expression grows. Once there is
// free space, the next backup follows. A restore from it succeeds, and every token that was revoked
// before it is inactive. With REVOKED_BACKUP_MINUTES, a backup is due every minute, and the test
// lasts that many minutes.
func TestScheduledBackups_FullDisk_LastRestores(t *testing.T) {
	needRoot(t, "the test's own file systems")
	need(t, "mkfs.ext4")
	need(t, "mount")
	c := newCluster(t, 3)
	first, second := c.Nodes[0], c.Nodes[1]
	schedule, mib, before, failures, after := "1s", 16, 2, 2, 2
	if minutes := number(t, "REVOKED_BACKUP_MINUTES", 0); minutes > 0 {
		schedule, mib, before, failures, after = "1m", 256, max(1, minutes*2/5), 5, max(2, minutes*3/10)
	}
	dirs := map[*member]string{}
	for _, m := range []*member{first, second} {
		dirs[m] = filepath.Join(c.dir, "backup-"+m.ID)
		newDisk(t, dirs[m], mib, "")
		m.args = []string{"--backup-schedule=" + schedule, "--backup-dir=" + dirs[m], "--backup-keep=3"}
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	lead(t, c, first)
	l := startLoad(t, c, 4, 50)
	for _, m := range []*member{first, second} {
		awaitBackups(t, dirs[m], "", before)
	}
	good, due := map[*member][]string{}, map[*member]float64{}
	for _, m := range []*member{first, second} {
		fill(t, filepath.Join(dirs[m], "ballast"))
		c.awaitFailedBackups(t, m, 2)
		good[m], due[m] = backups(t, dirs[m]), c.backupDue(m)
		if len(good[m]) == 0 {
			t.Errorf("%s: got no backup on the full disk, want the older backups", m.ID)
		}
	}
	c.awaitReady(t, c.Nodes...) // a full disk of backups does not disturb the nodes
	c.mustRevoke(t, first, "revoked-while-the-disk-of-backups-is-full")
	c.awaitFailedBackups(t, first, failures)
	c.checkAlert(t, due)
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
	for _, m := range []*member{first, second} {
		awaitBackups(t, dirs[m], good[m][len(good[m])-1], after)
		await(t, "the alert of "+m.ID+" to end", func() error {
			if got := c.backupDue(m); got <= due[m] {
				return fmt.Errorf("got the next backup due at %f, want later", got)
			}
			return nil
		})
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
	last, earlier := all[len(all)-1], all[len(all)-2]
	revoked := l.revokedBefore(modified(t, earlier)) // the last backup began later
	t.Logf("restore %s of %d MiB: %d grants were revoked before it", filepath.Base(last), size(t, last)>>20, len(revoked))
	c.restoreLast(t, last, revoked)
}

// awaitBackups waits for n backups, one after the other, that are newer than before.
func awaitBackups(t testing.TB, dir, before string, n int) {
	t.Helper()
	for range n {
		before = awaitNewerBackup(t, dir, before)
	}
}

// backupDue returns when the next successful backup of a node is due, in seconds since 1970.
func (c *cluster) backupDue(m *member) float64 {
	return c.metric(c.t, m, "revoked_backup_due_timestamp_seconds")
}

// checkAlert checks that the alert of overdue backups will fire. Its expression measures from a
// time that has passed, and this time stays the same while backups fail.
func (c *cluster) checkAlert(t *testing.T, due map[*member]float64) {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(repository, "deploy/prometheus/alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "expr: 'time() - revoked_backup_due_timestamp_seconds > "; !strings.Contains(string(rules), want) {
		t.Errorf("alerts.yml: got no %q, want it", want)
	}
	for m, before := range due {
		now := float64(time.Now().UnixNano()) / 1e9
		if got := c.backupDue(m); got != before || got >= now {
			t.Errorf("%s: got a backup due at %f after %f, want the same and before now, %f", m.ID, got, before, now)
		}
	}
}

func modified(t testing.TB, name string) time.Time {
	t.Helper()
	s, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.ModTime()
}

func size(t testing.TB, name string) int64 {
	t.Helper()
	s, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Size()
}

// revokedBefore returns the pairs whose revocation was acknowledged before that time.
func (l *load) revokedBefore(at time.Time) []*pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*pair
	for _, p := range l.pairs {
		if p.ackedAt.Load() < int64(at.Sub(l.start)) {
			all = append(all, p)
		}
	}
	return all
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

// restoreLast starts a new cluster of only the first node from a backup. It checks that both tokens
// of every pair that was revoked before the backup are inactive.
func (c *cluster) restoreLast(t *testing.T, backup string, revoked []*pair) {
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
	if len(revoked) == 0 {
		t.Error("got no revoked pair, want some")
	}
	for _, p := range revoked {
		for _, token := range []string{p.access, p.refresh} {
			c.wantActive(t, token, false, m)
		}
	}
	if s, err := c.status(m); err != nil || s.Tokens == 0 {
		t.Errorf("got %+v, %v, want the tokens of the backup", s, err)
	}
}
