package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"revoked/internal/durable"
)

func TestReplace_ExistingFile_HasNewContentAndMode(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	for _, step := range []struct {
		content string
		mode    fs.FileMode
	}{{"first", 0o644}, {"second", 0o600}} {
		if err := durable.Replace(name, []byte(step.content), step.mode); err != nil {
			t.Fatal(err)
		}
		if err := durable.SyncDir(dir); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		st, errStat := os.Stat(name)
		if err != nil || errStat != nil || string(got) != step.content || st.Mode().Perm() != step.mode {
			t.Errorf("got %q, mode %v, %v, %v, want %q, mode %v", got, st.Mode(), err, errStat, step.content, step.mode)
		}
	}
}

func TestReplace_Failure_LeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(name, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(name, []byte("x"), 0o600); err == nil {
		t.Error("got nil, want an error for a directory with children")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want only the directory", left, err)
	}
}
