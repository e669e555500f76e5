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

// A sync that fails once: the node ends at once, without trying it again, and says why; the others go on;
// started again it reads its disk anew and has everything.
func TestSyncErrors(t *testing.T) {
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
		{"the disk of the leader is gone", true, "fdatasync,fsync,sync_file_range,pwrite64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := c.leader(t)
			if !tt.leads {
				m = c.without(m)[0]
			}
			trace, _ := inject(t, m, tt.calls, "error=EIO")
			code, last := m.proc.exit(t), tail(m.Log, 60)
			if code != 1 || !strings.Contains(last, "revoked: the node had to end: ") || !strings.Contains(last, "input/output error") {
				t.Errorf("got exit code %d and the last words %q, want an input/output error and an end because of it", code, last)
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

// checkNotRetried wants a call that failed, and no sync of a file after one that failed: it may lie.
func checkNotRetried(t *testing.T, trace string) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	injected, failed := false, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		injected = injected || strings.Contains(line, "INJECTED") // where writes fail as well, the first may be one
		_, call, ok := strings.Cut(line, "sync(")
		if !ok {
			continue
		}
		file, _, _ := strings.Cut(call, ")") // number and name
		if failed[file] {
			t.Errorf("a sync of file %s after one that failed: %s", file, line)
		}
		failed[file] = failed[file] || strings.Contains(line, "INJECTED")
	}
	if !injected {
		t.Errorf("no call failed: the trace is %q", text)
	}
}

// Syncs that hang: the cluster goes on without the node, whatever it was; it never says active of what
// was revoked meanwhile; and when they end it comes back.
func TestSyncStalls(t *testing.T) {
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
				return errors.New("nobody leads")
			})
			c.mustRevoke(t, others[0], "revoked-while-a-disk-hangs")
			c.awaitReady(t, others...)
			awaitWrites(t, l, 20)
			end()
			if !m.proc.runs() || leads && strings.Contains(tail(m.Log, 20), "this node must end") {
				if code := m.proc.exit(t); code != 1 { // it led and could not hand over
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

// needTracer fails the test, or outside CI skips it, where it cannot inject errors into system calls.
func needTracer(t *testing.T) {
	t.Helper()
	needRoot(t, "errors in system calls")
	need(t, "strace")
}

// inject has system calls of a node that runs go wrong until end, and returns the file in which they
// are written down.
func inject(t *testing.T, m *member, calls, how string) (trace string, end func()) {
	t.Helper()
	trace = filepath.Join(t.TempDir(), "trace")
	p := startProcess(t, "", nil, "strace", "-f", "-y", "-qq", "-p", fmt.Sprint(m.proc.cmd.Process.Pid), "-o", trace,
		"-e", "trace="+calls, "-e", "inject="+calls+":"+how)
	await(t, "the tracer", func() error {
		if !p.runs() { // with the node, or by itself
			select {
			case <-m.proc.done:
			case <-time.After(longStop):
				t.Fatalf("strace ended: %s", p.out.String())
			}
		}
		return allTraced(m.proc)
	})
	return trace, p.kill // the kernel lets the node go on
}

// allTraced is nil when every thread of the process is traced, or it has ended.
func allTraced(p *process) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, name := range tasks {
		status, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(status), "TracerPid:\t0\n") {
			return fmt.Errorf("%s is not traced", name)
		}
	}
	return nil
}

// A file system that turns read-only under a node, as file systems do that meet an error: the node ends, the
// others go on, and with the disk back it has everything.
func TestReadOnlyDisk(t *testing.T) {
	needRoot(t, "file systems of the test's own")
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
			t.Errorf("got exit code %d and the last words %q, want a read-only file system and an end because of it", code, last)
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
