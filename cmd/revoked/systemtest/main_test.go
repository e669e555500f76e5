//go:build system

package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain builds the program once and puts it first in the PATH. Tests and the shell lines that
// the program prints call it as "revoked".
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	bin, err := os.MkdirTemp("", "revoked-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	args := []string{"build", "-buildvcs=false", "-o", filepath.Join(bin, "revoked")}
	if os.Getenv("REVOKED_RACE") != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "revoked/cmd/revoked")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// cleanEnvironment returns this process's environment without variables that configure the program.
func cleanEnvironment(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REVOKED_") {
			env = append(env, v)
		}
	}
	return append(env, more...)
}
