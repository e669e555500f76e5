//go:build !mutant

package mutant_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"revoked/internal/mutant"
)

// The program as it ships can break no rule: it does not even hold the names of the mutants.
func TestNoMutantIsInTheProgram(t *testing.T) {
	for _, m := range mutant.All() {
		if mutant.On(m) {
			t.Errorf("%s is on in a build without the tag", m)
		}
	}
	program := build(t)
	for _, m := range append(mutant.All(), "REVOKED_MUTANT") {
		if bytes.Contains(program, []byte(m)) {
			t.Errorf("the program contains %q: what guards that mutant is not removed", m)
		}
	}
	// The names can be found where they are.
	tagged := build(t, "-tags", "mutant")
	for _, m := range append(mutant.All(), "REVOKED_MUTANT") {
		if !bytes.Contains(tagged, []byte(m)) {
			t.Errorf("the program with the tag does not contain %q: the search above proves nothing", m)
		}
	}
}

func build(t *testing.T, flags ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "revoked")
	args := append([]string{"build", "-o", path}, flags...)
	if out, err := exec.Command("go", append(args, "revoked/cmd/revoked")...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
