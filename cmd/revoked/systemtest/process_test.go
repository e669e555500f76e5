//go:build system

package systemtest

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// longStop ends a test that would wait for ever. No test expects to come near it.
const longStop = 2 * time.Minute

// A process is a running program that this test started and will end.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
	err  error         // how it ended; read after done

	out lockedBuffer // both streams, unless they go to a file
}

// startProcess starts a program with its output in a file, or collected where log is empty. The kernel
// kills it when this process dies; the test's end kills it if it still runs.
func startProcess(t testing.TB, log string, setup func(*exec.Cmd), name string, args ...string) *process {
	t.Helper()
	exe, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name + " " + strings.Join(args, " "), cmd: exec.Command(exe, args...), done: make(chan struct{})}
	p.cmd.Env = cleanEnvironment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
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
	started := make(chan error)
	go func() {
		// The signal at the death of the parent is bound to the thread that started the child.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	t.Cleanup(func() { // with what it has started: `go run` dies alone, and its child would keep the output open
		if p.runs() {
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
		<-p.done
	})
	return p
}

// runs tells whether the process has not ended.
func (p *process) runs() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends s unless the process has ended.
func (p *process) signal(s syscall.Signal) {
	if p.runs() {
		_ = p.cmd.Process.Signal(s) // it may end meanwhile
	}
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// exit waits for the process to end by itself and returns its exit code, -1 after a signal.
func (p *process) exit(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(longStop):
		t.Fatalf("%s does not end; output:\n%s", p.name, p.out.String())
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		return exit.ExitCode()
	}
	t.Fatalf("%s: %v", p.name, p.err)
	return -1
}

// runProgram runs revoked to its end with what to read, and returns exit code and both streams.
func runProgram(t testing.TB, env []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, messages strings.Builder
	p := startProcess(t, "", func(c *exec.Cmd) {
		c.Env = append(c.Env, env...)
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &messages
	}, "revoked", args...)
	code = p.exit(t)
	return code, out.String(), messages.String()
}

// A lockedBuffer collects output while it is written.
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

// await calls f again and again until it returns nil, and fails the test with its last error when
// that takes too long.
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
