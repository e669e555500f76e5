//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node whose sync fails exits immediately with the cause and does not sync again. The others
// continue. After a restart it reads its disk again and has all data.
func TestSyncError_NodeExits(t *testing.T) {
	needTracer(t)
	c := startCluster(t, 3)
	l := startLoad(t, c, 4, 40)
	for _, tt := range []struct {
		name  string
		leads bool
		calls string
	}{
		{"the log of a follower", false, "fdatasync"},
		{"the log of the leader", true, "fdatasync"},
		{"all writes of the leader", true, "fdatasync,fsync,sync_file_range,pwrite64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := c.leader(t)
			if !tt.leads {
				m = c.without(m)[0]
			}
			trace, _ := inject(t, m, tt.calls, "error=EIO")
			code, last := m.proc.exit(t), tail(m.Log, 60)
			if code != 1 || !strings.Contains(last, "revoked: the node stopped: ") ||
				!strings.Contains(last, "input/output error") {
				t.Errorf("got exit code %d and log %q, want an exit because of an input/output error", code, last)
			}
			checkNotRetried(t, trace)
			c.mustRevoke(t, c.without(m)[0], "revoked-while-a-disk-is-broken")
			c.start(t, m)
			c.awaitReady(t, m)
			l.probe(t, []*member{m}, 40)
		})
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// checkNotRetried fails the test unless a call failed and no file was synced after a failed sync.
// Such a second sync may succeed without writing.
func checkNotRetried(t *testing.T, trace string) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	injected, failed := false, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		injected = injected || strings.Contains(line, "INJECTED") // the first failure may be a write
		_, call, ok := strings.Cut(line, "sync(")
		if !ok {
			continue
		}
		file, _, _ := strings.Cut(call, ")") // number and name
		if failed[file] {
			t.Errorf("file %s: got %s after a failed sync, want none", file, line)
		}
		failed[file] = failed[file] || strings.Contains(line, "INJECTED")
	}
	if !injected {
		t.Errorf("got trace %q, want a failed call", text)
	}
}

// While the syncs of a node hang, the cluster continues without it, leader or not. The node never
// answers active for a token that is revoked during that time, and it returns when the syncs
// complete.
func TestSyncStall_ClusterContinues(t *testing.T) {
	needTracer(t)
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	l.pin()
	for _, leads := range []bool{false, true} {
		t.Run(map[bool]string{false: "a follower", true: "the leader"}[leads], func(t *testing.T) {
			m := c.leader(t)
			if !leads {
				m = c.without(m)[0]
			}
			_, end := inject(t, m, "fdatasync", fmt.Sprintf("delay_enter=%d:when=1+", 10*longStop.Microseconds()))
			others := c.without(m)
			await(t, "another leader", func() error {
				for _, o := range others {
					if s, err := c.status(o); err == nil && s.State == "leader" {
						return nil
					}
				}
				return errors.New("no leader")
			})
			c.mustRevoke(t, others[0], "revoked-while-a-disk-hangs")
			c.awaitReady(t, others...)
			awaitWrites(t, l, 20)
			end()
			if !m.proc.Running() || leads && strings.Contains(tail(m.Log, 20), "node must stop") {
				if code := m.proc.exit(t); code != 1 { // it led and could not transfer leadership
					t.Errorf("got exit code %d, want 1", code)
				}
				c.start(t, m)
			}
			c.awaitReady(t, m)
			l.probe(t, []*member{m}, 40)
		})
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// needTracer skips the test if it cannot inject errors into system calls; in CI it fails the test.
func needTracer(t *testing.T) {
	t.Helper()
	needRoot(t, "errors in system calls")
	need(t, "strace")
}

// inject makes system calls by a running node fail or stall until end is called. It returns the
// file of the trace.
func inject(t *testing.T, m *member, calls, how string) (trace string, end func()) {
	t.Helper()
	trace = filepath.Join(t.TempDir(), "trace")
	p := startProcess(t, "", nil, "strace", "-f", "-y", "-qq", "-p", fmt.Sprint(m.proc.cmd.Process.Pid), "-o", trace,
		"-e", "trace="+calls, "-e", "inject="+calls+":"+how)
	await(t, "the tracer", func() error {
		if !p.Running() { // strace exited with the node or failed
			select {
			case <-m.proc.Done():
			case <-time.After(longStop):
				t.Fatalf("strace ended: %s", p.out.String())
			}
		}
		return allTraced(m.proc)
	})
	return trace, p.Kill // the kernel resumes the node
}

// allTraced returns nil if every thread of the process is traced or the process has exited.
func allTraced(p *process) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, name := range tasks {
		status, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(status), "TracerPid:\t0\n") {
			return fmt.Errorf("thread %s is not traced", name)
		}
	}
	return nil
}

// A file system becomes read-only after an error. The node exits and the others continue. After a
// restart with a writable disk, the node has all data.
func TestReadOnlyDisk_NodeExits(t *testing.T) {
	needRoot(t, "the test's own file systems")
	need(t, "mkfs.ext4")
	c := newCluster(t, 3)
	m := c.Nodes[1]
	d := newDisk(t, m.Data, 96, "")
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	l := startLoad(t, c, 4, 40)
	for _, leads := range []bool{false, true} {
		if leads {
			lead(t, c, m)
		} else {
			lead(t, c, c.Nodes[0])
		}
		awaitWrites(t, l, 10)
		command(t, "mount", "-o", "remount,abort", m.Data)
		code, last := m.proc.exit(t), tail(m.Log, 60)
		if code != 1 && code != 2 || !strings.Contains(last, "read-only file system") {
			t.Errorf("got exit code %d and log %q, want an exit because of a read-only file system", code, last)
		}
		c.mustRevoke(t, c.Nodes[0], "revoked-while-a-disk-is-read-only")
		command(t, "umount", d.dir)
		d.mount(t, "")
		c.start(t, m)
		c.awaitReady(t, c.Nodes...)
		l.probe(t, []*member{m}, 40)
	}
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}
