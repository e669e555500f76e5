//go:build system

package systemtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A step is a block of commands of a page, and the output that the page shows below it.
type step struct {
	commands, output string
	exit             string // exit code of the only command that fails; empty: every command succeeds
}

// readSteps returns the blocks of install.md that comments mark as parts of the example.
func readSteps(t *testing.T) []step {
	t.Helper()
	marked := regexp.MustCompile("(?ms)^<!-- test: regions(| output|, exit \\d) -->\n```[a-z]*\n(.*?)^```$")
	var steps []step
	for _, m := range marked.FindAllStringSubmatch(readRepository(t, "docs/install.md"), -1) {
		if kind, text := m[1], m[2]; kind == " output" {
			steps[len(steps)-1].output = text
		} else {
			steps = append(steps, step{commands: text, exit: strings.TrimPrefix(kind, ", exit ")})
		}
	}
	if len(steps) < 12 {
		t.Fatalf("docs/install.md: got %d blocks of the example, want at least 12", len(steps))
	}
	return steps
}

// A paste is one shell into which the test pastes the blocks of a page.
type paste struct {
	shell *process
	stdin io.Writer
	read  int // bytes of the output of earlier blocks
}

// newPaste starts bash. The shell reports each command that fails outside a condition.
func newPaste(t *testing.T, dir string) *paste {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	p := &paste{stdin: writer}
	p.shell = startProcess(t, "", func(c *exec.Cmd) { c.Dir, c.Stdin = dir, reader }, "bash")
	reader.Close()
	fmt.Fprintln(p.stdin, `trap 'echo "@failed $? in: $BASH_COMMAND"' ERR`)
	return p
}

// run pastes a block and returns its output.
func (p *paste) run(t *testing.T, number int, commands string) string {
	t.Helper()
	end := fmt.Sprintf("@end %d", number)
	if _, err := fmt.Fprintf(p.stdin, "%secho '%s'\n", commands, end); err != nil {
		t.Fatalf("block %d: %v; output:\n%s", number, err, p.shell.out.String())
	}
	var out string
	await(t, fmt.Sprintf("the end of\n%s", commands), func() error {
		out = p.shell.out.String()[p.read:]
		switch {
		case strings.Contains(out, end+"\n"):
			return nil
		case !p.shell.Running():
			t.Fatalf("block %d: the shell exited (%v):\n%s", number, p.shell.Err(), out)
		}
		return fmt.Errorf("output so far:\n%s", out)
	})
	p.read += len(out)
	return strings.TrimSuffix(out, end+"\n")
}

// The test pastes the blocks for five nodes of install.md from top to bottom, unchanged. Every
// block prints the output on the page. After the last block, nothing is left.
func TestInstallPage_FiveNodes_PasteWorks(t *testing.T) {
	needRoot(t, "network namespaces")
	need(t, "ip")
	need(t, "bash")
	before := namespaces(t)
	dir := realDir(t)
	p := newPaste(t, dir)
	t.Cleanup(func() { removeExample(t, dir, before) })
	for i, s := range readSteps(t) {
		out := p.run(t, i, s.commands)
		if strings.Contains(out, "has no netem") {
			t.Log("no netem, so no delay between regions; TestFiveRegions_AnswerLocally delays them with proxies")
		}
		checkStep(t, i, s, out)
		if t.Failed() {
			t.FailNow() // because a reader would stop here
		}
	}
	if left := namespaces(t); left != before {
		t.Errorf("got namespaces %q after the last block, want %q", left, before)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("got %v (error %v) in the directory after the last block, want nothing", entries, err)
	}
	if left := processesIn(t, dir); len(left) > 0 {
		t.Errorf("got processes %v after the last block, want none", left)
	}
}

// checkStep compares the output of a block with the page. The lines of the page must occur in the
// same order, and other lines may be between them. "..." matches any text.
func checkStep(t *testing.T, number int, s step, out string) {
	t.Helper()
	failures := regexp.MustCompile(`@failed (\d+)`).FindAllStringSubmatch(out, -1)
	switch {
	case s.exit == "" && len(failures) > 0, s.exit != "" && (len(failures) != 1 || failures[0][1] != s.exit):
		t.Errorf("block %d: got failures %v, want %q:\n%s\noutput:\n%s", number, failures, s.exit, s.commands, out)
	}
	rest := out
	for line := range strings.Lines(s.output) {
		var want []string
		for word := range strings.FieldsSeq(line) {
			want = append(want, strings.ReplaceAll(regexp.QuoteMeta(word), `\.\.\.`, `.*`))
		}
		at := regexp.MustCompile(strings.Join(want, `[ \t]+`)).FindStringIndex(rest)
		if at == nil {
			t.Errorf("block %d: got output\n%s\nwant next the line %q of the page", number, out, line)
			return
		}
		rest = rest[at[1]:]
	}
}

// namespaces lists the named network namespaces of this machine.
func namespaces(t *testing.T) string {
	t.Helper()
	out, err := tool(t, nil, "ip", "netns", "list")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// processesIn returns the ids of the processes whose working directory is dir or below dir.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
			out = append(out, filepath.Base(filepath.Dir(link)))
		}
	}
	return out
}

// removeExample removes the processes that a failed example left, and the namespaces that did not
// exist before.
func removeExample(t *testing.T, dir, before string) {
	t.Helper()
	if t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(dir, "*", "*", "log"))
		for _, log := range logs {
			t.Logf("end of %s:\n%s", log, tail(log, 12))
		}
	}
	for _, id := range processesIn(t, dir) {
		if out, err := exec.Command("kill", "-9", id).CombinedOutput(); err != nil {
			t.Logf("kill %s: %v %s", id, err, bytes.TrimSpace(out))
		}
	}
	for line := range strings.Lines(namespaces(t)) {
		if strings.Contains("\n"+before, "\n"+line) {
			continue
		}
		if _, err := tool(t, nil, "ip", "netns", "del", strings.Fields(line)[0]); err != nil {
			t.Log(err)
		}
	}
}
