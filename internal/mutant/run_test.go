//go:build mutant

package mutant_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"revoked/internal/mutant"
)

// MUTANTS=all also runs the tests that take minutes each.
func TestMutants_EachListedTest_Fails(t *testing.T) {
	dir, binaries, sound := t.TempDir(), map[string]string{}, map[string]bool{}
	for _, c := range caught {
		if c.byHand && os.Getenv("MUTANTS") != "all" {
			continue
		}
		t.Run(c.by+"/"+c.test, func(t *testing.T) {
			intact := binary(t, binaries, dir, c.pkg, "")
			without := c
			if c.how == sim {
				without.env = minutes // longer runs of the intact code are no better control
			}
			if control := c.pkg + c.test + without.env; !sound[control] {
				if out, err := run(intact, without); err != nil {
					t.Fatalf("without a mutant: got %v, want a pass:\n%s", err, out)
				} else if strings.Contains(out, "no tests to run") {
					t.Fatalf("test %s does not exist", c.test)
				}
				sound[control] = true
			}
			broken := binary(t, binaries, dir, c.pkg, c.by)
			out, err := run(broken, c)
			for range c.repeats() { // another search has other seeds
				if err == nil {
					out, err = run(broken, c)
				}
			}
			switch {
			case err == nil:
				t.Errorf("%s passes with the mutant %s, want a failure", c.test, c.by)
			case !strings.Contains(out, c.want):
				t.Errorf("%s fails with the mutant %s: got this output, want %q in it:\n%s", c.test, c.by, c.want, out)
			}
		})
	}
}

// binary returns the compiled tests of pkg with the named mutant, or without one if name is empty.
func binary(t *testing.T, built map[string]string, dir, pkg, name string) string {
	t.Helper()
	key := strings.ReplaceAll(pkg, "/", "-") + "-" + name
	if built[key] != "" {
		return built[key]
	}
	args := []string{"test", "-c", "-tags", "sim", "-ldflags", "-s -w", "-o", filepath.Join(dir, key+".test")}
	if name != "" {
		m, err := mutant.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		overlay, err := m.Overlay(root, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", overlay)
	}
	if out, err := exec.Command("go", append(args, "revoked/"+pkg)...).CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s with mutant %q: %v\n%s", pkg, name, err, out)
	}
	built[key] = filepath.Join(dir, key+".test")
	return built[key]
}

func run(binary string, c catch) (string, error) {
	cmd := exec.Command(binary, "-test.run", anchored(c.test), "-test.timeout", "30m", "-test.failfast")
	cmd.Dir = filepath.Join(root, c.pkg)
	cmd.Env = append(os.Environ(), c.env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// anchored returns a pattern that matches exactly that top-level test.
func anchored(test string) string {
	first, rest, sub := strings.Cut(test, "/")
	if !sub {
		return "^" + first + "$"
	}
	return "^" + first + "$/" + rest
}
