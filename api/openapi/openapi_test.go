package openapi_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"os"
	"testing"

	"revoked/api/openapi"
)

var update = flag.Bool("update", false, "write openapi.json.gz from openapi.json")

// The program serves openapi.json, which the other tests check and people edit: the compressed file
// has the same content.
func TestDocument_CompressedFile_IsCurrent(t *testing.T) {
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("openapi.json.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return // the test binary contains the old file
	}
	if !bytes.Equal(openapi.Document(), want) {
		t.Error("openapi.json.gz is not current: run go test ./api/openapi -update")
	}
}
