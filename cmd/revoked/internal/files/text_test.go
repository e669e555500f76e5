package files_test

import (
	"errors"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/files"
)

func TestOneLine_InvisibleParts_DroppedOrRefused(t *testing.T) {
	const secret = "canary-3f1b9c5e7a2d4860"
	for name, in := range map[string]string{
		"plain": secret, "newline": secret + "\n", "CR LF": secret + "\r\n", "several line ends": secret + "\n\r\n\n",
		"byte order mark": "\ufeff" + secret, "mark and newline": "\ufeff" + secret + "\r\n",
	} {
		if got, err := files.OneLine([]byte(in)); err != nil || got != secret {
			t.Errorf("%s: got %q and %v, want only the secret", name, got, err)
		}
	}
	if got, err := files.OneLine([]byte("two words, ü\n")); err != nil || got != "two words, ü" {
		t.Errorf("got %q and %v, want inner spaces and letters kept", got, err)
	}
	for in, want := range map[string]string{
		"": "is empty", "\n\n": "is empty", "\ufeff": "is empty", "\ufeff\r\n": "is empty",
		secret + "\n" + secret: "more than one line", "\n" + secret: "more than one line",
		secret + "\r" + secret:  "more than one line",
		" " + secret:            "leading white space",
		"\t" + secret:           "leading white space",
		"\u00a0" + secret:       "leading white space",
		secret + " ":            "trailing white space",
		secret + "\t\n":         "trailing white space",
		secret + " \r\n":        "trailing white space",
		secret + "\u3000":       "trailing white space",
		"\ufeff\ufeff" + secret: "U+FEFF at byte 1",
		secret + "\u200b":       "U+200B",
		secret + "\x1b[2J":      "U+001B",
		secret + "\u2028":       "trailing white space",
		"\xff\xfea\x00":         "UTF-16", "\xfe\xff\x00a": "UTF-16", "a\x00": "UTF-16 or binary",
		secret + "\xe4": "not UTF-8",
	} {
		got, err := files.OneLine([]byte(in))
		if got != "" || !errors.Is(err, files.ErrText) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q and %v, want an error with %q", in, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: got the secret in %v", in, err)
		}
	}
}
