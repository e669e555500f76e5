//go:build system

package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Damaged files: the node says which file and what to do and ends with 1, the others go on, and nothing
// that was acknowledged is lost.
func TestDamagedFiles(t *testing.T) {
	c := startCluster(t, 3)
	for i := range 200 {
		c.mustRegister(t, c.Nodes[i%3], fmt.Sprintf("g-%d", i), "alice", fmt.Sprintf("at-%d", i), fmt.Sprintf("rt-%d", i))
		if i%2 == 0 {
			c.mustRevoke(t, c.Nodes[(i+1)%3], fmt.Sprintf("rt-%d", i))
		}
	}
	for _, tt := range []struct {
		name  string
		wreck func(t *testing.T, dir string)
		says  []string // each in the last line it writes
	}{
		{"the log is cut in half", truncate("raft.db"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"the log is not a log", overwrite("raft.db", "#!/bin/sh\n"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"bits of the log have flipped", flip("raft.db"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"an entry of the log has changed", replace("raft.db", "alice", "alicf"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"the log is empty", overwriteAll("raft.db"), []string{"raft.db", "move the data directory away"}},
		{"the log is gone", remove("raft.db"), []string{"raft.db", "move the data directory away"}},
		{"bits of the store's manifest have flipped", flip("state/state-*/MANIFEST-*"), []string{"state", "damaged", "move the data directory away"}},
		{"bits of the store's tables have flipped", flip("state/state-*/*.sst"), []string{"state", "damaged", "move the data directory away"}},
		{"a table of the store is gone", remove("state/state-*/*.sst"), []string{"state", "damaged", "move the data directory away"}},
		{"the store's generation cannot be read", overwriteAll("state/CURRENT"), []string{"CURRENT", "damaged", "move the data directory away"}},
		{"bits of the identity have flipped", overwrite("identity.json", "garbage"), []string{"identity.json", "damaged", "move the data directory away"}},
		{"the identity is gone", remove("identity.json"), []string{"no identity.json", "move it away"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := c.Nodes[2]
			m.proc.signal(syscall.SIGTERM)
			if code := m.proc.exit(t); code != 0 {
				t.Fatalf("got exit code %d after SIGTERM, want 0", code)
			}
			good := m.Data + ".good"
			if err := os.CopyFS(good, os.DirFS(m.Data)); err != nil {
				t.Fatal(err)
			}
			tt.wreck(t, m.Data)
			words := c.lastWords(t, m)
			lines := strings.Split(strings.TrimSpace(words), "\n")
			for _, want := range append(tt.says, m.Data) {
				if !strings.Contains(lines[len(lines)-1], want) {
					t.Errorf("it does not say %q, but:\n%s", want, words)
				}
			}
			c.mustRevoke(t, c.Nodes[0], "at-100") // the others go on
			if err := os.RemoveAll(m.Data); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(good, m.Data); err != nil {
				t.Fatal(err)
			}
			c.start(t, m)
			c.awaitReady(t, m)
		})
	}
	c.checkAgreement(t, c.Nodes...)
	for i := range 200 {
		c.wantActive(t, fmt.Sprintf("at-%d", i), i%2 == 1, c.Nodes[i%3], c.Nodes[2])
	}
}

// lastWords starts a node that must end by itself with exit code 1 and returns what it wrote. While it
// runs it is asked: what it answers must be true.
func (c *cluster) lastWords(t *testing.T, m *member) string {
	t.Helper()
	before := len(logOf(t, m))
	c.start(t, m)
	for i := 0; i < 1<<20 && m.proc.runs(); i++ {
		a := c.introspect(m, "app", fmt.Sprintf("at-%d", i%200))
		if active, ok := a.active(); ok && active != (i%2 == 1) {
			t.Errorf("the damaged node says active %t of pair %d", active, i%200)
		}
	}
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	return logOf(t, m)[before:]
}

// files returns what matches the pattern under dir, biggest first; there must be some.
func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return names
}

func truncate(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			st, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(name, st.Size()/2); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func remove(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// overwrite replaces the beginning of files.
func overwrite(pattern, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte(with), 16<<10/len(with)), 0); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// replace puts other bytes of the same length into files that hold the old ones.
func replace(pattern, old, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			data, err := os.ReadFile(name)
			if err != nil || !bytes.Contains(data, []byte(old)) {
				t.Fatalf("no %q in %s: %v", old, name, err)
			}
			if err := os.WriteFile(name, bytes.ReplaceAll(data, []byte(old), []byte(with)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// overwriteAll leaves the files with nothing.
func overwriteAll(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			if err := os.Truncate(name, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// flip inverts a byte in every stretch of 256.
func flip(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i := 97; i < len(data); i += 256 {
				data[i] ^= 0xff
			}
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
