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
)

// TestMain lets the test binary be the program: stories and the cluster tests run it as "revoked".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"revoked": main})
}

// TestStories runs the stories of testdata/script: command lines, exit codes, messages.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			// The tester's own cluster has no part in this.
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

// Whatever was to be printed and could not be is a failure.
func TestStandardOutputThatFails(t *testing.T) {
	for _, args := range [][]string{
		{"version"}, {"version", "-o", "json"}, {"--help"}, {"help", "server"}, {"client", "create", "--help"}, {"completion", "bash"}, {"keygen"},
	} {
		var stderr bytes.Buffer
		code := run(args, strings.NewReader(""), fullDisk{}, &stderr)
		if want := "revoked: write /dev/stdout: no space left on device\n"; code != exitFailed || stderr.String() != want {
			t.Errorf("%v: got exit %d and %q, want %d and %q", args, code, stderr.String(), exitFailed, want)
		}
	}
	if code := run([]string{"version", "-o", "xml"}, strings.NewReader(""), fullDisk{}, io.Discard); code != exitUsage {
		t.Errorf("wrong usage: got exit %d, want %d", code, exitUsage)
	}
}

// A fullDisk takes nothing, as standard output that goes to /dev/full.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
}

// code runs the program and wants the exit code given first: code 64 revoked frob.
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
