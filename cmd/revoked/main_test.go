package main

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"revoked/cmd/revoked/internal/cli"
)

// TestMain makes the test binary the program: scripts and cluster tests run it as "revoked".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"revoked": main})
}

// TestScripts runs the scripts of testdata/script: command lines, exit codes, messages.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			// Variables of the user's own cluster must not affect the tests.
			for _, v := range os.Environ() {
				if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "REVOKED_") {
					env.Setenv(name, "")
				}
			}
			return nil
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"code": code},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// Output that cannot be written is a failure.
func TestRun_FailedStdout_ExitsWith1(t *testing.T) {
	for _, args := range [][]string{
		{"version"}, {"version", "-o", "json"}, {"--help"}, {"help", "server"}, {"client", "create", "--help"},
		{"completion", "bash"}, {"keygen"},
	} {
		var stderr bytes.Buffer
		code := run(args, strings.NewReader(""), fullDisk{}, &stderr)
		if want := "revoked: write /dev/stdout: no space left on device\n"; code != cli.ExitFailed ||
			stderr.String() != want {
			t.Errorf("%v: got exit %d and %q, want %d and %q", args, code, stderr.String(), cli.ExitFailed, want)
		}
	}
	if code := run([]string{"version", "-o", "xml"}, strings.NewReader(""), fullDisk{},
		io.Discard); code != cli.ExitUsage {
		t.Errorf("wrong usage: got exit %d, want %d", code, cli.ExitUsage)
	}
}

// A fullDisk fails every write, like standard output to /dev/full.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
}

// code runs the program and expects the exit code in its first argument: code 64 revoked frob.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program [argument...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("got exit code %s, want %s", got, args[0])
	}
}
