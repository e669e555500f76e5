package devfolder

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/files"
)

func TestMakeIssuer_KeyExists_IsKept(t *testing.T) {
	f := Folder{Dir: t.TempDir()}
	read := func() (key, record []byte) {
		t.Helper()
		if err := f.makeIssuer(); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(f.path(issuerKeyFile))
		if err != nil {
			t.Fatal(err)
		}
		if record, err = os.ReadFile(f.IssuerFile()); err != nil {
			t.Fatal(err)
		}
		return key, record
	}
	key, record := read()
	if again, same := read(); !bytes.Equal(again, key) || !bytes.Equal(same, record) {
		t.Errorf("got %s and %s, want the same as before", same, record)
	}
	st, err := os.Stat(f.path(issuerKeyFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: got mode %v, %v, want 0600", st.Mode(), err)
	}
	if bytes.Contains(record, []byte(`"d"`)) {
		t.Errorf("record: got %s, want public members only", record)
	}
}

func TestReadSigner_OtherContent_IsRefused(t *testing.T) {
	const broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	for content, want := range map[string]string{"": "not a PEM file", broken: "not a private key"} {
		f := Folder{Dir: t.TempDir()}
		if err := files.Write(false, files.Private(f.path(issuerKeyFile), []byte(content))); err != nil {
			t.Fatal(err)
		}
		if err := f.makeIssuer(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", content, err, want)
		}
		if left, err := os.ReadFile(f.path(issuerKeyFile)); err != nil || string(left) != content {
			t.Errorf("%q: got %q, %v, want it unchanged", content, left, err)
		}
	}
}
