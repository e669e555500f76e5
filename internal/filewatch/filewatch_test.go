package filewatch_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"revoked/internal/filewatch"
)

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWatcher_Reload_LoadsChangedContent(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	write(t, a, "one")
	var got string
	refused := errors.New("refused")
	w := filewatch.New(func(content [][]byte) error {
		if string(content[1]) == "bad" {
			return refused
		}
		got = string(content[0]) + " " + string(content[1])
		return nil
	}, a, b)
	for _, step := range []struct {
		name, b string
		changed bool
		err     error
		want    string
	}{
		{"missing file", "", false, fs.ErrNotExist, ""},
		{"first load", "two", true, nil, "one two"},
		{"same content", "two", false, nil, "one two"},
		{"refused content", "bad", false, refused, "one two"},
		{"refused again", "bad", false, refused, "one two"},
		{"back to the old content", "two", false, nil, "one two"},
		{"same size", "six", true, nil, "one six"},
		{"a byte order mark is dropped", "\ufeffsix", true, nil, "one six"},
		{"too large", string(make([]byte, filewatch.MaxSize+1)), false, filewatch.ErrTooLarge, "one six"},
	} {
		if step.b != "" {
			write(t, b, step.b)
		}
		changed, err := w.Reload()
		if changed != step.changed || !errors.Is(err, step.err) || got != step.want {
			t.Errorf("%s: got %v, %v, %q, want %v, %v, %q", step.name, changed, err, got, step.changed, step.err, step.want)
		}
	}
}

func TestReload_ContentMovesToOtherFile_IsAChange(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	w := filewatch.New(func([][]byte) error { return nil }, a, b)
	for _, content := range [][2]string{{"xy", "z"}, {"x", "yz"}} {
		write(t, a, content[0])
		write(t, b, content[1])
		if changed, err := w.Reload(); !changed || err != nil {
			t.Errorf("%q: got %v, %v, want a change", content, changed, err)
		}
	}
}

func TestWatch_RepeatedError_IsObservedOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	w := filewatch.New(func([][]byte) error { return nil }, name)
	ctx, cancel := context.WithCancel(context.Background())
	failures, checks := 0, 0
	w.Watch(ctx, time.Millisecond, func(changed bool, err error) {
		checks++
		if err != nil {
			failures++
		}
		switch {
		case checks == 3:
			write(t, name, "content")
		case changed:
			cancel()
		}
	})
	if failures != 1 || checks < 4 {
		t.Errorf("got %d errors in %d checks, want 1 in at least 4", failures, checks)
	}
}
