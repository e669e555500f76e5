//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A newcomer clones, builds, runs dev, pastes the printed lines and presses Ctrl-C.
func TestNewcomer_FirstSteps_Work(t *testing.T) {
	need(t, "git")
	need(t, "curl")
	repository, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(realDir(t), "revoked")
	p := startProcess(t, "", func(c *exec.Cmd) {
		// The checkout may belong to another user.
		c.Env = append(c.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	}, "git", "clone", "--quiet", "file://"+repository, clone)
	if code := p.exit(t); code != 0 {
		t.Fatalf("git clone: got exit code %d, want 0: %s", code, p.out.String())
	}
	inClone := func(c *exec.Cmd) { c.Dir = clone }
	if p = startProcess(t, "", inClone, "go", "build", "-buildvcs=false", "./cmd/revoked"); p.exit(t) != 0 {
		t.Fatalf("go build: %s", p.out.String())
	}
	dev := startProcess(t, "", inClone, "go", "run", "-buildvcs=false", "./cmd/revoked", "dev", "--api-port",
		strconv.Itoa(freePorts(t, 3)))
	printed := awaitPrinted(t, dev, "Stop with Ctrl-C.")
	_, rest, _ := strings.Cut(printed, "Everything is in ")
	dir, _, ok := strings.Cut(rest, "\n")
	if !ok {
		t.Fatalf("dev: got output %s, want the directory in it", printed)
	}
	c := readCluster(t, dir)
	pasteLines(t, clone, printed)
	if err := syscall.Kill(-dev.cmd.Process.Pid, syscall.SIGINT); err != nil { // as a terminal does
		t.Fatal(err)
	}
	dev.exit(t) // go run sets the exit code
	c.awaitGone(t)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got directory %s after the end (error %v), want it removed", dir, err)
	}
}

// pasteLines runs the printed lines unchanged in a shell.
func pasteLines(t *testing.T, clone, printed string) {
	t.Helper()
	var script strings.Builder
	var curls int
	for line := range strings.Lines(printed) {
		switch {
		case strings.HasPrefix(line, "curl "):
			curls++
			script.WriteString(line)
		case strings.HasPrefix(line, "JWT="), strings.HasPrefix(line, "export "),
			strings.HasSuffix(line, " members\n"): // with go run, these call go run
			script.WriteString(line)
		}
	}
	if curls != 7 {
		t.Errorf("got %d curl lines, want 7:\n%s", curls, printed)
	}
	sh := startProcess(t, "", func(c *exec.Cmd) {
		c.Stdin = strings.NewReader(script.String())
		c.Env = append(c.Env, "PATH="+clone+string(os.PathListSeparator)+os.Getenv("PATH"))
	}, "sh", "-e")
	if code := sh.exit(t); code != 0 {
		t.Errorf("printed lines: got exit code %d, want 0: %s", code, sh.out.String())
	}
	out := sh.out.String()
	at := 0
	for _, want := range []string{
		`"state":"active"`, `"active":true`, "{}\n", `{"active":false}`, // a registered pair
		`"active":true`, "{}\n", `{"active":false}`, "node3", // a JWT
	} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("printed lines: got %[2]s\nwant %[1]q next", want, out)
		}
		at += i + len(want)
	}
}

// The nodes of dev stop when dev is killed or its terminal is closed.
func TestDev_Killed_StopsItsNodes(t *testing.T) {
	// If this process ignores SIGHUP, as under nohup, dev would inherit that. A signal that is
	// caught here has its default action in dev.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGHUP, syscall.SIGTERM} {
		dir := filepath.Join(realDir(t), "dev")
		dev := startProcess(t, "", nil, "revoked", "dev", "--dir", dir, "--api-port", strconv.Itoa(freePorts(t, 3)))
		awaitPrinted(t, dev, "Stop with Ctrl-C.")
		c := readCluster(t, dir)
		dev.Signal(s)
		code := dev.exit(t)
		if want := map[bool]int{true: -1, false: 0}[s == syscall.SIGKILL]; code != want {
			t.Errorf("%v: got exit code %d, want %d: %s", s, code, want, dev.out.String())
		}
		c.awaitGone(t)
	}
}

// awaitPrinted waits until a program has printed text and returns the output.
func awaitPrinted(t testing.TB, p *process, text string) string {
	t.Helper()
	await(t, fmt.Sprintf("%s to print %q", p.name, text), func() error {
		if !p.Running() {
			t.Fatalf("%s: exited (%v): %s", p.name, p.Err(), p.out.String())
		}
		if out := p.out.String(); !strings.Contains(out, text) {
			return fmt.Errorf("so far: %s", out)
		}
		return nil
	})
	return p.out.String()
}

// awaitGone waits until all processes of the cluster have exited and its ports are free.
func (c *cluster) awaitGone(t testing.TB) {
	t.Helper()
	for _, m := range c.Nodes {
		await(t, m.ID+" to be gone", func() error {
			if err := syscall.Kill(m.PID, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d exists: %v", m.PID, err)
			}
			for _, addr := range []string{strings.TrimPrefix(m.API, "https://"), m.Cluster, m.Gossip} {
				if !isFree(addr) {
					return fmt.Errorf("%s: in use", addr)
				}
			}
			return nil
		})
	}
}
