package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestCommandName(t *testing.T) {
	dir := t.TempDir()
	name := func(at string) string {
		file := filepath.Join(dir, at)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	onPath := name("bin/revoked")
	built, cached := name("go-build42/b001/exe/revoked"), name("cache/e7/"+strings.Repeat("e7", 32)+"-d/revoked")
	tree := filepath.Dir(filepath.Dir(filepath.Dir(name("my tree/cmd/revoked/main.go"))))
	t.Setenv("PATH", filepath.Dir(onPath))
	for _, tt := range []struct {
		name, exe, called, work string
		want                    string
	}{
		{"found on the path", onPath, "revoked", dir, "revoked"},
		{"called by another name", filepath.Join(dir, "bin/revoked-1.2"), "revoked-1.2", dir, filepath.Join(dir, "bin/revoked-1.2")},
		{"called by a path, which another terminal may not find", onPath, "./bin/revoked", dir, onPath},
		{"called by a whole path", onPath, onPath, "/", onPath},
		{"go run in the tree", built, built, tree, "cd '" + tree + "' && go run ./cmd/revoked"},
		{"go run, again", cached, cached, tree, "cd '" + tree + "' && go run ./cmd/revoked"},
		{"go run elsewhere", built, built, dir, built},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := commandName(tt.exe, tt.called, tt.work); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// What dev --init-only prints can be pasted, and names no file that is not there.
func TestInitOnlyPrintsWhatThereIs(t *testing.T) {
	dir := t.TempDir()
	p := startProgram(t, "dev", "--init-only", "--nodes", "2", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 2)))
	printed := p.readUntil(t, "export REVOKED_CLIENT_ID=")
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	for _, n := range readDevFile(t, dir).Nodes {
		if want := "\nrevoked server --config " + n.Config + "\n"; !strings.Contains(printed, want) {
			t.Errorf("got %s, want the line %q", printed, want)
		}
		if n.Log == "" || strings.Contains(printed, n.Log) {
			t.Errorf("got %s, want no %q, which no node writes then", printed, n.Log)
		}
	}
}
