package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// parentFD is the descriptor at which a child finds the read end of its parent's pipe. When the
// parent ends, however it ends, the kernel closes the write end; the child reads that and stops.
const parentFD = 3

// A devChild is the process of one node.
type devChild struct {
	node  devNode
	pid   int
	proc  *os.Process
	alive *os.File      // write end of the pipe; held open as long as the child is wanted
	done  chan struct{} // closed when the process has ended and was waited for
	err   error         // how it ended; read after done
}

// startChild starts exe as the node. The child is in a process group of its own, so that a Ctrl-C of
// the terminal reaches the parent only, which then stops the children in order.
func startChild(exe string, n devNode, env []string) (*devChild, error) {
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, privateMode)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := &exec.Cmd{
		Path:        exe,
		Args:        []string{"revoked", "server", "--config", n.Config, fmt.Sprintf("--parent-fd=%d", parentFD)},
		Env:         env,
		Stdout:      log,
		Stderr:      log,
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: childAttributes(),
	}
	c := &devChild{node: n, alive: ours, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel's signal at the death of the parent is bound to the thread that started the
		// child: this goroutine keeps its thread until the child has ended, and takes it along.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %s: %w", n.ID, err)
	}
	c.proc, c.pid = cmd.Process, cmd.Process.Pid
	return c, nil
}

// signal sends s to the child unless it has ended.
func (c *devChild) signal(s syscall.Signal) {
	// The one error there is, that it has ended, is what the caller wants.
	_ = c.proc.Signal(s)
}

// stopChildren asks all that run to stop, waits for them, and kills those that are not gone when ctx ends. The
// error tells of each that did not end in order, with the end of its log.
func stopChildren(ctx context.Context, children []*devChild) error {
	children = slices.DeleteFunc(slices.Clone(children), (*devChild).ended)
	for _, c := range children {
		c.signal(syscall.SIGTERM)
		// A child that its user stopped with SIGSTOP could not end otherwise.
		c.signal(syscall.SIGCONT)
		c.alive.Close()
	}
	var errs []error
	for _, c := range children {
		select {
		case <-c.done:
		case <-ctx.Done():
			c.signal(syscall.SIGKILL)
			<-c.done
		}
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s did not stop in order (%s); its data is safe; the end of its log:\n%s",
				c.node.ID, howEnded(c.err), lastLines(c.node.Log, 10)))
		}
	}
	return errors.Join(errs...)
}

// ended reports whether the process has ended.
func (c *devChild) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// childEnvironment is ours without what would go before the files of the nodes.
func childEnvironment(environ []string, written []devSetting) []string {
	drop := map[string]bool{"REVOKED_CONFIG": true}
	for _, w := range written {
		drop[setting{key: w.key}.env()] = true
	}
	for _, key := range []string{"api_advertise", "cluster_advertise", "gossip_advertise", "metrics_addr", "bootstrap_admin_secret_file", "non_voter", "rejoin"} {
		drop[setting{key: key}.env()] = true
	}
	var env []string
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); !drop[name] {
			env = append(env, e)
		}
	}
	return env
}

// lastLines returns the last n lines of a log.
func lastLines(name string, n int) string {
	const tail = 16 << 10
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		if _, err := f.Seek(-tail, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// watchParent calls stop when the parent at the other end of the pipe is gone. It ends then, or with
// the process: a read that waits cannot be taken back.
func watchParent(fd int, stop func()) {
	f := os.NewFile(uintptr(fd), "parent")
	if f == nil {
		stop()
		return
	}
	defer f.Close()
	// Nothing is ever written: anything that is read, or the end, means the same.
	_, _ = f.Read(make([]byte, 1))
	stop()
}

// devStopTime is how long dev waits for its children, which have a limit of their own.
const devStopTime = 20 * time.Second
