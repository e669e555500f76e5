package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v3"

	"revoked"
	"revoked/api/serve"
	"revoked/client"
	"revoked/cmd/revoked/internal/auditlog"
	"revoked/cmd/revoked/internal/backup"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/server"
	"revoked/cmd/revoked/internal/traces"
	"revoked/node/jwt"
	"revoked/node/nodetest"
)

// repository is the root of the tree, relative to this package.
const repository = "../.."

// A block is a fenced block of a page.
type block struct {
	page, lang, text string
	line             int
	test             string // argument of the comment `<!-- test -->` or `<!-- test: what -->` above it; "-": no comment
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

// blocks returns the fenced blocks of a page, from top to bottom.
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
		t.Fatalf("%v: the block is not closed", open)
	}
	return out
}

// tested returns the blocks of a page whose comment starts with kind.
func tested(t *testing.T, page, kind string) []block {
	t.Helper()
	var out []block
	for _, b := range blocks(t, page) {
		if b.test == kind || kind != "" && strings.HasPrefix(b.test, kind) {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s: got no block for the test %q", page, kind)
	}
	return out
}

// tableRows returns the rows of all tables of a page whose first cell is code: `name`. It trims the
// cells.
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

func unquote(cell string) string { return strings.Trim(cell, "`") }

// configure.md has a row for each setting, with its default, and no other rows of settings.
func TestDocs_Settings_HaveRows(t *testing.T) {
	rows := map[string][]string{}
	known := map[string]bool{}
	for _, s := range config.Table() {
		known[s.Key] = true
	}
	for _, cells := range tableRows(readPage(t, "docs/configure.md")) {
		key := unquote(cells[0])
		if !regexp.MustCompile(`^[a-z0-9_]+$`).MatchString(key) {
			continue
		}
		if !known[key] {
			t.Errorf("docs/configure.md: %s is not a setting", key)
		}
		if rows[key] == nil {
			rows[key] = cells
		}
	}
	for _, s := range config.Table() {
		row := rows[s.Key]
		if row == nil {
			t.Errorf("docs/configure.md has no row for %s", s.Key)
			continue
		}
		// A setting without a default is required, optional, or derived from another.
		if got := unquote(row[1]); s.Default != "" && got != s.Default {
			t.Errorf("docs/configure.md: default of %s: got %s, want %s", s.Key, got, s.Default)
		}
		if len(row) < 3 || row[len(row)-1] == "" {
			t.Errorf("docs/configure.md: %s has no meaning", s.Key)
		}
	}
	sample := readPage(t, "deploy/revoked.sample.yml")
	for key := range known {
		if !strings.Contains(sample, "\n"+key+":") {
			t.Errorf("deploy/revoked.sample.yml has no %s", key)
		}
	}
}

// The documented ranges of the replicated settings match the rules.
func TestDocs_SettingRanges_MatchRules(t *testing.T) {
	bounds := map[string]config.Setting{}
	for _, s := range config.Table() {
		bounds[s.Key] = s
	}
	for _, cells := range tableRows(readPage(t, "docs/configure.md")) {
		if len(cells) != 4 {
			continue
		}
		least, most, ok := strings.Cut(cells[2], " to ")
		b := bounds[unquote(cells[0])]
		if !ok || b.Key == "" {
			t.Errorf("docs/configure.md: range of %s: got %q", cells[0], cells[2])
			continue
		}
		minimum, maximum := b.Min, b.Max
		low, errLow := time.ParseDuration(least)
		high, errHigh := time.ParseDuration(most)
		if n, err := strconv.Atoi(least); err == nil { // a count, of which Min and Max are numbers
			low, errLow = time.Duration(n), nil
			n, errHigh = strconv.Atoi(most)
			high = time.Duration(n)
		}
		if errLow != nil || errHigh != nil || low != minimum || high != maximum {
			t.Errorf("docs/configure.md: range of %s: got %s, want %v to %v", b.Key, cells[2], minimum, maximum)
		}
	}
}

// metrics.md has a row for each registered metric of the program, with its labels, and no others.
func TestDocs_Metrics_HaveRows(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	registered := registeredMetrics(t)
	documented := map[string][]string{}
	for _, cells := range tableRows(readPage(t, "docs/metrics.md")) {
		name := unquote(cells[0])
		if len(cells) != 3 || !strings.HasPrefix(name, "revoked_") {
			continue
		}
		labels := []string{}
		for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[1], -1) {
			labels = append(labels, m[1])
		}
		slices.Sort(labels)
		documented[name] = labels
	}
	if diff := cmp.Diff(registered, documented); diff != "" {
		t.Errorf("metrics and their labels: -registered +docs/metrics.md:\n%s", diff)
	}
}

