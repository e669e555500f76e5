//go:build system

package systemtest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
)

// longStop stops a test that would hang.
const longStop = 2 * time.Minute

// A process is a program that this test starts and stops.
type process struct {
	*devcluster.Process
	name string
	cmd  *exec.Cmd
	out  lockedBuffer // both streams, unless a file gets them
}

// startProcess starts a program with its output in the file log, or in out if log is empty. The
// kernel kills the program when this process exits, and test cleanup kills it if it still runs.
func startProcess(t testing.TB, log string, setup func(*exec.Cmd), name string, args ...string) *process {
	t.Helper()
	exe, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name + " " + strings.Join(args, " "), cmd: exec.Command(exe, args...)}
	p.cmd.Env = cleanEnvironment()
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if log != "" {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p.cmd.Stdout, p.cmd.Stderr = f, f
	}
	if setup != nil {
		setup(p.cmd)
	}
	if p.Process, err = devcluster.Start(p.cmd); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	t.Cleanup(func() { // with its children: the child of `go run` would keep the output open
		if p.Running() {
			syscall.Kill(-p.PID(), syscall.SIGKILL)
		}
		<-p.Done()
	})
	return p
}

// exit waits for the process to exit by itself and returns its exit code, -1 after a signal.
func (p *process) exit(t testing.TB) int {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(longStop):
		t.Fatalf("%s: did not exit; output:\n%s", p.name, p.out.String())
	}
	var exit *exec.ExitError
	switch {
	case p.Err() == nil:
		return 0
	case errors.As(p.Err(), &exit):
		return exit.ExitCode()
	}
	t.Fatalf("%s: %v", p.name, p.Err())
	return -1
}

// runProgram runs revoked with stdin until it exits and returns its exit code and output.
func runProgram(t testing.TB, env []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runOther(t, "revoked", env, stdin, args...)
}

// runOther is runProgram with another program.
func runOther(t testing.TB, program string, env []string, stdin string, args ...string) (
	code int, stdout, stderr string,
) {
	t.Helper()
	var out, messages strings.Builder
	p := startProcess(t, "", func(c *exec.Cmd) {
		c.Env = append(c.Env, env...)
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &messages
	}, program, args...)
	code = p.exit(t)
	return code, out.String(), messages.String()
}

// A lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await calls f repeatedly until it returns nil. It fails the test with the last error of f after
// longStop.
func await(t testing.TB, what string, f func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	stop := time.After(longStop)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-stop:
			t.Fatalf("wait for %s: %v", what, err)
		}
	}
}
