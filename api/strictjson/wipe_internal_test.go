package strictjson

import (
	"bytes"
	"testing"
)

func TestReader_Wiped_HoldsNoText(t *testing.T) {
	var r Reader
	r.Reset([]byte(`"SECRET\u002dONE"`))
	if got, err := r.Text(64); string(got) != "SECRET-ONE" {
		t.Fatalf("got %q, error %v, want the unescaped text", got, err)
	}
	r.Wipe()
	if bytes.Contains(r.scratch[:cap(r.scratch)], []byte("SECRET")) {
		t.Error("got the text in memory after Wipe, want zeros")
	}
}
