package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// docs/faults.md has every row once, and every test that its commands name exists in the package of
// the command.
func TestDocs_FaultCommands_NameTests(t *testing.T) {
	const matrix = 65 // number of rows in the groups from "processes" to "membership"
	row := regexp.MustCompile(`^\| (\d+) \|`)
	command := regexp.MustCompile("`(?:\\w+=\\w+ )*go test [^`]*-run '([^']*)' \\./([\\w/]+)`")
	seen := map[int]int{}
	for line := range strings.Lines(strings.ReplaceAll(readPage(t, "docs/faults.md"), `\|`, "|")) {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		number, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		seen[number]++
		commands := command.FindAllStringSubmatch(line, -1)
		if strings.Count(line, "go test") != len(commands) {
			t.Errorf("row %d: want a command like `go test ... -run '...' ./package`: %s", number, line)
		}
		for _, c := range commands {
			for _, name := range strings.Split(strings.Trim(c[1], "^$"), "|") {
				name, _, _ = strings.Cut(name, "/") // a subtest
				if !hasTest(t, c[2], name) {
					t.Errorf("row %d: %s has no %s", number, c[2], name)
				}
			}
		}
	}
	for number := 1; number <= matrix; number++ {
		if seen[number] != 1 {
			t.Errorf("row %d: got it %d times, want once", number, seen[number])
		}
	}
}

// hasTest reports whether a package has a test of that name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	names, err := fs.Glob(os.DirFS(filepath.Join(repository, dir)), "*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range names {
		if strings.Contains(readPage(t, filepath.Join(dir, file)), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
