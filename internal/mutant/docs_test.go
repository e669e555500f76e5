package mutant_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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

func TestEveryMutantIsInTheTable(t *testing.T) {
	has := map[mutant.Name]bool{}
	for _, c := range caught {
		has[c.by] = has[c.by] || !c.byHand
	}
	for _, m := range mutant.All() {
		if !has[m] {
			t.Errorf("no test that .ci/run can wait for catches %s", m)
		}
	}
}

func TestTheDocsTellWhichTestCatchesWhich(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	was, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docs)
	}
	want := table(t)
	if *update {
		if err := os.WriteFile(docs, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if was != want {
		t.Errorf("the table of %s is not the one of caught_test.go: run go test ./internal/mutant -update", docs)
	}
}

// table tells the mutants in Markdown. What each breaks is its comment in mutant.go.
func table(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("mutant.go")
	if err != nil {
		t.Fatal(err)
	}
	breaks := map[mutant.Name]string{}
	for _, m := range regexp.MustCompile(`Name += "([a-z-]+)" +// (.+)`).FindAllStringSubmatch(string(source), -1) {
		breaks[mutant.Name(m[1])] = m[2]
	}
	var b strings.Builder
	b.WriteString("| mutant | what is broken | package | test that catches it | kind | takes |\n|---|---|---|---|---|---|\n")
	for _, m := range mutant.All() {
		if breaks[m] == "" {
			t.Errorf("mutant.go does not say what %s breaks", m)
		}
		name, what := fmt.Sprintf("`%s`", m), breaks[m]
		for _, c := range caught {
			if c.by != m {
				continue
			}
			how := c.how
			if c.byHand {
				how += ", by hand"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s | %s |\n", name, what, c.pkg, strings.TrimSpace(c.env+" "+c.test), how, c.takes)
			name, what = "", ""
		}
	}
	return b.String()
}

// The tests that the table names exist.
func TestTheTableNamesTests(t *testing.T) {
	for _, c := range caught {
		first, _, _ := strings.Cut(c.test, "/")
		cmd := exec.Command("grep", "-rqE", "--include=*_test.go", fmt.Sprintf(`^func %s\(t \*testing\.T\)`, first), ".")
		cmd.Dir = "../../" + c.pkg
		if err := cmd.Run(); err != nil {
			t.Errorf("%s has no test %s", c.pkg, first)
		}
	}
}
