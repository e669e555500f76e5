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

// A node with a damaged file exits with 1 and names the file and the remedy. The others continue,
// and nothing acknowledged is lost.
func TestDamagedFiles_NodeExitsAndNamesFile(t *testing.T) {
	c := startCluster(t, 3)
	for i := range 200 {
		c.mustRegister(t, c.Nodes[i%3], fmt.Sprintf("g-%d", i), "alice", fmt.Sprintf("at-%d", i), fmt.Sprintf("rt-%d", i))
		if i%2 == 0 {
			c.mustRevoke(t, c.Nodes[(i+1)%3], fmt.Sprintf("rt-%d", i))
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   []string // each in the last log line
	}{
		{"the log is truncated", truncate("raft.db"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"the log is a text file", overwrite("raft.db", "#!/bin/sh\n"),
			[]string{"raft.db", "damaged", "move the data directory away"}},
		{"flipped bits in the log", flip("raft.db"), []string{"raft.db", "damaged", "move the data directory away"}},
		{"a changed entry in the log", replace("raft.db", "alice", "alicf"),
			[]string{"raft.db", "damaged", "move the data directory away"}},
		{"the log is empty", empty("raft.db"), []string{"raft.db", "move the data directory away"}},
		{"the log is missing", remove("raft.db"), []string{"raft.db", "move the data directory away"}},
		{"flipped bits in the store's manifest", flip("state/state-*/MANIFEST-*"),
			[]string{"state", "damaged", "move the data directory away"}},
		{"flipped bits in the store's tables", flip("state/state-*/*.sst"),
			[]string{"state", "damaged", "move the data directory away"}},
		{"a table of the store is missing", remove("state/state-*/*.sst"),
			[]string{"state", "damaged", "move the data directory away"}},
		{"the store's generation is empty", empty("state/CURRENT"),
			[]string{"CURRENT", "damaged", "move the data directory away"}},
		{"the identity is garbage", overwrite("identity.json", "garbage"),
			[]string{"identity.json", "damaged", "move the data directory away"}},
		{"the identity is missing", remove("identity.json"), []string{"no identity.json", "move it away"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := c.Nodes[2]
			m.proc.Signal(syscall.SIGTERM)
			if code := m.proc.exit(t); code != 0 {
				t.Fatalf("got exit code %d after SIGTERM, want 0", code)
			}
			good := m.Data + ".good"
			if err := os.CopyFS(good, os.DirFS(m.Data)); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, m.Data)
			words := c.logOfFailedRun(t, m)
			lines := strings.Split(strings.TrimSpace(words), "\n")
			for _, want := range append(tt.want, m.Data) {
				if !strings.Contains(lines[len(lines)-1], want) {
					t.Errorf("got log %s\nwant %q in its last line", words, want)
				}
			}
			c.mustRevoke(t, c.Nodes[0], "at-100") // the others continue
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

// logOfFailedRun starts a node that must exit with code 1, and returns its log. While the node
// runs, its answers must be correct.
func (c *cluster) logOfFailedRun(t *testing.T, m *member) string {
	t.Helper()
	before := len(logOf(t, m))
	c.start(t, m)
	for i := 0; i < 1<<20 && m.proc.Running(); i++ {
		a := c.introspect(m, "app", fmt.Sprintf("at-%d", i%200))
		if active, ok := a.active(); ok && active != (i%2 == 1) {
			t.Errorf("pair %d: got active %t of the damaged node, want %t", i%200, active, !active)
		}
	}
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	return logOf(t, m)[before:]
}

// files returns the files that match the pattern under dir, at least one.
func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("got no %s in %s, error %v, want at least one", pattern, dir, err)
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

// replace replaces bytes with others of the same length.
func replace(pattern, old, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			data, err := os.ReadFile(name)
			if err != nil || !bytes.Contains(data, []byte(old)) {
				t.Fatalf("got no %q in %s, error %v, want it", old, name, err)
			}
			if err := os.WriteFile(name, bytes.ReplaceAll(data, []byte(old), []byte(with)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// empty truncates files to length 0.
func empty(pattern string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, name := range files(t, dir, pattern) {
			if err := os.Truncate(name, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// flip inverts one byte of every 256.
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