// The shipped alerts are those of metrics.md, and name only registered metrics and labels that they
// have. Each alert about trusted issuers has a paragraph in operate.md.
func TestDocs_Alerts_NameMetrics(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For string
				Annotations      struct{ Summary string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(readPage(t, "deploy/prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	registered, manual := registeredMetrics(t), readPage(t, "docs/metrics.md")
	_, runbook, _ := strings.Cut(readPage(t, "docs/operate.md"), "### Alerts about trusted issuers")
	metric := regexp.MustCompile(`(revoked_[a-z_]+)(?:\{([^}]*)\})?`)
	label, by := regexp.MustCompile(`([a-z_]+)[!=]`), regexp.MustCompile(`by \(([a-z_]+)\)`)
	issuers := 0
	for _, r := range file.Groups[0].Rules {
		if row := fmt.Sprintf("| %s | `%s` | %s |", r.Annotations.Summary, r.Expr, r.For); !strings.Contains(manual, row) {
			t.Errorf("%s: got no row %s in docs/metrics.md, want one", r.Alert, row)
		}
		if strings.Contains(r.Expr, "sum(") && strings.Contains(r.Expr, " < ") && !strings.Contains(r.Expr, "or vector(0)") {
			t.Errorf("%s: got %s, which is silent if no node has the series", r.Alert, r.Expr)
		}
		about := false
		for _, m := range metric.FindAllStringSubmatch(r.Expr, -1) {
			name := strings.TrimSuffix(m[1], "_bucket")
			labels, ok := registered[name]
			if !ok {
				t.Errorf("%s: got metric %s, which does not exist", r.Alert, name)
			}
			named := label.FindAllStringSubmatch(m[2], -1)
			if name == m[1] && !strings.HasPrefix(r.Expr, "sum by (instance)") {
				named = append(named, by.FindAllStringSubmatch(r.Expr, -1)...)
			}
			for _, l := range named {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: got label %s, which %s does not have", r.Alert, l[1], name)
				}
			}
			about = about || regexp.MustCompile("_(issuers?|jwt|deny)(_|$)").MatchString(name)
		}
		if !about {
			continue
		}
		issuers++
		title := strings.ToUpper(r.Annotations.Summary[:1]) + r.Annotations.Summary[1:]
		if !strings.Contains(runbook, "* **"+title+".** ") {
			t.Errorf("%s: got no paragraph %q in docs/operate.md, want one", r.Alert, title)
		}
	}
	if issuers < 6 {
		t.Errorf("got %d alerts about trusted issuers, want at least 6", issuers)
	}
}

// registeredMetrics returns the sorted labels of each metric of the program.
func registeredMetrics(t *testing.T) map[string][]string {
	t.Helper()
	registered := map[string][]string{}
	reg, err := server.NewRegistry(server.Build{}, "node1", "here")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.NewMetrics(reg); err != nil {
		t.Fatal(err)
	}
	if _, err := traces.NewMetrics(reg); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.NewMetrics(reg); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := serve.New(serve.Config{Listener: listener, Handler: http.NotFoundHandler(), Registerer: reg})
	defer port.Close()
	reg.MustRegister(new(serve.Certificate).Metric())
	describe(reg, registered)
	describe(nodetest.Start(t, nodetest.Options{Nodes: 1}).Members[0].Registry, registered)
	return registered
}

// describe adds the metrics of a registry and the sorted names of their labels.
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

// The code contains each message that the log section of operate.md quotes.
func TestDocs_LogMessages_Exist(t *testing.T) {
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
				t.Errorf("docs/operate.md: no code logs %q", m[1])
			}
		}
	}
}

