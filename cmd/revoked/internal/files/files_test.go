package files_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"revoked/cmd/revoked/internal/files"
)

func TestWrite_ExistingFile_NeedsForce(t *testing.T) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "sub", "key"), filepath.Join(dir, "cert")
	if err := files.Write(false, files.Private(key, []byte("k"))); err != nil {
		t.Fatal(err)
	}
	if err := files.Write(false, files.Public(cert, nil), files.Private(key, []byte("new"))); err == nil {
		t.Error("got no error for an existing file")
	}
	if _, err := os.Stat(cert); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no file, because the other one exists", err)
	}
	if err := files.Write(true, files.Private(key, []byte("new"))); err != nil {
		t.Fatal(err)
	}
	if got, err := files.Read(key, 3); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v, want the new content", got, err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", st, err)
	}
}

func TestRead_LongFile_IsErrTooLong(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := files.Write(false, files.Public(name, []byte("1234"))); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Read(name, 3); !errors.Is(err, files.ErrTooLong) {
		t.Errorf("got %v, want ErrTooLong", err)
	}
	if _, err := files.CertPool(name); err == nil {
		t.Error("got a pool from a file that is not PEM")
	}
}
