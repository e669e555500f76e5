package strictjson

import (
	"bytes"
	"strings"
	"testing"
)

func TestReader_Wiped_HasNoText(t *testing.T) {
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

// Every copy of a string with escapes must be in scratch, because Wipe clears only scratch. This
// includes copies made before an error, and a copy that is longer than earlier ones.
func TestReader_Wiped_HasNoTextAfterErrors(t *testing.T) {
	secret := strings.Repeat("SECRET-", 100)
	for name, text := range map[string]string{
		"an invalid escape": `"` + secret + `\u002d` + secret + `\q"`,
		"no end":            `"` + secret + `\u002d` + secret,
		"too long":          `"` + secret + `\u002d` + secret + secret + `"`,
		"a short value":     `"` + secret + `\u002d"`,
	} {
		t.Run(name, func(t *testing.T) {
			var r Reader
			r.Reset([]byte(`"a\u002db"`))
			if _, err := r.Text(64); err != nil {
				t.Fatal(err)
			}
			r.Reset([]byte(text))
			_, err := r.Text(2 * len(secret))
			if short := name == "a short value"; (err == nil) != short {
				t.Fatalf("got error %v", err)
			}
			if !bytes.Contains(r.scratch[:cap(r.scratch)], []byte(secret)) {
				t.Error("got a copy outside of scratch, want it where Wipe clears it")
			}
			r.Wipe()
			if bytes.Contains(r.scratch[:cap(r.scratch)], []byte("SECRET")) {
				t.Error("got the text in memory after Wipe, want zeros")
			}
		})
	}
}
