package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
)

func TestCommandName_AnyDirectory_Works(t *testing.T) {
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
		{"called by another name", filepath.Join(dir, "bin/revoked-1.2"), "revoked-1.2", dir,
			filepath.Join(dir, "bin/revoked-1.2")},
		{"called by a relative path", onPath, "./bin/revoked", dir, onPath},
		{"called by an absolute path", onPath, onPath, "/", onPath},
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

func TestCurlLines_DirectoryWithSpace_IsQuoted(t *testing.T) {
	c := &devcluster.Cluster{CA: "/my folder/ca.pem", Nodes: make([]devcluster.Node, 1)}
	lines := jwtLines(c, "/my folder", "revoked")
	if want := "JWT=$(revoked dev token --dir '/my folder')"; lines[0] != want {
		t.Errorf("got %s, want %s", lines[0], want)
	}
	for _, line := range append(curlLines(c, "tok", time.Unix(1, 0)), lines[1:]...) {
		if !strings.HasPrefix(line, "curl -sS --cacert '/my folder/ca.pem' -u ") {
			t.Errorf("got %s, want the CA quoted", line)
		}
	}
}

// The text names the address of the console, and the client to sign in with.
func TestPrintWelcome_NamesTheConsole(t *testing.T) {
	c := &devcluster.Cluster{CA: "/d/ca.pem", Nodes: []devcluster.Node{{ID: "node1", API: "https://127.0.0.1:8443"}},
		Clients: map[string]devcluster.Credential{config.AdminID: {ClientID: "admin", ClientSecret: "s"}}}
	var b strings.Builder
	printWelcome(&b, c, "/d", "revoked", false)
	if want := "Console: open https://127.0.0.1:8443/ui and sign in as admin"; !strings.Contains(b.String(), want) {
		t.Errorf("got %s, want %s", b.String(), want)
	}
}
