package fsm_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"revoked/fsm"
)

// dirFS fails to sync directories once it is armed.
type dirFS struct {
	fsm.FS
	armed *bool
}

var errDirectory = errors.New("sync of a directory fails")

func (f dirFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return dirFile{file, f.armed}, err
}

type dirFile struct {
	vfs.File
	armed *bool
}

func (f dirFile) Sync() error {
	if *f.armed {
		return errDirectory
	}
	return f.File.Sync()
}

// After a failed swap either state may be the one on disk, so both must remain and the process
// must end.
func TestRestore_FailedSwap_FatalKeepsState(t *testing.T) {
	m := lived(t)
	backup := m.backup()
	armed := false
	var fatal error
	conf := fsm.Config{Dir: "state", FS: dirFS{vfs.NewMem(), &armed}, Fatal: func(err error) { fatal = err },
		Installing: func(uint64) error { armed = true; return nil }}
	f, err := fsm.Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(backup))); !errors.Is(err, errDirectory) {
		t.Errorf("got %v, want %v", err, errDirectory)
	}
	if !errors.Is(fatal, errDirectory) {
		t.Errorf("fatal: got %v, want %v", fatal, errDirectory)
	}
	armed = false
	f.Close()
	again, err := fsm.Open(conf)
	if err != nil {
		t.Fatalf("next start: got %v, want success", err)
	}
	defer again.Close()
	if r, err := lookup(again, digest("a-3")); err != nil || !r.Found {
		t.Errorf("got %+v, %v, want the new state", r, err)
	}
}
