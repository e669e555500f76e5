package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckTempDir_Missing_IsProblem(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	c := &Config{Settings: Settings{TempDir: missing}}
	c.checkTempDir(&Files{})
	if err := c.err(); err == nil || !strings.Contains(err.Error(), "temp_dir: cannot store temporary files") {
		t.Errorf("temp_dir: got %v, want a problem", err)
	}
	t.Setenv("TMPDIR", missing)
	c, f := &Config{}, &Files{}
	c.checkTempDir(f)
	if err := c.err(); err != nil || len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "set temp_dir") {
		t.Errorf("default: got %v and warnings %q, want a warning", err, f.Warnings)
	}
	dir := t.TempDir()
	c, f = &Config{Settings: Settings{TempDir: dir}}, &Files{}
	c.checkTempDir(f)
	left, err := os.ReadDir(dir)
	if c.err() != nil || len(f.Warnings) != 0 || err != nil || len(left) != 0 {
		t.Errorf("usable: got %v, warnings %q, files %v, want none", c.err(), f.Warnings, left)
	}
}

func TestTempDirWarning_LittleSpace_Warns(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Settings: Settings{TempDir: dir, DataDir: filepath.Join(dir, "not", "yet"), SpoolLimit: 1 << 60}}
	if got := c.TempDirWarning(); !strings.Contains(got, "same file system") || !strings.Contains(got, "MiB") {
		t.Errorf("got %q, want a warning", got)
	}
	if free := FreeBytes(dir); free > 0 {
		c.SpoolLimit = free / 4
		if got := c.TempDirWarning(); got != "" {
			t.Errorf("enough space: got %q, want no warning", got)
		}
		c.SpoolLimit = 1 << 60
	}
	c.DataDir = "/proc/self"
	if _, err := os.Stat(c.DataDir); err == nil {
		if got := c.TempDirWarning(); got != "" {
			t.Errorf("another file system: got %q, want no warning", got)
		}
	}
}
