package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/cli"
	"revoked/fsm"
	"revoked/fsm/snapshot"
)

// goodSnapshot returns a backup of an empty state.
func goodSnapshot(t *testing.T) []byte {
	t.Helper()
	f, err := fsm.Open(fsm.Config{Dir: filepath.Join(t.TempDir(), "state"), CacheBytes: 1 << 20,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.WriteSnapshot(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// snapshotNode is a node that answers with the bytes, and breaks off after them if cut is set.
func snapshotNode(t *testing.T, b []byte, cut bool) *fakeNode {
	return newFakeNode(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(b)
		if cut {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
}

func TestSnapshotSave_Backup_IsVerified(t *testing.T) {
	good := goodSnapshot(t)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0x40
	bad := map[string]struct {
		body []byte
		cut  bool
	}{
		"a stream that was broken off": {good[:len(good)-7], true},
		"a body that ends too early":   {good[:len(good)-7], false},
		"a bit that was flipped":       {flipped, false},
		"bytes that follow":            {append(bytes.Clone(good), "more"...), false},
		"not a snapshot":               {[]byte(`{"error":"x"}`), false},
		"nothing":                      {nil, false},
	}
	for name, tt := range bad {
		t.Run("refuses "+name+" and leaves no file", func(t *testing.T) {
			node := snapshotNode(t, tt.body, tt.cut)
			useNodes(t, node.URL, node)
			dir := t.TempDir()
			got := runWith(t, "", "snapshot", "save", filepath.Join(dir, "backup"))
			if got.code != cli.ExitFailed || !strings.Contains(got.stderr, "not saved") {
				t.Errorf("got exit %d and %q, want %d and no saved file", got.code, got.stderr, cli.ExitFailed)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("files left: got %v and %v, want none", left, err)
			}
			if got := runWith(t, "", "snapshot", "save", "-"); got.code != cli.ExitFailed {
				t.Errorf("to standard output: got exit %d, want %d", got.code, cli.ExitFailed)
			}
		})
	}

	node := snapshotNode(t, good, false)
	useNodes(t, node.URL, node)
	file := filepath.Join(t.TempDir(), "backup")
	t.Run("writes a whole backup, readable by its owner only", func(t *testing.T) {
		if got := runWith(t, "", "snapshot", "save", file); got.code != 0 {
			t.Fatalf("got exit %d and %q, want 0", got.code, got.stderr)
		}
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(b, good) {
			t.Errorf("file: got %d bytes and %v, want the %d bytes of the node", len(b), err, len(good))
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode: got %v and %v, want 0600", info.Mode(), err)
		}
	})
	t.Run("replaces an existing file only if forced", func(t *testing.T) {
		if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := runWith(t, "", "snapshot", "save", file); got.code != cli.ExitFailed ||
			!strings.Contains(got.stderr, "--force") {
			t.Errorf("got exit %d and %q, want %d and advice", got.code, got.stderr, cli.ExitFailed)
		}
		if b, _ := os.ReadFile(file); string(b) != "precious" {
			t.Errorf("the file was changed: got %q", b)
		}
		if got := runWith(t, "", "snapshot", "save", file, "--force"); got.code != 0 {
			t.Errorf("forced: got exit %d and %q, want 0", got.code, got.stderr)
		}
		if b, _ := os.ReadFile(file); !bytes.Equal(b, good) {
			t.Error("forced: the file is not the snapshot")
		}
	})
	t.Run("to standard output writes only the snapshot", func(t *testing.T) {
		got := runWith(t, "", "snapshot", "save", "-")
		if got.code != 0 || got.stdout != string(good) {
			t.Errorf("got exit %d and %d bytes, want 0 and %d", got.code, len(got.stdout), len(good))
		}
	})
}

// If the backup cannot be written, the error names the failed write, not a damaged snapshot.
func TestSnapshotSave_FullDisk_IsReported(t *testing.T) {
	node := snapshotNode(t, goodSnapshot(t), false)
	useNodes(t, node.URL, node)
	var stderr bytes.Buffer
	code := run([]string{"snapshot", "save", "-"}, strings.NewReader(""), fullDisk{}, &stderr)
	if want := "revoked: save the snapshot: write /dev/stdout: no space left on device\n"; code != cli.ExitFailed ||
		stderr.String() != want {
		t.Errorf("got exit %d and %q, want %d and %q", code, stderr.String(), cli.ExitFailed, want)
	}
}

func TestSnapshotRestore_Backup_PrintsSize(t *testing.T) {
	good := goodSnapshot(t)
	got := runWith(t, string(good), "snapshot", "restore", "-", "--data-dir", filepath.Join(t.TempDir(), "data"),
		"--node-id", "node1", "-o", "json")
	var a headerView
	if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.code != 0 || a.Bytes != int64(len(good)) {
		t.Errorf("got exit %d, %q and %q, want 0 and %d bytes", got.code, got.stdout, got.stderr, len(good))
	}
	if want := "every token issued before " + a.CreatedAt + " is revoked"; !strings.Contains(got.stderr, want) {
		t.Errorf("got %q, want %q", got.stderr, want)
	}
}

func TestSnapshotInspect_Backup_IsVerified(t *testing.T) {
	good := goodSnapshot(t)
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]struct{ stdin, arg string }{"a file": {"", file},
		"standard input": {string(good), "-"}} {
		got := runWith(t, in.stdin, "snapshot", "inspect", in.arg, "-o", "json")
		var a headerView
		if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.code != 0 || a.FormatVersion < 1 ||
			a.Bytes != int64(len(good)) {
			t.Errorf("%s: got exit %d and %q, want 0 and the header", name, got.code, got.stdout)
		}
	}
	if got := runWith(t, string(good[:len(good)-1]), "snapshot", "inspect", "-"); got.code != cli.ExitFailed ||
		got.stdout != "" {
		t.Errorf("a short one: got exit %d and %q, want %d and nothing", got.code, got.stdout, cli.ExitFailed)
	}
	if _, err := snapshot.Verify(bytes.NewReader(good)); err != nil {
		t.Errorf("verify: got %v, want none", err)
	}
}
