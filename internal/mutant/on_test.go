//go:build mutant

package mutant_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every mutant is caught: the tests that the table names pass as they are, and each fails when its
// mutant is on, saying what it is there to say. MUTANTS=all runs those that take long, too.
func TestEveryMutantIsCaught(t *testing.T) {
	dir, binaries := t.TempDir(), map[string]string{}
	sound := map[string]bool{}
	for _, c := range caught {
		if c.byHand && os.Getenv("MUTANTS") != "all" {
			continue
		}
		t.Run(string(c.by)+"/"+c.test, func(t *testing.T) {
			if binaries[c.pkg] == "" {
				binaries[c.pkg] = compile(t, dir, c.pkg)
			}
			if control := c.pkg + c.test + c.env; !sound[control] {
				if out, err := run(binaries[c.pkg], c, ""); err != nil {
					t.Fatalf("without a mutant: got %v, want a pass:\n%s", err, out)
				} else if strings.Contains(out, "no tests to run") {
					t.Fatalf("no test is named %s", c.test)
				}
				sound[control] = true
			}
			out, err := run(binaries[c.pkg], c, string(c.by))
			switch {
			case err == nil:
				t.Errorf("%s passes with the mutant %s, want it to fail", c.test, c.by)
			case !strings.Contains(out, c.says):
				t.Errorf("%s fails with the mutant %s, but does not say %q:\n%s", c.test, c.by, c.says, out)
			}
		})
	}
}

func compile(t *testing.T, dir, pkg string) string {
	t.Helper()
	path := filepath.Join(dir, pkg+".test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "mutant", "-o", path, "revoked/"+pkg).CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return path
}

func run(binary string, c catch, mutant string) (string, error) {
	cmd := exec.Command(binary, "-test.run", anchored(c.test), "-test.timeout", "10m", "-test.failfast")
	cmd.Dir = filepath.Join("..", "..", c.pkg)
	cmd.Env = append(os.Environ(), "REVOKED_MUTANT="+mutant, c.env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// anchored is a test's name as a pattern that matches no longer name at the first level.
func anchored(test string) string {
	first, rest, sub := strings.Cut(test, "/")
	if !sub {
		return "^" + first + "$"
	}
	return "^" + first + "$/" + rest
}
