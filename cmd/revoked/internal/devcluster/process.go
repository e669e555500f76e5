package devcluster

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// A Process is a child process. Its methods may be called concurrently.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when Wait has returned
	err  error         // read after done
}

// Start starts cmd in its own process group: a Ctrl-C in the terminal reaches only this process,
// which then shuts its children down.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = childAttributes()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig is bound to the thread that starts the child. So this goroutine keeps its thread
		// until the child exits.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has exited.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns the error of [exec.Cmd.Wait]. Call it only after Done is closed.
func (p *Process) Err() error { return p.err }

// Running reports whether the process has not exited.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends s unless the process has exited.
func (p *Process) Signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // the only error is that the process has exited
}

// Kill sends SIGKILL and waits until the process has exited.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// ExitReason formats the result of [exec.Cmd.Wait].
func ExitReason(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// LastLines returns the last n lines of a log file, or the text of the read error.
func LastLines(name string, n int) string {
	const tail = 16 << 10
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, size-tail), tail))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
