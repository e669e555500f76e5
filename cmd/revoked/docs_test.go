package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"revoked/node/nodetest"
)

// repository is the root of the tree, seen from this package.
const repository = "../.."

// A block is a fenced block of a page.
type block struct {
	page, lang, text string
	line             int
	test             string // of the comment `<!-- test -->` or `<!-- test: what -->` above it; "-": none
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// readPage returns a page of the documentation; name is relative to the root.
func readPage(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pages lists every page of the tree, relative to the root.
func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(os.DirFS(repository), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			out = append(out, path)
		}
		return nil
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("got %d pages, %v", len(out), err)
	}
	return out
}

// blocks returns the fenced blocks of a page, in order.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var out []block
	var open *block
	comment := "-"
	for i, line := range strings.Split(readPage(t, page), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isFence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case isFence:
			open = &block{page: page, lang: fence, line: i + 1, test: comment}
			comment = "-"
		case strings.HasPrefix(line, "<!-- test"):
			comment = strings.TrimLeft(strings.TrimSuffix(strings.TrimPrefix(line, "<!-- test"), "-->"), ":")
			comment = strings.TrimSpace(comment)
		}
	}
	if open != nil {
		t.Fatalf("%v: the block does not end", open)
	}
	return out
}

// tested returns the blocks of a page that are to be run, those whose comment begins with kind.
func tested(t *testing.T, page, kind string) []block {
	t.Helper()
	var out []block
	for _, b := range blocks(t, page) {
		if b.test == kind || kind != "" && strings.HasPrefix(b.test, kind) {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s: no block is marked for the test %q", page, kind)
	}
	return out
}

// tableRows returns the rows of all tables of a page whose first cell is code: `name`. The cells are
// trimmed.
func tableRows(page string) [][]string {
	var out [][]string
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "\x00"), "|"), "|")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
		}
		out = append(out, cells)
	}
	return out
}

func code1(cell string) string { return strings.Trim(cell, "`") }

// Every setting has its row in configure.md, with its default, and no row tells of one that is not.
func TestDocsTellEverySetting(t *testing.T) {
	rows := map[string][]string{}
	known := map[string]bool{}
	for _, s := range settingsTable() {
		known[s.key] = true
	}
	for _, cells := range tableRows(readPage(t, "docs/configure.md")) {
		key := code1(cells[0])
		if !regexp.MustCompile(`^[a-z_]+$`).MatchString(key) {
			continue
		}
		if !known[key] {
			t.Errorf("docs/configure.md: %s is no setting", key)
		}
		if rows[key] == nil {
			rows[key] = cells
		}
	}
	for _, s := range settingsTable() {
		row := rows[s.key]
		if row == nil {
			t.Errorf("docs/configure.md has no row for %s", s.key)
			continue
		}
		// Without a default of its own a setting is required, has none, or is derived from another.
		if got := code1(row[1]); s.def != "" && got != s.def {
			t.Errorf("docs/configure.md: default of %s: got %s, want %s", s.key, got, s.def)
		}
		if len(row) < 3 || row[len(row)-1] == "" {
			t.Errorf("docs/configure.md: %s has no meaning", s.key)
		}
	}
	sample := readPage(t, "deploy/revoked.sample.yml")
	for key := range known {
		if !strings.Contains(sample, "\n"+key+":") {
			t.Errorf("deploy/revoked.sample.yml has no %s", key)
		}
	}
}

// The ranges of the replicated settings are those that the file takes.
func TestDocsRangesOfReplicatedSettings(t *testing.T) {
	bounds := map[string]boundedDuration{}
	for _, d := range (&config{}).durations() {
		bounds[d.key] = d
	}
	for _, cells := range tableRows(readPage(t, "docs/configure.md")) {
		if len(cells) != 4 {
			continue
		}
		least, most, ok := strings.Cut(cells[2], " to ")
		b := bounds[code1(cells[0])]
		if !ok || b.key == "" {
			t.Errorf("docs/configure.md: range of %s: got %q", cells[0], cells[2])
			continue
		}
		low, errLow := time.ParseDuration(least)
		high, errHigh := time.ParseDuration(most)
		if errLow != nil || errHigh != nil || low != b.least || high != b.most {
			t.Errorf("docs/configure.md: range of %s: got %s, want %v to %v", b.key, cells[2], b.least, b.most)
		}
	}
}

// Every metric of our own has its row in metrics.md with its labels, and no row tells of one that is
// not registered.
func TestDocsTellEveryMetric(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	registered := map[string][]string{}
	reg, err := newRegistry("node1", "here")
	if err != nil {
		t.Fatal(err)
	}
	describe(reg, registered)
	describe(nodetest.Start(t, nodetest.Options{Nodes: 1}).Members[0].Registry, registered)

	told := map[string][]string{}
	for _, cells := range tableRows(readPage(t, "docs/metrics.md")) {
		name := code1(cells[0])
		if len(cells) != 3 || !strings.HasPrefix(name, "revoked_") {
			continue
		}
		labels := []string{}
		for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[1], -1) {
			labels = append(labels, m[1])
		}
		slices.Sort(labels)
		told[name] = labels
	}
	if diff := cmp.Diff(registered, told); diff != "" {
		t.Errorf("metrics and their labels: -registered +docs/metrics.md:\n%s", diff)
	}
}

// describe adds the metrics of a registry, and the sorted names of their labels.
func describe(reg *prometheus.Registry, to map[string][]string) {
	descs := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(descs)
		close(descs)
	}()
	name := regexp.MustCompile(`fqName: "(revoked_[^"]*)"`)
	constant := regexp.MustCompile(`constLabels: \{([^}]*)\}`)
	variable := regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
	for d := range descs {
		text := d.String()
		m := name.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		labels := []string{}
		for _, list := range [][]string{constant.FindStringSubmatch(text), variable.FindStringSubmatch(text)} {
			for _, l := range strings.FieldsFunc(list[1], func(r rune) bool { return r == ',' }) {
				l, _, _ = strings.Cut(l, "=")
				labels = append(labels, l)
			}
		}
		slices.Sort(labels)
		to[m[1]] = labels
	}
}

