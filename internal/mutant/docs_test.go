package mutant_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"revoked/internal/mutant"
)

var update = flag.Bool("update", false, "write the table of docs/proofs.md")

const (
	docs       = "../../docs/proofs.md"
	tableBegin = "<!-- the mutants: written by go test ./internal/mutant -update -->\n"
	tableEnd   = "<!-- end of the mutants -->\n"
)

func TestMutants_EachMutant_HasATest(t *testing.T) {
	has := map[string]bool{}
	for _, c := range caught {
		has[c.by] = has[c.by] || !c.byHand
	}
	for _, m := range mutant.All {
		if !has[m.Name] {
			t.Errorf("%s: no test that .ci/run runs catches it", m.Name)
		}
	}
}

func TestMutants_DocsTable_IsUpToDate(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	was, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s: markers of the table are missing", docs)
	}
	want := table()
	if *update {
		if err := os.WriteFile(docs, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if was != want {
		t.Errorf("%s: table is out of date; run go test ./internal/mutant -update", docs)
	}
}

// table returns the mutants as a Markdown table.
func table() string {
	var b strings.Builder
	b.WriteString("| mutant | fault | package | test that detects it | kind | duration |\n|---|---|---|---|---|---|\n")
	for _, m := range mutant.All {
		name, what := fmt.Sprintf("`%s`", m.Name), m.Breaks
		for _, c := range caught {
			if c.by != m.Name {
				continue
			}
			how := c.how
			if c.byHand {
				how += ", by hand"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s | %s |\n", name, what, c.pkg, strings.TrimSpace(c.env+" "+c.test), how,
				c.takes)
			name, what = "", ""
		}
	}
	return b.String()
}

func TestMutants_ListedTests_Exist(t *testing.T) {
	for _, c := range caught {
		first, _, _ := strings.Cut(c.test, "/")
		cmd := exec.Command("grep", "-rqE", "--include=*_test.go", fmt.Sprintf(`^func %s\(t \*testing\.T\)`, first), ".")
		cmd.Dir = "../../" + c.pkg
		if err := cmd.Run(); err != nil {
			t.Errorf("%s has no test %s", c.pkg, first)
		}
	}
}
