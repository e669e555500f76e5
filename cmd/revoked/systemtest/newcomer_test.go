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

// What a newcomer does: clone, build, run dev, paste the lines that it prints, Ctrl-C.
func TestNewcomer(t *testing.T) {
	need(t, "git")
	need(t, "curl")
	repository, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(realFolder(t), "revoked")
	p := startProcess(t, "", func(c *exec.Cmd) {
		// The checkout may belong to another user than the one who tests.
		c.Env = append(c.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	}, "git", "clone", "--quiet", "file://"+repository, clone)
	if code := p.exit(t); code != 0 {
		t.Fatalf("git clone: exit code %d: %s", code, p.out.String())
	}
	inClone := func(c *exec.Cmd) { c.Dir = clone }
	if p = startProcess(t, "", inClone, "go", "build", "-buildvcs=false", "./cmd/revoked"); p.exit(t) != 0 {
		t.Fatalf("go build: %s", p.out.String())
	}
	dev := startProcess(t, "", inClone, "go", "run", "-buildvcs=false", "./cmd/revoked", "dev", "--api-port", strconv.Itoa(freePorts(t, 3)))
	printed := awaitPrinted(t, dev, "Stop with Ctrl-C.")
	_, rest, _ := strings.Cut(printed, "Everything is in ")
	dir, _, ok := strings.Cut(rest, "\n")
	if !ok {
		t.Fatalf("dev does not say where everything is: %s", printed)
	}
	c := readCluster(t, dir)
	pasteLines(t, clone, printed)
	if err := syscall.Kill(-dev.cmd.Process.Pid, syscall.SIGINT); err != nil { // what a terminal does
		t.Fatal(err)
	}
	dev.exit(t) // the code is that of `go run`
	c.awaitGone(t)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// pasteLines runs the printed lines in a shell, as they are.
func pasteLines(t *testing.T, clone, printed string) {
	t.Helper()
	var script strings.Builder
	var curls int
	for line := range strings.Lines(printed) {
		switch {
		case strings.HasPrefix(line, "curl "):
			curls++
			script.WriteString(line)
		case strings.HasPrefix(line, "export "), strings.HasSuffix(line, " members\n"): // under `go run` by `go run`
			script.WriteString(line)
		}
	}
	if curls != 4 {
		t.Errorf("got %d curl lines, want 4:\n%s", curls, printed)
	}
	sh := startProcess(t, "", func(c *exec.Cmd) {
		c.Stdin = strings.NewReader(script.String())
		c.Env = append(c.Env, "PATH="+clone+string(os.PathListSeparator)+os.Getenv("PATH"))
	}, "sh", "-e")
	if code := sh.exit(t); code != 0 {
		t.Errorf("the printed lines end with %d: %s", code, sh.out.String())
	}
	out := sh.out.String()
	at := 0
	for _, want := range []string{`"state":"active"`, `"active":true`, "{}\n", `{"active":false}`, "node3"} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("the printed lines do not answer %q, in its place, but:\n%s", want, out)
		}
		at += i + len(want)
	}
}

// dev that is killed takes its nodes along, and so does one whose terminal is closed.
func TestDevTakesItsNodesAlong(t *testing.T) {
	// Whoever runs the tests may have SIGHUP ignored, as nohup does, and dev would inherit that; a signal
	// that is caught here is back at its default there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGHUP, syscall.SIGTERM} {
		dir := filepath.Join(realFolder(t), "dev")
		dev := startProcess(t, "", nil, "revoked", "dev", "--dir", dir, "--api-port", strconv.Itoa(freePorts(t, 3)))
		awaitPrinted(t, dev, "Stop with Ctrl-C.")
		c := readCluster(t, dir)
		dev.signal(s)
		code := dev.exit(t)
		if want := map[bool]int{true: -1, false: 0}[s == syscall.SIGKILL]; code != want {
			t.Errorf("%v: got exit code %d, want %d: %s", s, code, want, dev.out.String())
		}
		c.awaitGone(t)
	}
}

// awaitPrinted returns what a program has printed once the text is among it.
func awaitPrinted(t testing.TB, p *process, text string) string {
	t.Helper()
	await(t, fmt.Sprintf("%s to print %q", p.name, text), func() error {
		if !p.runs() {
			t.Fatalf("%s ended (%v): %s", p.name, p.err, p.out.String())
		}
		if out := p.out.String(); !strings.Contains(out, text) {
			return fmt.Errorf("so far: %s", out)
		}
		return nil
	})
	return p.out.String()
}

// awaitGone returns when no process of the cluster is left and its ports are free.
func (c *cluster) awaitGone(t testing.TB) {
	t.Helper()
	for _, m := range c.Nodes {
		await(t, m.ID+" to be gone", func() error {
			if err := syscall.Kill(m.PID, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is there: %v", m.PID, err)
			}
			for _, addr := range []string{strings.TrimPrefix(m.API, "https://"), m.Cluster, m.Gossip} {
				if !isFree(addr) {
					return fmt.Errorf("%s is taken", addr)
				}
			}
			return nil
		})
	}
}