// What the log section of operate.md quotes is what the code logs.
func TestDocsQuoteLogMessages(t *testing.T) {
	var source bytes.Buffer
	err := fs.WalkDir(os.DirFS(repository), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(filepath.Join(repository, path))
		source.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, log, ok := strings.Cut(readPage(t, "docs/operate.md"), "\n## The log\n")
	rows := tableRows(log)
	if !ok || len(rows) < 10 {
		t.Fatalf("docs/operate.md: got %d rows of messages", len(rows))
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	for _, cells := range rows {
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			if !bytes.Contains(source.Bytes(), []byte(`"`+m[1]+`"`)) {
				t.Errorf("docs/operate.md: nothing logs %q", m[1])
			}
		}
	}
}

// Every command and flag that a page shows exists.
func TestDocsCommandsExist(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			for _, line := range strings.Split(strings.ReplaceAll(b.text, "\\\n", " "), "\n") {
				for _, words := range commandLines(line) {
					checkCommand(t, b, words)
				}
			}
		}
		inline := regexp.MustCompile("`(revoked [^`\n]*)`")
		for _, m := range inline.FindAllStringSubmatch(readPage(t, page), -1) {
			checkCommand(t, block{page: page}, strings.Fields(m[1]))
		}
	}
}

// commandLines returns the words of each call of revoked in a line of shell.
func commandLines(line string) [][]string {
	line, _, _ = strings.Cut(line, " #")
	var out [][]string
	for _, part := range regexp.MustCompile(`\|\||&&|[|;()]`).Split(line, -1) {
		words := strings.Fields(part)
		for len(words) > 0 && (strings.Contains(words[0], "=") || words[0] == "sudo" || words[0] == "do") {
			words = words[1:]
		}
		if len(words) > 1 && filepath.Base(words[0]) == "revoked" && !strings.HasSuffix(words[0], ":") {
			out = append(out, words)
		}
	}
	return out
}

func checkCommand(t *testing.T, b block, words []string) {
	t.Helper()
	cmd, rest := newRoot(io.Discard), words[1:]
	root := cmd
	for len(rest) > 0 {
		next := findCommand(cmd, rest[0])
		if next == nil {
			break
		}
		cmd, rest = next, rest[1:]
	}
	text := strings.Join(words, " ")
	if cmd == root && !slices.Contains(planned, rest[0]) && !slices.Contains([]string{"help", "completion", "--help"}, rest[0]) {
		t.Errorf("%v: no such command: %s", b, text)
		return
	}
	if len(rest) > 0 && cmd.HasSubCommands() && cmd != root && !strings.HasPrefix(rest[0], "-") && !strings.Contains(rest[0], "|") {
		t.Errorf("%v: no such command: %s", b, text)
	}
	for _, w := range rest {
		name, _, _ := strings.Cut(strings.TrimRight(w, "].,"), "=")
		if !hasFlag(cmd, strings.TrimLeft(name, "[")) {
			t.Errorf("%v: %s has no flag %s: %s", b, cmd.CommandPath(), name, text)
		}
	}
}

// planned are commands that pages say are not built yet.
var planned = []string{"recover"}

func findCommand(in *cobra.Command, name string) *cobra.Command {
	for _, c := range in.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

// hasFlag tells whether w is no flag, or one of the command.
func hasFlag(cmd *cobra.Command, w string) bool {
	switch {
	case w == "-" || w == "--" || w == "--help" || !strings.HasPrefix(w, "-"):
		return true
	case strings.HasPrefix(w, "--"):
		return cmd.Flags().Lookup(w[2:]) != nil
	case len(w) == 2:
		found := false
		cmd.Flags().VisitAll(func(f *pflag.Flag) { found = found || f.Shorthand == w[1:] })
		return found
	}
	return false
}

// Relative links lead somewhere, to a heading too.
func TestDocsLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(filepath.Join(repository, file)); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(readPage(t, file)), anchor) {
				t.Errorf("%s: link to %s: no such heading", page, m[1])
			}
		}
	}
}

// anchors returns the anchors of a page's headings.
func anchors(page string) []string {
	var out []string
	drop := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
			out = append(out, strings.ReplaceAll(drop.ReplaceAllString(text, ""), " ", "-"))
		}
	}
	return out
}

// Files and tests that the pages name exist.
func TestDocsNamesExist(t *testing.T) {
	tests := regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w+`)
	// A path with a folder of the tree before it, in text or in code.
	files := regexp.MustCompile(`\b((?:api|cluster|cmd|deploy|docs|fsm|node|scripts|transport)/[\w./*-]*[\w*])`)
	var all bytes.Buffer
	err := fs.WalkDir(os.DirFS(repository), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(filepath.Join(repository, path))
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		text := readPage(t, page)
		for _, name := range tests.FindAllString(text, -1) {
			if name != "TestName" && !bytes.Contains(all.Bytes(), []byte("func "+name+"(")) {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
		for _, at := range files.FindAllStringSubmatchIndex(text, -1) {
			name := text[at[2]:at[3]]
			if at[2] > 0 && strings.ContainsRune("/.-_@", rune(text[at[2]-1])) && !strings.HasSuffix(text[:at[2]], " ./") {
				continue // part of a longer path or of a URL
			}
			if found, err := filepath.Glob(filepath.Join(repository, name)); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
}