// Every command and flag that a page shows exists.
func TestDocs_Commands_Exist(t *testing.T) {
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
	if cmd == root && !slices.Contains([]string{"help", "completion", "--help"}, rest[0]) {
		t.Errorf("%v: no such command: %s", b, text)
		return
	}
	if len(rest) > 0 && cmd.HasSubCommands() && cmd != root &&
		!strings.HasPrefix(rest[0], "-") && !strings.Contains(rest[0], "|") {
		t.Errorf("%v: no such command: %s", b, text)
	}
	for _, w := range rest {
		name, _, _ := strings.Cut(strings.TrimRight(w, "].,"), "=")
		if !hasFlag(cmd, strings.TrimLeft(name, "[")) {
			t.Errorf("%v: %s has no flag %s: %s", b, cmd.CommandPath(), name, text)
		}
	}
}

func findCommand(in *cobra.Command, name string) *cobra.Command {
	for _, c := range in.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

// hasFlag reports whether w is a flag of the command, or not a flag at all.
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

// The records of issuers on the pages are valid. Members that are absent have their defaults.
func TestDocs_IssuerRecords_AreValid(t *testing.T) {
	for page, least := range map[string]int{"docs/issuers.md": 3, "docs/issuer-products.md": 10} {
		records := 0
		for _, b := range blocks(t, page) {
			if b.lang == "json" {
				records++
				checkIssuerRecord(t, b)
			}
		}
		if records < least {
			t.Errorf("%s: got %d records, want at least %d", page, records, least)
		}
	}
}

func checkIssuerRecord(t *testing.T, b block) {
	t.Helper()
	i := revoked.DefaultIssuer()
	record := client.Issuer{
		TokenTypes: i.TokenTypes, SessionClaim: i.SessionClaim,
		MaxLifetime: i.MaxLifetime.String(), ClockSkew: i.ClockSkew.String(),
	}
	decoder := json.NewDecoder(strings.NewReader(b.text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&record); err != nil {
		t.Errorf("%v: %v", b, err)
		return
	}
	if (record.JWKSURI == "") == (record.JWKS == nil) {
		t.Errorf("%v: want exactly one of jwks_uri and jwks", b)
	}
	var problems []error
	lifetime, err := time.ParseDuration(record.MaxLifetime)
	problems = append(problems, err)
	skew, err := time.ParseDuration(record.ClockSkew)
	problems = append(problems, err)
	if record.JWKS != nil {
		i.Keys, err = jwt.ParseInline(record.JWKS)
		problems = append(problems, err)
	}
	i.Name, i.Issuer, i.JWKSURI, i.Algorithms = record.Name, record.Issuer, record.JWKSURI, record.Algorithms
	i.TokenTypes, i.RequiredClaims, i.ForbiddenClaims = record.TokenTypes, record.RequiredClaims, record.ForbiddenClaims
	i.ClientClaim, i.SessionClaim, i.GrantClaim = record.ClientClaim, record.SessionClaim, record.GrantClaim
	i.RevokeSession, i.MaxLifetime, i.ClockSkew = record.RevokeSession, lifetime, skew
	if err := errors.Join(append(problems, revoked.ValidateIssuer(&i))...); err != nil {
		t.Errorf("%v: %v", b, err)
	}
}

// Relative links lead to existing files and headings.
func TestDocs_Links_Resolve(t *testing.T) {
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
func TestDocs_Names_Exist(t *testing.T) {
	tests := regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w+`)
	// A path with a directory of the tree before it, in text or in code.
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
			if name != "TestName" && name != "TestUnit_Condition_Result" &&
				!bytes.Contains(all.Bytes(), []byte("func "+name+"(")) {
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
