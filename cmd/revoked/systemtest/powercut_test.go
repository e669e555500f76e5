//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test cuts the power of nodes at random instants under load. It cuts one node, two while the
// third is down, and all three. Every acknowledged change survives, even if only the nodes that
// lost power have it. The disks lose unsynced data. REVOKED_CUTS is the number of cuts.
func TestPowerCuts_LoseNothing(t *testing.T) {
	needRoot(t, "the test's own file systems")
	need(t, "mkfs.ext4")
	cuts := number(t, "REVOKED_CUTS", 15)
	c := newCluster(t, 3)
	disks := map[*member]*disk{}
	for _, m := range c.Nodes {
		disks[m] = newDisk(t, m.Data, 128, "commit=600", "-J", "size=4")
	}
	checkUnsyncedIsLost(t, disks[c.Nodes[0]])
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	l := startLoad(t, c, 6, 40)
	for i := range cuts {
		awaitWrites(t, l, 20)
		<-time.After(rand.N(300 * time.Millisecond))
		order := rand.Perm(3)
		victims, away := []*member{}, []*member{}
		for k, at := range order {
			if k <= i%3 {
				victims = append(victims, c.Nodes[at])
			} else if i%3 == 1 {
				away = append(away, c.Nodes[at])
			}
		}
		cutPower(t, victims, away, disks)
		for _, m := range victims {
			c.start(t, m)
		}
		c.awaitReady(t, victims...)
		l.probe(t, victims, 60)
		for _, m := range away {
			c.start(t, m)
		}
		c.awaitReady(t, c.Nodes...)
		l.check(t)
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// cutPower stops the victims, copies their disks, kills them, and mounts the copies. In between, it
// kills the nodes in away.
func cutPower(t testing.TB, victims, away []*member, disks map[*member]*disk) {
	t.Helper()
	for _, m := range victims {
		m.proc.Signal(syscall.SIGSTOP)
	}
	for _, m := range victims {
		await(t, m.ID+" to stop", m.proc.checkStopped) // a sync in progress completes first
	}
	var all sync.WaitGroup
	for _, m := range victims {
		all.Go(func() { disks[m].take(t) })
	}
	all.Wait()
	for _, m := range append(away, victims...) {
		m.proc.Kill()
	}
	for _, m := range victims {
		disks[m].putTaken(t)
	}
}

// checkStopped returns an error unless every thread of the process is stopped.
func (p *process) checkStopped() error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("got %d threads, error %v", len(tasks), err)
	}
	for _, name := range tasks {
		stat, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, state, ok := strings.Cut(string(stat), ") "); err != nil || !ok || state[0] != 'T' {
			return fmt.Errorf("%s: got %q, error %v, want state T", name, stat, err)
		}
	}
	return nil
}

// A disk is a file system in a file.
type disk struct{ image, dir string }

// newDisk creates a file system of mib MiB and mounts it at dir until the end of the test.
func newDisk(t testing.TB, dir string, mib int, options string, mkfs ...string) *disk {
	t.Helper()
	d := &disk{image: dir + ".img", dir: dir}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(mib)<<20), f.Close(), os.MkdirAll(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", append(append([]string{"-q", "-m", "0"}, mkfs...), d.image)...)
	d.mount(t, options)
	t.Cleanup(func() { command(t, "umount", dir) })
	return d
}

func (d *disk) mount(t testing.TB, options string) {
	t.Helper()
	command(t, "mount", "-o", strings.TrimSuffix("loop,"+options, ","), d.image, d.dir)
}

// take copies the disk at this moment, without data that the file system has not written.
func (d *disk) take(t testing.TB) { command(t, "cp", d.image, d.image+".taken") }

// putTaken replaces the disk with the copy.
func (d *disk) putTaken(t testing.TB) {
	t.Helper()
	command(t, "umount", d.dir)
	if err := os.Rename(d.image+".taken", d.image); err != nil {
		t.Fatal(err)
	}
	d.mount(t, "commit=600")
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// checkUnsyncedIsLost tests the harness: synced data survives a cut, unsynced data does not.
func checkUnsyncedIsLost(t *testing.T, d *disk) {
	t.Helper()
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(d.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("text")
		if sync {
			err = errors.Join(err, f.Sync())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("synced", true)
	write("not-synced", false)
	d.take(t)
	d.putTaken(t)
	if text, err := os.ReadFile(filepath.Join(d.dir, "synced")); err != nil || string(text) != "text" {
		t.Fatalf("synced data after a cut: got %q, error %v, want it unchanged", text, err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "not-synced")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("unsynced data after a cut: got error %v, want it lost: these cuts prove nothing", err)
	}
	if err := os.Remove(filepath.Join(d.dir, "synced")); err != nil {
		t.Fatal(err)
	}
}
